"""Nucleus size as evidence of scale: a set that does not say its µm per pixel gets it from its labels."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

# Median equivalent diameter of the whole nuclei of TNBC (H&E, 40x, 0.25 µm/px): 20.9 px. Section and
# shrinkage included, so below the 6 to 8 µm of textbooks; see docs/how-to/data.md.
REFERENCE_DIAMETER_UM = 5.2
ENOUGH_NUCLEI = 8  # below this an image's own median says less than that of images like it


def equivalent_diameters(instances: NDArray[np.int32]) -> NDArray[np.float64]:
    """(N,) diameters in px of the circles as large as each nucleus, without those cut by the image border."""
    areas = np.bincount(instances.ravel())
    areas[0] = 0
    areas[np.concatenate([instances[0], instances[-1], instances[:, 0], instances[:, -1]])] = 0
    diameters: NDArray[np.float64] = np.sqrt(4 / math.pi * areas[areas > 0])
    return diameters


def mpp_from_nuclei(diameters: Sequence[NDArray[np.float64]], categories: Sequence[Hashable]) -> list[float | None]:
    """µm per pixel of each image, such that its median nucleus has the reference diameter.

    `diameters[i]` are those of image i in px. An image with fewer than 8 nuclei takes the median of the
    image medians of its kind (`categories[i]`, e.g. stain and size), or else of all; None when nothing is known.
    """
    medians = [float(np.median(values)) if len(values) >= ENOUGH_NUCLEI else None for values in diameters]
    by_category: dict[Hashable, list[float]] = defaultdict(list)
    for median, category in zip(medians, categories, strict=True):
        if median is not None:
            by_category[category].append(median)
    every = [median for median in medians if median is not None]
    result: list[float | None] = []
    for median, values, category in zip(medians, diameters, categories, strict=True):
        alike = by_category.get(category, every)
        if median is not None:
            diameter = median
        elif alike:
            diameter = float(np.median(alike))
        elif len(values):
            diameter = float(np.median(values))
        else:
            result.append(None)
            continue
        result.append(round(REFERENCE_DIAMETER_UM / diameter, 4))
    return result
