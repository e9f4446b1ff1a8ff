"""Maps that some losses need beside the targets of a representation, each made of a label map."""

from collections.abc import Callable

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float = NDArray[np.float32]
Labels = NDArray[np.int32]

W0 = 10.0
SIGMA = 5.0  # px
_REACH = int(5 * SIGMA)  # px: further from its second nucleus a pixel gets less than W0 / 250,000 more


def border_weight(labels: Labels) -> Float:
    """Weights that grow where the background between two nuclei is narrow (Ronneberger et al. 2015).

    (H, W) float32: 1 + W0 · exp(-(d1 + d2)² / (2 SIGMA²)) on background, 1 on nuclei, of a label map (H, W).

    d1 and d2 are the distances in px to the nearest and the second nearest nucleus. The paper's further term, which
    balances the classes' frequencies, is 1 here: it is not said over what they are counted.
    """
    nearest = np.full(labels.shape, np.inf)
    second = np.full(labels.shape, np.inf)
    height, width = labels.shape
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        rows = slice(max(0, box[0].start - _REACH), min(height, box[0].stop + _REACH))
        columns = slice(max(0, box[1].start - _REACH), min(width, box[1].stop + _REACH))
        window = rows, columns
        distance = ndimage.distance_transform_edt(labels[window] != number)
        second[window] = np.minimum(second[window], np.maximum(nearest[window], distance))
        nearest[window] = np.minimum(nearest[window], distance)
    weight = np.ones(labels.shape, np.float32)
    between = (labels == 0) & np.isfinite(second)
    weight[between] += W0 * np.exp(-((nearest[between] + second[between]) ** 2) / (2 * SIGMA**2))
    return weight


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
    return np.where(inside, 1 - depth, height).astype(np.float32)


# name → function of a crop's label map (H, W) that gives one map (H, W) float32
EXTRA_TARGETS: dict[str, Callable[[Labels], Float]] = {
    "border_weight": border_weight,
    "signed_distance": signed_distance,
}
