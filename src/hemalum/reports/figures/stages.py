"""Both stages of two-stage models as their paper draws them, and our own difference beside: a row for each model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from hemalum.errors import HemalumError, counted, nearest
from hemalum.experiments.stages import Stages, compare_nuclei, open_stages
from hemalum.files import atomic_path
from hemalum.metrics import count_pixels, score_pixels
from hemalum.nuclei.io.overlay import draw_outlines
from hemalum.reports.comparison.sheet import (
    FALSE_POSITIVE,
    GAINED,
    GRAY,
    LOST,
    MISSED,
    PALE,
    STRIPED,
    WHITE,
    Colors,
    Labels,
    difference_map,
    error_map,
)
from hemalum.reports.figures.contact_sheet import Panel, Row, Sheet, draw_sheet, picture_path
from hemalum.reports.figures.difference import PICTURE, fitted

if TYPE_CHECKING:
    from hemalum.data.dataset import Dataset
    from hemalum.data.sample import Sample
    from hemalum.experiments.stages import StageComparison

BLACK = (0, 0, 0)


def write_stages(
    models: Sequence[Path | str],
    comparisons: "Sequence[StageComparison]",
    dataset: "Dataset",
    path: Path | str,
    *,
    image: str | None = None,
    engine: str = "auto",
    threads: int | None = None,
) -> Path:
    """Draw `models`, compared on `dataset` as `comparisons`, on one of its images; write `path` and give it.

    The image is the one with the most newly found nuclei over all models, or the one whose id is `image`. Columns:
    image, truth, p1, p2, p2 minus p1 (white: p2 alone, as printed), and where one of the two is right. Raises
    HemalumError for an unknown image, or an ending that is no picture's.
    """
    path = picture_path(path)
    sample = _choose(comparisons, dataset, image)
    rows = [_row(open_stages(model, dataset, engine=engine, threads=threads), sample) for model in models]
    newly, lost = (sum(getattr(one.nuclei, name) for one in comparisons) for name in ("newly_found", "lost"))
    footnotes = [
        "Newly found: a true nucleus that p1 misses and p2 finds, at an IoU above 0.5; lost: the reverse. "
        f"Over {counted(len(comparisons[0].images), 'image')} and {counted(len(comparisons), 'model')}: "
        f"{newly} newly found, {lost} lost. p1 and p2 are of one network.",
    ]
    if image is None:
        footnotes.append("The image is the one with the most newly found nuclei: it shows the best case.")
    sheet = Sheet(
        title="What the second stage changes",
        subtitle=f"{dataset.info.name}, {sample.id}",
        columns=[
            ("Image", "as it was segmented"),
            ("Truth", "nuclei outlined"),
            ("First stage", "p1 against the truth"),
            ("Both stages", "p2 against the truth"),
            ("Difference", "p2 minus p1, white: p2 alone"),
            ("Right and wrong", "where one of the two is right"),
        ],
        rows=rows,
        legend=[
            (GRAY, "found (true positive)"),
            (FALSE_POSITIVE, "too much (false positive)"),
            (MISSED, "missed (false negative)"),
            (GAINED, "right by p2 alone"),
            (LOST, "right by p1 alone"),
            (PALE, "wrong in both"),
        ],
        footnotes=footnotes,
        filled=True,
        striped=STRIPED,
    )
    with atomic_path(path) as temporary:
        draw_sheet(sheet).save(temporary, quality=92, optimize=path.suffix.lower() == ".png")
    return path


def newly_found_map(first: Labels, second: Labels) -> Colors:
    """(H, W, 3) uint8: white where the second has a nucleus and the first none, black elsewhere, as printed."""
    colors = np.full((*first.shape, 3), BLACK, np.uint8)
    colors[(second != 0) & (first == 0)] = WHITE
    return colors


def find_image(dataset: "Dataset", image: str) -> int:
    """The index of an image by its id. Raises HemalumError where there is none."""
    ids = [row.id for row in dataset.rows]
    if image not in ids:
        raise HemalumError(f"{dataset.path}: no image '{image}' in the part that is drawn{nearest(image, ids)}")
    return ids.index(image)


def _choose(comparisons: "Sequence[StageComparison]", dataset: "Dataset", image: str | None) -> "Sample":
    if image is None:
        newly = np.sum([[one.nuclei.newly_found for one in each.images] for each in comparisons], axis=0)
        image = comparisons[0].images[int(newly.argmax())].id
    sample: Sample = dataset[find_image(dataset, image)]
    return sample


def _row(stages: Stages, sample: "Sample") -> Row:
    truth = sample.instances
    first, second = (one.labels for one in stages(sample))
    nuclei = compare_nuclei(truth, first, second)
    dice = [score_pixels(count_pixels(truth, labels)).dice for labels in (first, second)]
    outlined = draw_outlines(sample.image, truth.astype(np.uint32))
    bar = None if sample.mpp is None else (20 / sample.mpp * PICTURE / max(truth.shape), "20 µm")
    box = Image.Resampling.BOX  # means over whole pixels, so that thin errors fade and do not vanish
    panels = [
        Panel(fitted(sample.image, Image.Resampling.LANCZOS), bar=bar),
        Panel(fitted(outlined, Image.Resampling.LANCZOS), note=counted(nuclei.nuclei, "nucleus")),
        Panel(fitted(error_map(truth, first, PICTURE), box), note=f"found {nuclei.found_p1}, Dice {dice[0]:.3f}"),
        Panel(fitted(error_map(truth, second, PICTURE), box), note=f"found {nuclei.found_p2}, Dice {dice[1]:.3f}"),
        Panel(fitted(newly_found_map(first, second), box), note=f"newly found {nuclei.newly_found}"),
        Panel(
            fitted(difference_map(truth, second, first, PICTURE), box),
            note=f"newly found {nuclei.newly_found}, lost {nuclei.lost}",
        ),
    ]
    return Row([stages.name, f"Dice {dice[1] - dice[0]:+.3f}".replace("-", "−")], panels)
