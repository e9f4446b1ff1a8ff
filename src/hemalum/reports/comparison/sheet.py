"""The pictures of a comparison: the best, the median and the worst image, and who is right where."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.label_pixels import read_label_map
from hemalum.errors import HemalumError, counted
from hemalum.nuclei.io.colors import Color
from hemalum.nuclei.io.overlay import draw_outlines
from hemalum.reports.comparison.results import DatasetResults
from hemalum.reports.files import data_uri
from hemalum.reports.numbers import mean_text, number

if TYPE_CHECKING:
    from hemalum.data.dataset import Dataset
    from hemalum.data.sample import Sample
    from hemalum.experiments.plan import Method
    from hemalum.experiments.records import Comparison, Run

PICTURE_SIZES = (512, 384, 256, 160)  # longer side of a picture, px: the largest that keeps within the bytes
MOST_BYTES = 3_000_000
MOST_METHODS = 3  # up to so many, each is set against the reference; of more only the second

# what is missed, or lost, is warm and striped, what is false, or gained, cool and plain: no reader needs to tell red
# from green
WHITE, GRAY, FALSE_POSITIVE, MISSED = (255, 255, 255), (176, 176, 176), (0, 114, 178), (213, 94, 0)
GAINED, LOST, PALE = (0, 158, 115), (136, 34, 85), (205, 205, 205)
STRIPED = {MISSED: (255, 190, 120), LOST: (245, 190, 215)}  # color → that of every other stripe
STRIPES = 6  # px of the picture as it is shown, from one stripe to the next

Labels = NDArray[np.integer[Any]]
Colors = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the sheet. `data` is a data URI, empty where there is no picture: `caption` then says why."""

    title: str
    caption: str
    data: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class SheetLine:
    """One image of the sheet: the image, the truth, every method, and the reference against its rivals."""

    rank: str
    image: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The images of one dataset. `rivals` are set against the reference; `absent` says what is not there."""

    lines: tuple[SheetLine, ...] = ()
    rivals: tuple[str, ...] = ()
    absent: str = ""


def error_map(truth: Labels, prediction: Labels, side: int) -> Colors:
    """(H, W, 3) uint8: true positive pixels gray, false positive blue, false negative orange in stripes, background
    white. The picture is to be shown with a longer side of `side` px."""
    is_true, is_predicted = truth != 0, prediction != 0
    colors = np.full((*truth.shape, 3), WHITE, np.uint8)
    colors[is_true & is_predicted] = GRAY
    colors[~is_true & is_predicted] = FALSE_POSITIVE
    _stripe(colors, is_true & ~is_predicted, MISSED, side)
    return colors


def _stripe(colors: Colors, where: NDArray[np.bool_], color: Color, side: int) -> None:
    """Paint stripes that are still seen when the picture is shrunk to a longer side of `side` px."""
    height, width = where.shape
    apart = STRIPES * max(1.0, max(height, width) / side)
    rows, columns = np.ogrid[:height, :width]
    colors[where] = color
    colors[where & ((rows + columns) % apart < apart / 2)] = STRIPED[color]


def right_alone(truth: Labels, first: Labels, second: Labels) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(H, W) bool twice: pixels on which only the first prediction is right, and only the second."""
    first_right, second_right = ((prediction != 0) == (truth != 0) for prediction in (first, second))
    return first_right & ~second_right, second_right & ~first_right


def difference_map(truth: Labels, first: Labels, second: Labels, side: int) -> Colors:
    """(H, W, 3) uint8: green where only the first is right, wine in stripes where only the second, pale where
    neither. The picture is to be shown with a longer side of `side` px."""
    only_first, only_second = right_alone(truth, first, second)
    colors = np.full((*truth.shape, 3), WHITE, np.uint8)
    colors[(first != 0) != (truth != 0)] = PALE
    colors[only_first] = GAINED
    _stripe(colors, only_second, LOST, side)
    return colors


def best_median_worst(ordered: Sequence[T], only: str = "Only image") -> list[tuple[str, T]]:
    """The first, middle and last, with their ranks; best and worst of two, and one alone is called `only`."""
    if len(ordered) < 3:
        return list(zip(("Best", "Worst") if len(ordered) == 2 else (only,), ordered, strict=False))
    return [("Best", ordered[0]), ("Median", ordered[len(ordered) // 2]), ("Worst", ordered[-1])]


def chosen_images(results: DatasetResults) -> list[tuple[str, str]]:
    """(rank, image id) of the best, median and worst image by the reference's PQ (Dice without one), first seed."""
    rows = results.rows_of(results.methods[0])
    scores: dict[str, float] = {}
    for column in ("pq", "dice"):
        for row in rows if not scores else ():
            if np.isfinite(value := number(row.get(column))):
                scores.setdefault(str(row["id"]), value)
    # between equals the name decides, so that the sheet is the same every time
    return best_median_worst(sorted(scores, key=lambda name: (-scores[name], name)))


def sheets(comparison: "Comparison", results: Sequence[DatasetResults]) -> dict[str, Sheet]:
    """The sheet of each dataset, in pictures small enough for one page. Without its images it says only that."""
    chosen = [(dataset, chosen_images(dataset)) for dataset in results]
    drawn: dict[str, Sheet] = {}
    for side in PICTURE_SIZES:
        drawn = {dataset.name: _sheet(comparison, dataset, images, side) for dataset, images in chosen}
        lines = [line for sheet in drawn.values() for line in sheet.lines]
        if sum(len(picture.data) for line in lines for picture in line.pictures) <= MOST_BYTES:
            break
    return drawn


def _sheet(comparison: "Comparison", results: DatasetResults, chosen: Sequence[tuple[str, str]], side: int) -> Sheet:
    if not chosen:
        return Sheet()
    path = comparison.datasets[results.name]
    try:
        dataset = comparison.dataset(results.name)
    except HemalumError:
        return Sheet(absent=f"No pictures: the images of {results.name} were not found at {path}.")
    positions = {row.id: position for position, row in enumerate(dataset.rows)}
    methods = results.methods
    rivals = methods[1:] if len(methods) <= MOST_METHODS else methods[1:2]
    lines, absent = [], []
    for rank, name in chosen:
        sample = _sample(dataset, positions.get(name))
        if sample is None:
            absent.append(f"{name} ({rank.lower()})")
        else:
            lines.append(SheetLine(rank, name, _line(results, rivals, sample, side)))
    note = f"Not shown: {', '.join(absent)}, not found or not readable at {path}." if absent else ""
    return Sheet(tuple(lines), tuple(method.name for method in rivals), note)


def _sample(dataset: "Dataset", position: int | None) -> "Sample | None":
    try:
        return dataset[position] if position is not None else None
    except HemalumError:
        return None


def _line(results: DatasetResults, rivals: Sequence["Method"], sample: "Sample", side: int) -> tuple[Picture, ...]:
    truth = sample.instances
    outlined = draw_outlines(sample.image, truth.astype(np.uint32))
    count = int(np.count_nonzero(np.unique(truth)))
    pictures = [
        _picture("Image", _describe_sample(sample), sample.image, side, photograph=True),
        _picture("Truth", f"{counted(count, 'nucleus')} outlined in green", outlined, side, photograph=True),
    ]
    predictions: dict[str, Labels | None] = {}
    for method in results.methods:
        run, scores = _scored(results, method, sample.id)
        prediction = kept_prediction(run, sample) if run is not None else None
        predictions[method.name] = prediction
        if prediction is None:
            reason = "not scored on this image" if run is None else "its label map has not been kept"
            pictures.append(Picture(method.name, reason))
        else:
            pictures.append(_picture(method.name, scores, error_map(truth, prediction, side), side))
    reference = results.methods[0].name
    for rival in rivals:
        title = f"{reference} or {rival.name}"
        first, second = predictions[reference], predictions[rival.name]
        if first is None or second is None:
            pictures.append(Picture(title, "one of the two is missing"))
        else:
            only_first, only_second = (pixels.mean() for pixels in right_alone(truth, first, second))
            shares = f"only the first right on {only_first:.1%} of pixels, only the second on {only_second:.1%}"
            pictures.append(_picture(title, shares, difference_map(truth, first, second, side), side))
    return tuple(pictures)


def _describe_sample(sample: "Sample") -> str:
    height, width = sample.instances.shape
    parts = [f"{width} × {height} px", f"{sample.mpp:.3g} µm/px" if sample.mpp else "", sample.organ or ""]
    return ", ".join(part for part in parts if part)


def _scored(results: DatasetResults, method: "Method", image: str) -> tuple["Run | None", str]:
    """The method's first run (by fold and seed) with the image, and its scores in words."""
    for run in results.runs_of(method):
        for row in run.per_image:
            if str(row["id"]) == image:
                return run, f"PQ {mean_text(number(row.get('pq')))}, Dice {mean_text(number(row.get('dice')))}"
    return None, ""


def kept_prediction(run: "Run", sample: "Sample") -> Labels | None:
    """The label map that the comparison keeps of an image; None where there is none that fits."""
    for ending in (".png", ".tif", ".tiff"):
        path: Path = run.folder / "predictions" / f"{sample.id}{ending}"
        if path.is_file():
            try:
                labels = read_label_map(path)
            except HemalumError:
                return None
            return labels if labels.shape == sample.instances.shape else None
    return None


def _picture(title: str, caption: str, pixels: Colors, side: int, *, photograph: bool = False) -> Picture:
    """Pixels shrunk to a longer side of `side` px: a JPEG of a photograph, a PNG of a drawing."""
    image = Image.fromarray(pixels)
    if photograph:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        data = data_uri(image, "jpeg", quality=85)
    else:
        # means over whole pixels, so that thin errors fade and do not vanish
        image.thumbnail((side, side), Image.Resampling.BOX)
        data = data_uri(image.quantize(32, dither=Image.Dither.NONE), "png", optimize=True)
    return Picture(title, caption, data, *image.size)
