"""Weights of pixels that grow where the background between two nuclei is narrow (Ronneberger et al. 2015)."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

W0 = 10.0
SIGMA = 5.0  # px
_REACH = int(5 * SIGMA)  # px: further from its second nucleus a pixel gets less than W0 / 250,000 more


def border_weight(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """(H, W) float32: 1 + W0 · exp(-(d1 + d2)² / (2 SIGMA²)) on background, 1 on nuclei, of a label map (H, W).

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
        place = rows, columns
        distance = ndimage.distance_transform_edt(labels[place] != number)
        second[place] = np.minimum(second[place], np.maximum(nearest[place], distance))
        nearest[place] = np.minimum(nearest[place], distance)
    weight = np.ones(labels.shape, np.float32)
    between = (labels == 0) & np.isfinite(second)
    weight[between] += W0 * np.exp(-((nearest[between] + second[between]) ** 2) / (2 * SIGMA**2))
    return weight
