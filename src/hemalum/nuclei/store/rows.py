"""The label map and the overlay of a slide as one file each, drawn by rows: memory does not grow with its height."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.nuclei.io.colors import Classes
from hemalum.nuclei.io.label_tiff import write_label_tiff
from hemalum.nuclei.io.overlay import NO_CLASSES, shrinking, write_overlay
from hemalum.nuclei.polygons import Polygons, fill
from hemalum.nuclei.store.parts import from_wkb
from hemalum.nuclei.store.store import NucleiStore

# rows and columns of a slide brought to (h, w) px, as `Slide.read_scaled` gives them
ReadScaled = Callable[[tuple[int, int], slice, slice], NDArray[np.uint8]]


def write_labels(store: NucleiStore, path: Path, advance: Callable[[float], None]) -> None:
    """Write a TIFF of the slide's size whose values are the ids of the nuclei, 0 = background.

    Raises HemalumError for ids beyond 32 bits, and when the file cannot be written.
    """
    height, width = store.run.shape
    largest = max((int(table.column("id").to_numpy().max(initial=0)) for table in store.tables(["id"])), default=0)
    if largest >= 1 << 32:
        raise HemalumError(
            f"{path}: the ids of so large a slide need 64 bits, which few programs read in a TIFF; take ome-zarr"
        )

    def draw(start: int, stop: int) -> NDArray[Any]:
        table, drawn = _draw(store, (height, width), start, stop, ["id"])
        advance(stop / height)
        ids: NDArray[Any] = np.concatenate([[0], table.column("id").to_numpy()]).astype(np.uint32)[drawn]
        return ids

    write_label_tiff(path, (height, width), draw, largest=largest, mpp=store.run.mpp)


def write_slide_overlay(
    store: NucleiStore,
    path: Path,
    picture: ReadScaled | None,
    classes_of: Callable[[pa.Table], Classes | None],
    advance: Callable[[float], None],
) -> None:
    """Write a PNG of the slide with the outlines of its nuclei, and a legend of their classes, as `write_overlay`.

    `picture` gives the slide's pixels; without it outlines stand on white. A slide that is larger than pictures are
    is shown smaller by a whole factor, as the log says. Raises HemalumError when the file cannot be written.
    """
    height, width = store.run.shape
    by = shrinking((height, width), path)
    shape = -(-height // by), -(-width // by)
    columns = [name for name in ("class", "intensity") if name in store.schema.names]
    counted = [classes_of(table) for table in store.tables(columns)] if columns else []
    known = [one for one in counted if one is not None]
    classes = None
    if known:
        classes = Classes(np.concatenate([one.numbers for one in known]), known[0].names, known[0].palette)

    def pixels(start: int, stop: int) -> NDArray[np.uint8]:
        if picture is None:
            return np.full((stop - start, shape[1], 3), 255, np.uint8)
        return picture(shape, slice(start, stop), slice(0, shape[1]))

    def labels(start: int, stop: int) -> tuple[NDArray[np.uint32], NDArray[np.int32]]:
        table, drawn = _draw(store, shape, start, stop, columns)
        advance(stop / shape[0])
        some = classes_of(table)
        return drawn, NO_CLASSES if some is None else some.numbers

    write_overlay(path, shape, pixels, labels, classes=classes)


def _draw(
    store: NucleiStore, shape: tuple[int, int], start: int, stop: int, columns: list[str]
) -> tuple[pa.Table, NDArray[np.uint32]]:
    """The nuclei of rows start..stop of the slide at (h, w) px, in order, and their label map, ids from 1."""
    y, x = (full / small for full, small in zip(store.run.shape, shape, strict=True))
    table = store.window(0, start * y, store.run.shape[1], (stop - start) * y, columns=[*columns, "geometry"])
    rings = from_wkb(table.column("geometry"))
    moved = rings if x == y == 1 else rings.scaled(1 / x, 1 / y)
    return table, fill(Polygons(moved.coords, moved.offsets), (stop - start, shape[1]), top=start)
