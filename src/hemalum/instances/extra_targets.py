"""Target maps beside a representation's own, which some losses need; made crop by crop with the batch."""

from collections.abc import Callable

import edt
import numpy as np
from numpy.typing import NDArray

from hemalum.instances.border_weight import border_weight

Labels = NDArray[np.int32]
Float = NDArray[np.float32]


def signed_distance(labels: Labels) -> Float:
    """Distance (H, W) in px to the contour of all nuclei together: positive outside, -(d - 1) inside, 0 on their rim.

    d is the distance to the nearest pixel of the other kind (Kervadec et al. 2019, as its authors compute it). All 0
    where there is no contour: a map without nuclei, or nothing else.
    """
    inside = labels > 0
    if inside.all() or not inside.any():
        return np.zeros(labels.shape, np.float32)
    depth = edt.edt(inside, black_border=False, parallel=1)
    height = edt.edt(~inside, black_border=False, parallel=1)
    distance: Float = np.where(inside, 1 - depth, height).astype(np.float32)
    return distance


def inside(labels: Labels) -> Float:
    """1 (H, W) wherever the map lies within its image, which a whole image does; the stream knows it for a crop."""
    return np.ones(labels.shape, np.float32)


# name → function of a crop's label map (H, W) that gives one map (H, W) float32
EXTRA_TARGETS: dict[str, Callable[[Labels], Float]] = {
    "border_weight": border_weight,
    "inside": inside,
    "signed_distance": signed_distance,
}
