"""Stain normalization of one image, as training and inference do it in steps."""

import numpy as np
from numpy.typing import NDArray

from hemalum.data.stain.normalization import StainNormalizer, sample_image
from hemalum.data.stain.statistics import StainTarget


def normalize_stain(image: NDArray[np.uint8], target: StainTarget, *, name: str = "image") -> NDArray[np.uint8]:
    """An image (H, W, 3) uint8 in the target's colors; unchanged, with a warning, where it is unfit."""
    normalizer = StainNormalizer(target)
    change = normalizer.match(sample_image(image), name)
    normalizer.warn()
    return image if change is None else change.apply(image)
