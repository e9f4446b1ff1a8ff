"""Nucleus size as evidence of scale: a set that does not say its µm per pixel gets it from its labels."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

# Median equivalent diameter of the whole nuclei of TNBC (H&E, 40x, 0.25 µm/px): 20.9 px. Section and
# shrinkage included, so below the 6 to 8 µm of textbooks; see docs/how-to/data.md.
REFERENCE_DIAMETER_UM = 5.2
APART = 1.6  # factor by which a stated scale may be off before it is doubted
# µm per px that scanners and cameras have at 40x and 20x, and how far they are off; a factor that leads there is
# likelier by so many octaves
USUAL_SCALES, NEAR, LIKELIER = (0.25, 0.5), 1.12, 0.4
REASONS = {
    2.0: "another level of a pyramid, or another objective",
    4.0: "another level of a pyramid, or another objective",
    2.54: "inch and centimeter mixed up",
}
FEWEST = 5  # nuclei of an image by which a stated scale is judged
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


def likely_scale(mpp: float, octaves: float) -> str:
    """The scale that nuclei look like, and by which known mix-up it may have come to `mpp`."""
    ratio = 2**octaves
    text = f"about {mpp * ratio:.2g}"

    def distance(factor: float) -> float:
        true = mpp * factor
        usual = any(max(true / one, one / true) <= NEAR for one in USUAL_SCALES)
        return abs(octaves - math.log2(factor)) + (0.0 if usual else LIKELIER)

    factor = min((power for one in REASONS for power in (one, 1 / one)), key=distance)
    if abs(octaves - math.log2(factor)) > math.log2(APART):
        return f"{text}, {ratio:.2g} times as much"
    size = max(factor, 1 / factor)
    times = f"{size:g} times as much" if factor > 1 else f"1/{size:g} of it"
    return f"{text}: {mpp * factor:.3g} would fit, {times} ({REASONS[size]}?)"


def scale_doubt(diameters: Sequence[NDArray[np.float64]], scales: Sequence[float | None]) -> str:
    """What speaks against the µm per px of labeled images, "" for nothing: nuclei of an unlikely size.

    `diameters[i]` are those of image i in px. Images with fewer than 5 nuclei, or without a scale, say nothing.
    """
    known = [
        (float(np.median(values)) * mpp, mpp)
        for values, mpp in zip(diameters, scales, strict=True)
        if mpp is not None and len(values) >= FEWEST
    ]
    if not known:
        return ""
    median = float(np.median([diameter for diameter, _ in known]))
    octaves = math.log2(REFERENCE_DIAMETER_UM / median)
    if abs(octaves) <= math.log2(APART):
        return ""
    mpp = float(np.median([mpp for _, mpp in known]))
    return (
        f"at mpp {mpp:.4g} the median nucleus is {median:.1f} µm across, {REFERENCE_DIAMETER_UM} is usual: "
        f"the nuclei look like {likely_scale(mpp, octaves)}"
    )
