"""An engine whose maps are known: blobs that follow from the pixels in a small neighbourhood."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

RADIUS = 6  # px that a map value looks at, each way


@dataclass
class BlobEngine:
    """Smoothed channels as maps, zeros beyond the window, enlarged by repeating pixels."""

    enlarge: int = 1
    channels: int = 2
    name: str = "mock"
    precision: str = "f32"
    parallel: int = 2
    windows: int = 0

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.windows += 1
        result = []
        for image in images:
            # whole numbers throughout: sums do not depend on where the window begins
            weight = np.ones(2 * RADIUS + 1, np.int64)
            planes = image.astype(np.int64)
            for axis in (0, 1):
                planes = ndimage.convolve1d(planes, weight, axis=axis, mode="constant")
            smooth = (planes / (255 * weight.size**2)).astype(np.float32)
            maps = np.moveaxis(smooth[..., [index % 3 for index in range(self.channels)]], -1, 0)
            maps = np.clip((maps - 0.5) * 6 + 0.5, 0, 1)
            result.append(maps.repeat(self.enlarge, axis=1).repeat(self.enlarge, axis=2))
        return np.stack(result).astype(np.float32)
