"""What a segmenter may say of an image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.sample import Sample


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """What a segmenter may return when it knows more than the label map.

    `labels` is (H, W) integer, 0 = background; `classes` is (max id + 1,) int32 by id; `mpp` is the scale
    that was assumed, µm per pixel. `probability` (H, W) float32 is that of nucleus, `nucleus_probability`
    (max id + 1,) float32 that of each nucleus by id, both in [0, 1]. `pixel_classes` (H, W) int32 is the class of
    each pixel before nuclei were separated, 0 = background; without it a pixel has the class of its nucleus.
    """

    labels: NDArray[np.integer[Any]]
    classes: NDArray[np.int32] | None = None
    mpp: float | None = None
    probability: NDArray[np.float32] | None = None
    nucleus_probability: NDArray[np.float32] | None = None
    pixel_classes: NDArray[np.int32] | None = None


Segmenter = Callable[[Sample], NDArray[np.integer[Any]] | Segmentation]
