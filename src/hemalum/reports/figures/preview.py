"""A contact sheet of a dataset: samples, outlines, and what augmentation and stain normalization do to them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.segmentation import find_boundaries

from hemalum.data.augmentation.crops import augment
from hemalum.data.augmentation.settings import AugmentSettings
from hemalum.data.augmentation.warp import TrainingImage
from hemalum.data.dataset import Dataset
from hemalum.data.dataset import Row as IndexRow
from hemalum.data.sample import Sample
from hemalum.data.stain.jitter import draw_stain_jitter, jitter_stain
from hemalum.data.stain.normalization import StainNormalization, StainNormalizer, sample_image
from hemalum.data.stain.statistics import StainTarget
from hemalum.data.stain.target import fit_stain_target
from hemalum.errors import HemalumError, counted
from hemalum.files import atomic_path
from hemalum.nuclei.io.colors import class_color
from hemalum.reports.figures.contact_sheet import Panel, Row, Sheet, draw_sheet, picture_path
from hemalum.settings import check_seed

Pixels = NDArray[np.uint8]

SAMPLES = 6
PICTURE = 208  # px of a picture's side on the sheet
FIELD_UM = 64.0  # side of the field that is shown
FIELD_PX = 256  # the same, of an image that does not say its scale
POOLED = 32  # images that the normalization's targets are fitted on
SPREAD = ("stain", "organ", "group")  # columns of the index, the most telling first


def write_preview(
    dataset: Dataset, path: Path | str, *, seed: int = 0, settings: AugmentSettings | None = None
) -> Path:
    """Write a contact sheet of a dataset as PNG or JPEG and give its path; the same seed gives the same picture.

    One row for each of six samples, spread over stains, organs and groups. All rows show a field of one size in µm,
    so that an image with a wrong scale is seen by the size of its nuclei. The targets of stain normalization are
    fitted on the training part.

    Raises HemalumError when the ending is unknown, or an image or the target file is not as it should be.
    """
    check_seed(seed)
    path = picture_path(path, "preview")
    picture = draw_sheet(make_sheet(dataset, seed, settings or AugmentSettings()))
    with atomic_path(path) as temporary:
        picture.save(temporary, quality=88)
    return path


def make_sheet(dataset: Dataset, seed: int, settings: AugmentSettings) -> Sheet:
    """What is on the sheet."""
    targets = _targets(dataset)
    rows = choose_samples(dataset.rows, seed)
    shown = [_Shown.of(dataset[dataset.rows.index(row)]) for row in rows]
    classes = dataset.info.classes or {}
    present = sorted({int(number) for one in shown for number in np.unique(one.class_map)} - {0})
    origin = next((target.origin for target in targets.values() if isinstance(target, StainTarget)), "")
    columns = [
        ("image", "as imported"),
        ("labels", "outlines by class" if present else "outlines"),
        ("stain jitter, weak", f"± {50 * settings.stain:.0f} %"),
        ("stain jitter, strong", f"± {100 * settings.stain:.0f} %, as trained"),
        ("all augmentation", "what a network sees"),
        *((method.capitalize(), "stain normalization") for method in targets),
    ]
    info = dataset.info
    details = [
        info.name,
        counted(len(dataset.rows), "image"),
        counted(sum(row.nuclei for row in dataset.rows), "nucleus"),
        info.license or "license not stated",
        "fields of 64 µm" if any(row.mpp for row in rows) else f"fields of {FIELD_PX} px",
    ]
    legend = [(class_color(number), classes.get(number, f"class {number}")) for number in present]
    notes = [
        "Augmentation at the default strength of a recipe, drawn anew for every row. Targets of stain normalization: "
        + (origin or "none could be fitted")
        + "; an image that is unfit for a method passes unchanged."
    ]
    if info.citation:
        notes.append(f"Images: {info.citation} ({info.license or 'license not stated'})")
    return Sheet(
        title=info.title or info.name,
        subtitle="  ·  ".join(details),
        columns=columns,
        rows=[_row(shown[n], row, targets, settings, [seed, n]) for n, row in enumerate(rows)],
        legend=legend or [(class_color(1), "nucleus")],
        footnotes=notes,
    )


def choose_samples(rows: Sequence[IndexRow], seed: int, count: int = SAMPLES) -> list[IndexRow]:
    """Rows of the index spread over stains, then organs, then groups; those without nuclei only when needed."""
    rng = np.random.default_rng(seed)
    left = [rows[index] for index in rng.permutation(len(rows))]
    taken: list[IndexRow] = []
    seen: Counter[tuple[str, str | None]] = Counter()
    while left and len(taken) < count:
        best = min(left, key=lambda row: (row.nuclei == 0, *(seen[name, getattr(row, name)] for name in SPREAD)))
        left.remove(best)
        taken.append(best)
        seen.update((name, getattr(best, name)) for name in SPREAD)
    return sorted(taken, key=lambda row: (row.stain or "", row.organ or "", row.group, row.id))


def _targets(dataset: Dataset) -> dict[str, StainTarget | str]:
    """A target for each method, or why there is none."""
    targets: dict[str, StainTarget | str] = {}
    for method in ("macenko", "reinhard", "vahadane"):
        try:
            wanted = StainNormalization.model_validate({"method": method})
            targets[method] = fit_stain_target(wanted, {dataset.info.name: dataset}, images=POOLED)
        except HemalumError:
            targets[method] = "no image is fit for it"
    return targets


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """The part of a sample that is shown: image (n, n, 3) at the sheet's scale, labels and classes (2n, 2n)."""

    sample: Sample
    image: Pixels
    labels: NDArray[np.int32]
    class_map: NDArray[np.int32]
    scale: float  # px of the sheet per px of the image

    @classmethod
    def of(cls, sample: Sample) -> "_Shown":
        side = FIELD_PX if sample.mpp is None else max(16, round(FIELD_UM / sample.mpp))
        scale = PICTURE / side
        top, left = _busiest(sample.instances > 0, side)
        window = slice(top, top + side), slice(left, left + side)
        image, labels = sample.image[window], sample.instances[window]
        high, wide = (max(1, min(PICTURE, round(length * scale))) for length in labels.shape)
        picture = np.full((PICTURE, PICTURE, 3), 240, np.uint8)
        resized = Image.fromarray(image).resize((wide, high), Image.Resampling.LANCZOS)
        y, x = (PICTURE - high) // 2, (PICTURE - wide) // 2
        picture[y : y + high, x : x + wide] = np.asarray(resized)
        fine = np.zeros((2 * PICTURE, 2 * PICTURE), np.int32)
        rows = ((np.arange(2 * high) + 0.5) * labels.shape[0] / (2 * high)).astype(int)
        columns = ((np.arange(2 * wide) + 0.5) * labels.shape[1] / (2 * wide)).astype(int)
        fine[2 * y : 2 * (y + high), 2 * x : 2 * (x + wide)] = labels[np.ix_(rows, columns)]
        class_map = np.zeros_like(fine) if sample.classes is None else sample.classes[fine]
        return cls(sample, picture, fine, class_map, scale)


def _busiest(nuclei: NDArray[np.bool_], side: int) -> tuple[int, int]:
    """Where the window of side x side px with the most nucleus begins."""
    sums = np.pad(nuclei, ((1, 0), (1, 0))).astype(np.int64).cumsum(axis=0).cumsum(axis=1)
    high, wide = (min(side, length) for length in nuclei.shape)
    step = max(1, side // 8)
    tops = np.arange(0, nuclei.shape[0] - high + 1, step)
    lefts = np.arange(0, nuclei.shape[1] - wide + 1, step)
    inside = (
        sums[np.ix_(tops + high, lefts + wide)]
        - sums[np.ix_(tops, lefts + wide)]
        - sums[np.ix_(tops + high, lefts)]
        + sums[np.ix_(tops, lefts)]
    )
    index = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(tops[index[0]]), int(lefts[index[1]])


def _row(
    shown: _Shown, row: IndexRow, targets: dict[str, StainTarget | str], settings: AugmentSettings, seed: list[int]
) -> Row:
    sample = shown.sample
    rngs = [np.random.default_rng([*seed, number]) for number in range(3)]
    batch, _ = augment([TrainingImage(shown.image, shown.labels)], rngs[2:], PICTURE, settings)
    panels = [
        Panel(shown.image, bar=_bar(shown)),
        Panel(_outlined(shown)),
        Panel(_jittered(shown.image, settings.stain / 2, rngs[0])),
        Panel(_jittered(shown.image, settings.stain, rngs[1])),
        Panel(_bytes(batch[0])),
        *(_normalized(shown, target) for target in targets.values()),
    ]
    about = dict.fromkeys(part for part in (row.stain, row.organ) if part)
    # a group that is a name of an image, or of an organ, says nothing new
    group = "" if row.group in (row.id, row.source, row.organ, row.stain) else f"group {row.group}"
    scale = "scale unknown" if sample.mpp is None else f"{sample.mpp:.3g} µm/px"
    source = "scale from its nuclei" if sample.mpp_source == "nuclei" else ""
    lines = [row.id, ", ".join(about), group, scale, source, counted(row.nuclei, "nucleus"), f"part {row.split}"]
    return Row([line for line in lines if line], panels)


def _bar(shown: _Shown) -> tuple[float, str]:
    if shown.sample.mpp is None:
        return 50 * shown.scale, "50 px"
    return 20 / shown.sample.mpp * shown.scale, "20 µm"


def _outlined(shown: _Shown) -> Pixels:
    """The image with an outline around every nucleus, drawn at twice the size so that it is smooth and thin."""
    labels = shown.labels
    edge = find_boundaries(labels, mode="inner")
    thick = edge.copy()  # one pixel more towards the inside
    thick[1:] |= edge[:-1]
    thick[:, 1:] |= edge[:, :-1]
    thick &= labels > 0
    twice = 2 * PICTURE, 2 * PICTURE
    fine = np.array(Image.fromarray(shown.image).resize(twice, Image.Resampling.BICUBIC))
    colors = np.array([class_color(number) for number in range(int(shown.class_map.max()) + 1)], np.uint8)
    fine[thick] = colors[shown.class_map[thick]]
    return np.asarray(Image.fromarray(fine).resize((PICTURE, PICTURE), Image.Resampling.BOX))


def _jittered(image: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    matrix, offset = draw_stain_jitter(rng, strength)
    batch = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return _bytes(jitter_stain(batch, torch.from_numpy(matrix)[None], torch.from_numpy(offset)[None])[0])


def _bytes(image: torch.Tensor) -> Pixels:
    return np.ascontiguousarray((image * 255 + 0.5).clamp(0, 255).permute(1, 2, 0).to(torch.uint8).numpy())


def _normalized(shown: _Shown, target: StainTarget | str) -> Panel:
    if isinstance(target, str):
        return Panel(shown.image, note=target)
    normalizer = StainNormalizer(target)
    change = normalizer.match(sample_image(shown.sample.image), shown.sample.id)
    if change is None:
        reason = normalizer.unfit[0].partition(": ")[2].partition(":")[0]
        return Panel(shown.image, note=f"unchanged: {reason}")
    return Panel(change.apply(shown.image))
