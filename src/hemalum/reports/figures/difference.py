"""What one method of a comparison changes against another, in one picture: pixels that it gains and that it loses."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.errors import HemalumError, counted, nearest
from hemalum.files import atomic_path
from hemalum.nuclei.io.overlay import draw_outlines
from hemalum.reports.comparison.sheet import (
    FALSE_POSITIVE,
    GAINED,
    GRAY,
    LOST,
    MISSED,
    PALE,
    STRIPED,
    Labels,
    best_median_worst,
    difference_map,
    error_map,
    kept_prediction,
    right_alone,
)
from hemalum.reports.figures.contact_sheet import Panel, Row, Sheet, draw_sheet, picture_path
from hemalum.reports.numbers import number

if TYPE_CHECKING:
    from hemalum.data.dataset import Dataset
    from hemalum.data.sample import Sample
    from hemalum.experiments.records import Comparison, Run

PICTURE = 320  # px of a picture's side


@dataclass(frozen=True, slots=True)
class Change:
    """Dice of one image under both methods, from the same fold and seed of each."""

    image: str
    first: float
    second: float
    runs: "tuple[Run, Run]"

    @property
    def gain(self) -> float:
        """How much better the second is."""
        return self.second - self.first


def write_difference(
    comparison: "Comparison", first: str, second: str, path: Path | str, dataset: str | None = None
) -> Path:
    """Draw three images (most gained, median, most lost in Dice by `second` over `first`), write `path`, give it.

    `first` and `second` are names of methods of the comparison; `dataset` is needed where it has several. Raises
    HemalumError for unknown names, an ending that is no picture's, or when images, scores or predictions are not
    there.
    """
    path = picture_path(path)
    dataset = _one_of(comparison, first, second, dataset)
    changes = list_changes(comparison, first, second, dataset)
    if not changes:
        raise HemalumError(
            f"{comparison.out}: {first} and {second} have no image of {dataset} in common that both have finished"
        )
    picture = draw_sheet(_sheet(comparison, first, second, dataset, changes))
    with atomic_path(path) as temporary:
        picture.save(temporary, quality=92, optimize=path.suffix.lower() == ".png")
    return path


def list_changes(comparison: "Comparison", first: str, second: str, dataset: str) -> list[Change]:
    """Dice of every image that both methods scored, the most gained first; between equals the name decides.

    Of several trainings the one with the least seed speaks, the same seed for both where both are trained.
    """
    changes: dict[str, Change] = {}
    for pair in _pairs(comparison, first, second, dataset):
        scores = [{str(row["id"]): number(row.get("dice")) for row in run.per_image} for run in pair]
        for image in scores[0].keys() & scores[1].keys():
            change = Change(image, scores[0][image], scores[1][image], pair)
            if np.isfinite(change.gain):
                changes.setdefault(image, change)
    return sorted(changes.values(), key=lambda change: (-change.gain, change.image))


def _pairs(comparison: "Comparison", first: str, second: str, dataset: str) -> list[tuple["Run", "Run"]]:
    """One run of each method for every fold that both have finished."""
    firsts, seconds = (
        [run for run in comparison.runs if (run.method, run.dataset) == (method, dataset)]
        for method in (first, second)
    )
    trained = {method.name for method in comparison.methods if method.kind == "recipe"}
    share_seed = {first, second} <= trained  # a method that is not trained has no seed to share
    by_fold: dict[int, list[tuple[Run, Run]]] = {}
    for a, b in product(firsts, seconds):
        if a.fold == b.fold and (a.seed == b.seed or not share_seed):
            by_fold.setdefault(a.fold, []).append((a, b))
    return [min(pairs, key=lambda pair: (pair[0].seed, pair[1].seed)) for _, pairs in sorted(by_fold.items())]


def _one_of(comparison: "Comparison", first: str, second: str, dataset: str | None) -> str:
    """The dataset that is meant, after a look at all names."""
    methods = [method.name for method in comparison.methods]
    for name in (first, second):
        if name not in methods:
            raise HemalumError(f"{comparison.out} has no method '{name}'{nearest(name, methods)}")
    if first == second:
        raise HemalumError(f"'{first}' against itself: name two methods of {', '.join(methods)}")
    names = list(comparison.datasets)
    if dataset is None and len(names) > 1:
        raise HemalumError(f"{comparison.out} has several datasets, choose one with --data: {', '.join(names)}")
    if dataset is not None and dataset not in names:
        raise HemalumError(f"{comparison.out} has no dataset '{dataset}'{nearest(dataset, names)}")
    return dataset or names[0]


def _sheet(comparison: "Comparison", first: str, second: str, dataset: str, changes: Sequence[Change]) -> Sheet:
    opened = comparison.dataset(dataset)
    positions = {row.id: position for position, row in enumerate(opened.rows)}
    rows = []
    for rank, change in best_median_worst(changes, only="Best"):
        if change.image not in positions:
            raise HemalumError(f"image {change.image} of the comparison is not in {comparison.datasets[dataset]}")
        rows.append(_row(rank, change, opened[positions[change.image]]))
    better, worse = (sum(sign * change.gain > 0 for change in changes) for sign in (1, -1))
    means = [float(np.mean([getattr(change, name) for change in changes])) for name in ("first", "second")]
    facts = [
        f"{dataset}, {counted(len(changes), 'image')}",
        f"mean Dice {means[0]:.3f} to {means[1]:.3f}",
        f"better on {better}, worse on {worse}",
        f"budget {comparison.budget}",
    ]
    legend = [
        (GRAY, "found (true positive)"),
        (FALSE_POSITIVE, "too much (false positive)"),
        (MISSED, "missed (false negative)"),
        (GAINED, f"gained: right by {second} alone"),
        (LOST, f"lost: right by {first} alone"),
        (PALE, "wrong in both"),
    ]
    return Sheet(
        title=f"What {second} changes against {first}",
        subtitle="  ·  ".join(facts),
        columns=[
            ("Image", "as it was segmented"),
            ("Truth", "nuclei outlined"),
            (first, "its pixels against the truth"),
            (second, "its pixels against the truth"),
            ("Difference", "where one of the two is right"),
        ],
        rows=rows,
        legend=legend,
        footnotes=_footnotes(opened, changes),
        filled=True,
        striped=STRIPED,
    )


def _footnotes(dataset: "Dataset", changes: Sequence[Change]) -> list[str]:
    seeds = sorted({change.runs[0].seed for change in changes})
    note = "Rows: the image whose Dice gained most, the median, and the one that lost most"
    note += f", of {len(changes)}; seed {', '.join(map(str, seeds))}."
    info = dataset.info
    source = [f"Images: {info.citation} ({info.license or 'license not stated'})"] if info.citation else []
    return [note, *source]


def _row(rank: str, change: Change, sample: "Sample") -> Row:
    truth = sample.instances
    predictions = [_prediction(run, sample) for run in change.runs]
    outlined = draw_outlines(sample.image, truth.astype(np.uint32))
    lost, gained = (pixels.mean() for pixels in right_alone(truth, *predictions))
    wide = max(truth.shape)
    bar = None if sample.mpp is None else (20 / sample.mpp * PICTURE / wide, "20 µm")
    box = Image.Resampling.BOX  # means over whole pixels, so that thin errors fade and do not vanish
    pictures = [
        Panel(fitted(sample.image, Image.Resampling.LANCZOS), bar=bar),
        Panel(fitted(outlined, Image.Resampling.LANCZOS), note=counted(np.unique(truth[truth > 0]).size, "nucleus")),
        Panel(
            fitted(error_map(truth, predictions[0], PICTURE), Image.Resampling.BOX), note=f"Dice {change.first:.3f}"
        ),
        Panel(
            fitted(error_map(truth, predictions[1], PICTURE), Image.Resampling.BOX), note=f"Dice {change.second:.3f}"
        ),
        Panel(
            fitted(difference_map(truth, predictions[1], predictions[0], PICTURE), box),
            note=f"gained {gained:.1%}, lost {lost:.1%} of pixels",
        ),
    ]
    height, width = truth.shape
    about = [sample.organ or "", f"{width} × {height} px", f"{sample.mpp:.3g} µm/px" if sample.mpp else ""]
    lines = [f"{rank}: Dice {change.gain:+.3f}".replace("-", "−"), change.image, *about]
    return Row([line for line in lines if line], pictures)


def _prediction(run: "Run", sample: "Sample") -> Labels:
    labels = kept_prediction(run, sample)
    if labels is None:
        raise HemalumError(f"{run.folder / 'predictions'}: no label map of {sample.id} that fits its image")
    return labels


def fitted(pixels: NDArray[Any], how: Image.Resampling) -> NDArray[np.uint8]:
    """The picture in a square of PICTURE px, at the top left, white beside it."""
    height, width = pixels.shape[:2]
    scale = PICTURE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    square = Image.new("RGB", (PICTURE, PICTURE), (255, 255, 255))
    square.paste(Image.fromarray(np.ascontiguousarray(pixels[..., :3])).resize(size, how))
    return np.asarray(square)
