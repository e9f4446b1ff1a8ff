"""A label map as TIFF, written by rows: memory does not grow with the height of the image.

Strips without a predictor, of 16 bits where the ids fit, are what every program reads, ImageJ's own opener too. A map
beyond the 4 GB of the classic format is a BigTIFF of tiles, which QuPath, Bio-Formats and libtiff read.
"""

import logging
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from hemalum.files import atomic_path

log = logging.getLogger(__name__)

DrawIds = Callable[[int, int], NDArray[Any]]  # rows start..stop of a label map, (rows, W), ids

CLASSIC_BYTES = 1 << 31  # of pixels, before compression: above this offsets no longer fit with room to spare
STRIP_BYTES = 1 << 18
BAND = 1 << 21  # px that are drawn at once
TILE = 256  # px
LEVEL = 4  # of zlib


def write_label_tiff(
    path: Path | str,
    shape: tuple[int, int],
    draw: DrawIds,
    *,
    largest: int,
    mpp: float | None = None,
    mpp_source: str = "file",
) -> None:
    """Write a label map of (H, W) px whose greatest id is `largest`, zlib-compressed; mpp becomes its resolution.

    uint16 where `largest` fits, else uint32. An mpp whose `mpp_source` is "estimate" stands in the description, as
    readers take a resolution for measured. Raises HemalumError when the file cannot be written.
    """
    height, width = shape
    dtype = np.dtype("<u2" if largest < 1 << 16 else "<u4")
    big = height * width * dtype.itemsize > CLASSIC_BYTES
    options: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack", "metadata": None}
    if mpp is not None and mpp_source == "estimate":
        options["description"] = f"about {mpp:.4g} um per px, estimated from the nuclei"
    elif mpp is not None:
        options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    if big:
        log.info(
            "%s: %d x %d px are more than a plain TIFF holds: a BigTIFF of tiles, which QuPath and Bio-Formats open",
            path, width, height,
        )  # fmt: skip
        data = _tiles(shape, draw, dtype)
        options |= {"tile": (TILE, TILE), "compressionargs": {"level": LEVEL}}
    else:
        rows = min(height, max(1, STRIP_BYTES // (width * dtype.itemsize)))
        data = _strips(shape, draw, dtype, rows)
        options["rowsperstrip"] = rows
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, data, shape=shape, dtype=dtype, bigtiff=big, byteorder="<", **options)


def _strips(shape: tuple[int, int], draw: DrawIds, dtype: np.dtype[Any], rows: int) -> Iterator[Any]:
    """Packed strips of `rows` rows; as many as a band holds are drawn at once."""
    step = max(1, BAND // (rows * shape[1])) * rows
    for top in range(0, shape[0], step):
        band = draw(top, min(top + step, shape[0])).astype(dtype)
        for start in range(0, len(band), rows):
            yield zlib.compress(band[start : start + rows].tobytes(), LEVEL)


def _tiles(shape: tuple[int, int], draw: DrawIds, dtype: np.dtype[Any]) -> Iterator[Any]:
    for top in range(0, shape[0], TILE):
        band = draw(top, min(top + TILE, shape[0])).astype(dtype)
        for left in range(0, shape[1], TILE):
            yield np.ascontiguousarray(band[:, left : left + TILE])
