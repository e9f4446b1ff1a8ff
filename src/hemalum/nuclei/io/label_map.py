"""The label map as TIFF."""

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.files import atomic_path

CLASSIC_TIFF_BYTES = 2**31  # bytes; above this offsets no longer fit a classic TIFF with room to spare


def write_labels(path: str | Path, labels: NDArray[np.uint32], *, mpp: float | None = None) -> None:
    """Write a label map (H, W) as uint32, deflate-compressed in tiles; `mpp` becomes the resolution.

    Raises HemalumError when it is not 2-D, empty, or the file cannot be written.
    """
    if labels.ndim != 2 or labels.size == 0:
        raise HemalumError(f"label map must be (H, W) with at least one pixel, not {labels.shape}")
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            labels.astype(np.uint32, copy=False),
            bigtiff=labels.size * 4 > CLASSIC_TIFF_BYTES,
            tile=(256, 256),
            compression="zlib",
            compressionargs={"level": 4},
            predictor=True,
            photometric="minisblack",
            metadata=None,
            resolution=None if mpp is None else (1e4 / mpp, 1e4 / mpp),
            resolutionunit=None if mpp is None else "CENTIMETER",
        )
