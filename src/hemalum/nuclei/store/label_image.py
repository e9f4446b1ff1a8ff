"""The label image of a slide as OME-Zarr, drawn chunk by chunk from the outlines."""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.files import new_folder
from hemalum.nuclei.polygons import Polygons, fill
from hemalum.nuclei.store.parts import from_wkb
from hemalum.nuclei.store.store import NucleiStore

CHUNK = 1024  # px
SMALLEST = 1024  # px, longer side of the last level


def write_label_image(store: NucleiStore, path: Path, advance: Callable[[float], None]) -> None:
    """Write a multiscale label image (OME-NGFF 0.5, Zarr 3) whose values are the ids of the nuclei, 0 = background.

    Level 0 has the size of the slide, each further level every other pixel of the one before. Values are uint32, or
    uint64 where an id does not fit. A pixel is a nucleus's when its center is inside the outline. Raises HemalumError
    when `path` is there, and when it cannot be written.
    """
    import zarr  # half a second, which reading a store does not need

    height, width = store.run.shape
    largest = max((int(table.column("id").to_numpy().max(initial=0)) for table in store.tables(["id"])), default=0)
    dtype = np.uint32 if largest < 2**32 else np.uint64
    shapes = [(height, width)]
    while max(shapes[-1]) > SMALLEST:
        shapes.append(((shapes[-1][0] + 1) // 2, (shapes[-1][1] + 1) // 2))
    with new_folder(path) as folder:
        group = zarr.open_group(folder, mode="w", zarr_format=3)
        group.attrs["ome"] = _metadata(store, len(shapes))
        levels = [
            group.create_array(
                str(number), shape=shape, chunks=(CHUNK, CHUNK), dtype=dtype, fill_value=0, dimension_names=("y", "x")
            )
            for number, shape in enumerate(shapes)
        ]
        total = sum(len(list(_chunks(shape))) for shape in shapes)
        done = 0
        for number, (shape, level) in enumerate(zip(shapes, levels, strict=True)):
            for rows, columns in _chunks(shape):
                drawn = _halve(levels[number - 1], rows, columns) if number else _draw(store, rows, columns, dtype)
                if drawn.any():  # what is not written reads as background
                    level[rows, columns] = drawn
                done += 1
                advance(done / total)


def _chunks(shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    for top, left in product(range(0, shape[0], CHUNK), range(0, shape[1], CHUNK)):
        yield slice(top, min(top + CHUNK, shape[0])), slice(left, min(left + CHUNK, shape[1]))


def _draw(store: NucleiStore, rows: slice, columns: slice, dtype: Any) -> NDArray[Any]:
    size = (rows.stop - rows.start, columns.stop - columns.start)
    table = store.window(columns.start, rows.start, size[1], size[0], columns=["id", "geometry"])
    rings = from_wkb(table.column("geometry"))
    moved = Polygons(rings.coords - np.array([columns.start, rows.start], np.float32), rings.offsets)
    ids = np.concatenate([[0], table.column("id").to_numpy()]).astype(dtype)
    drawn: NDArray[Any] = ids[fill(moved, size)]
    return drawn


def _halve(level: Any, rows: slice, columns: slice) -> NDArray[Any]:
    """Every other pixel of a level, for rows and columns of the next."""
    return np.asarray(level[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop])[::2, ::2]


def _metadata(store: NucleiStore, levels: int) -> dict[str, Any]:
    mpp = store.run.mpp
    unit = {} if mpp is None else {"unit": "micrometer"}
    scales = [2**number * (mpp or 1.0) for number in range(levels)]
    return {
        "version": "0.5",
        "multiscales": [
            {
                "name": "nuclei",
                "axes": [{"name": name, "type": "space", **unit} for name in ("y", "x")],
                "datasets": [
                    {"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": [scale, scale]}]}
                    for number, scale in enumerate(scales)
                ],
                "type": "subsampled",
            }
        ],
        "image-label": {},
    }
