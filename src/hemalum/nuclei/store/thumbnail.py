"""All nuclei of a slide on one small picture of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.nuclei.io.colors import Color, class_color
from hemalum.nuclei.io.overlay import COLOR
from hemalum.nuclei.polygons import Polygons, fill
from hemalum.nuclei.store.parts import from_wkb, number_names
from hemalum.nuclei.store.store import NucleiStore

MAX_SIDE = 2048  # px of the picture where none is given
STRENGTH = 0.6  # of a nucleus's color over the picture
ODD = 0.02  # by so much the two sides of a picture may be scaled differently: it is rounded to whole px


def write_thumbnail(
    store: NucleiStore, path: Path, picture: NDArray[np.uint8] | None, advance: Callable[[float], None]
) -> None:
    """Write a PNG of the slide with every nucleus filled in the color of its class, at least one pixel each.

    `picture` (H, W, 3) uint8 shows the whole slide at any size; without it nuclei stand on white. Raises HemalumError
    when its sides are not those of the slide, and when the file cannot be written.
    """
    height, width = store.run.shape
    if picture is None:
        shrink = max(1.0, max(height, width) / MAX_SIDE)
        size = (max(1, round(height / shrink)), max(1, round(width / shrink)))
        picture = np.full((*size, 3), 255, np.uint8)
    scale_y, scale_x = picture.shape[0] / height, picture.shape[1] / width
    if abs(scale_y / scale_x - 1) > ODD + 1 / min(picture.shape[:2]):
        raise HemalumError(
            f"the picture is {picture.shape[1]} x {picture.shape[0]} px and the slide {width} x {height}: "
            "it must show the whole slide"
        )
    names = store.run.class_names
    colors: list[Color] = [COLOR, *(class_color(number) for number in range(1, len(names) + 1))]
    marks = np.zeros(picture.shape[:2], np.uint32)  # color of the nucleus in a pixel, from 1
    columns = ["x", "y", "geometry", *(["class"] if names else [])]
    regions = max(1, len(store.finished))
    for done, table in enumerate(store.tables(columns), start=1):
        ids = np.ones(table.num_rows, np.uint32)
        if names:
            ids += number_names(table.column("class"), names).astype(np.uint32)
        _mark(marks, table.column("x").to_numpy() * scale_x, table.column("y").to_numpy() * scale_y, ids)
        outlines = from_wkb(table.column("geometry")).scaled(scale_x, scale_y)
        _fill_part(marks, outlines, ids)
        advance(done / regions)
    drawn = picture.copy()
    for number, color in enumerate(colors, start=1):
        there = marks == number
        mixed = drawn[there] * (1 - STRENGTH) + np.array(color) * STRENGTH
        drawn[there] = np.rint(mixed).astype(np.uint8)
    with atomic_path(path) as temporary:
        Image.fromarray(drawn).save(temporary, format="PNG")


def _mark(marks: NDArray[np.uint32], x: NDArray[np.float64], y: NDArray[np.float64], ids: NDArray[np.uint32]) -> None:
    """One pixel for each nucleus: most are smaller than that."""
    columns = np.clip(x.astype(np.int64), 0, marks.shape[1] - 1)
    marks[np.clip(y.astype(np.int64), 0, marks.shape[0] - 1), columns] = ids


def _fill_part(marks: NDArray[np.uint32], outlines: Polygons, ids: NDArray[np.uint32]) -> None:
    """Fill the outlines, drawn in the rows and columns that they span."""
    if len(outlines) == 0:
        return
    low = np.maximum(np.floor(outlines.coords.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(outlines.coords.max(axis=0)), marks.shape[::-1]).astype(int)
    if (high <= low).any():
        return
    moved = Polygons(outlines.coords - low.astype(np.float32), outlines.offsets)
    drawn = fill(moved, (int(high[1] - low[1]), int(high[0] - low[0])), ids)
    target = marks[low[1] : high[1], low[0] : high[0]]
    np.copyto(target, drawn, where=drawn > 0)
