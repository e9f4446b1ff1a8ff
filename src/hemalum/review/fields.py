"""The fields of images, datasets and slides that may be looked at, with what the model is unsure of in each."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.experiments import mean_entropy, model_for_organ, pixel_entropy
from hemalum.inference import ImageInput, segment_source, segment_with_maps, turn, turn_back
from hemalum.metrics import at_temperature
from hemalum.models import Model
from hemalum.models.engines.engine import Engine
from hemalum.nuclei import Nuclei
from hemalum.nuclei.store import NucleiStore
from hemalum.review.uncertainty import (
    Field,
    NucleusUncertainty,
    field_disagreement,
    measure_nuclei,
    temperature_of,
)
from hemalum.slides import Slide, open_slide

SIDE = 1024  # px: larger images and slides are cut into windows of this side
LEAST_SIDE = 64  # so that no window is too small to be an image
FLIPS = ((0, True), (2, True), (2, False))  # quarter turns and whether mirrored: left-right, top-bottom, both

Window = tuple[int, int, int, int]  # x, y, width, height
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A field that was looked at: its nuclei, in px of the field, and what the model is unsure of in each."""

    field: Field
    nuclei: Nuclei
    uncertainty: NucleusUncertainty


def look_at(
    source: Slide,
    model: Model,
    engine: Engine,
    *,
    mpp: float | str | None = None,
    stain: str = "auto",
    name: str | None = None,
    stratum: str = "",
    window: Window | None = None,
    flips: bool = True,
) -> Look:
    """Segment an open image, or a window of it, and measure what the model is unsure of.

    With `flips` it is segmented three more times, mirrored left and right, top and bottom, and both, at one scale and
    stain. The maps are held whole: a window of a slide has to be given. Raises HemalumError as `segment` does,
    where the scale is not known, and for a window of an image that states none: its windows might differ in it.
    """
    title = name or source.name
    if window is not None and source.mpp is None and not isinstance(mpp, int | float):
        raise HemalumError(f"{title}: the image states no scale, and is too large to be looked at as one: give --mpp")
    pixels = source.rows(0, source.shape[0]) if window is None else source.read(*window)
    with Slide.of(pixels, name=title, mpp=source.mpp) as seen:
        nuclei, maps = segment_with_maps(seen, model, engine, mpp=mpp, stain=stain)
    labels = nuclei.label_map()
    looks = []
    for turns, mirrored in FLIPS if flips else ():
        with Slide.of(np.ascontiguousarray(turn(pixels, turns, mirrored, (0, 1))), name=title) as flipped:
            again = segment_source(flipped, model, engine, mpp=nuclei.mpp, stain=nuclei.notes["stain"])
        looks.append(np.ascontiguousarray(turn_back(again.label_map(), turns, mirrored, (0, 1))))
    temperature = temperature_of(model.card)
    threshold = model.card.separation.foreground
    ids = nuclei.table.column("id").to_numpy()
    measured = measure_nuclei(labels, ids, maps.probability, threshold, looks, temperature=temperature)
    field = Field(
        name=title,
        stratum=stratum,
        entropy=mean_entropy(at_temperature(maps.probability, temperature)),
        disagreement=field_disagreement(labels, looks),
        area=_column(nuclei, "area_um2"),
        solidity=_column(nuclei, "solidity"),
        window=window,
    )
    return Look(field, nuclei, measured)


def dataset_fields(dataset: Dataset, model: Model, engine: Engine, *, flips: bool = True) -> Iterator[Look]:
    """The images of a dataset, whose strata are the organs; a model that tells organs apart is told each one's."""
    for sample in dataset:
        with Slide.of(sample.image, name=sample.id) as source:
            yield look_at(
                source, model_for_organ(model, sample.organ), engine, mpp=sample.require_mpp(), name=sample.id,
                stratum=sample.organ or "", flips=flips,
            )  # fmt: skip


def image_fields(
    images: Iterable[ImageInput],
    model: Model,
    engine: Engine,
    *,
    mpp: float | None = None,
    side: int = SIDE,
    flips: bool = True,
) -> Iterator[Look]:
    """The images that `find_images` gives, in windows where they are larger than `side` px; a stratum is a folder."""
    for image in images:
        with open_slide(image.path, mpp=mpp) as source:
            windows = cut_windows(source.shape, side)
            for window in windows:
                alone = len(windows) == 1
                name = image.image if alone else window_name(image.image, window)
                folder = image.name.rpartition("/")[0]
                yield look_at(
                    source, model, engine, mpp=mpp, name=name, stratum=folder, window=None if alone else window,
                    flips=flips,
                )  # fmt: skip


def store_fields(store: NucleiStore, *, side: int = SIDE) -> list[Field]:
    """The windows of a segmented slide that nuclei lie in, from its table alone: the slide is not looked at again.

    Their stratum is the slide. The entropy is that of the nuclei's mean probabilities, and the disagreement is not
    known: `look_at` a window measures both. A nucleus is in the window of its centroid.
    """
    area = "area_px" if store.run.mpp is None else "area_um2"
    names = ["x", "y", "probability", area, "solidity"]
    windows = cut_windows(store.run.shape, side)
    rows_at, columns_at = (_edges(length, side) for length in store.run.shape)
    parts = [
        np.column_stack([table.column(name).to_numpy().astype(np.float64) for name in names])
        for table in store.tables(names)
    ]
    rows = np.concatenate([np.zeros((0, len(names))), *parts])
    # a centroid on the last edge belongs to the last window
    down = np.searchsorted(rows_at[1:-1], rows[:, 1], side="right")
    right = np.searchsorted(columns_at[1:-1], rows[:, 0], side="right")
    cell = down * (len(columns_at) - 1) + right
    order = np.argsort(cell, kind="stable")
    rows, cell = rows[order], cell[order]
    entropies = pixel_entropy(rows[:, 2]).astype(np.float64)
    entropies[np.isnan(rows[:, 2])] = math.nan
    starts = np.unique(cell, return_index=True)[1]
    fields = []
    for start, stop in zip(starts, np.append(starts, len(rows))[1:], strict=True):
        window = windows[cell[start]]
        fields.append(
            Field(
                name=window_name(store.name, window),
                stratum=store.name,
                entropy=float(entropies[start:stop].mean()),
                disagreement=math.nan,
                area=rows[start:stop, 3],
                solidity=rows[start:stop, 4],
                window=window,
                of_nuclei=True,
            )
        )
    return fields


def cut_windows(shape: tuple[int, int], side: int) -> list[Window]:
    """Windows of at most `side` px that cover an image (H, W) once, row by row; all nearly of one size.

    Raises HemalumError for a side of less than `LEAST_SIDE`.
    """
    rows, columns = (_edges(length, side) for length in shape)
    return [
        (int(x), int(y), int(right - x), int(below - y))
        for y, below in pairwise(rows)
        for x, right in pairwise(columns)
    ]


def window_name(image: str, window: Window | None) -> str:
    """What a window of an image is called: the image and X,Y,WIDTH,HEIGHT, as the command line has it; None: all."""
    return image if window is None else f"{image} {','.join(map(str, window))}"


def _edges(length: int, side: int) -> NDArray[np.int64]:
    """Where windows of at most `side` px begin along `length` px, and where the last one ends."""
    if side < LEAST_SIDE:
        raise HemalumError(f"side of a window is {side} px: want at least {LEAST_SIDE}")
    count = -(-length // side)
    return np.arange(count + 1, dtype=np.int64) * length // count


def _column(nuclei: Nuclei, name: str) -> Floats:
    return np.asarray(nuclei.table.column(name).to_numpy(), np.float64)
