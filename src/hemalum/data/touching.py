"""Touching nuclei of a mask, split where its distance to the background has several peaks."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian
from skimage.segmentation import watershed

MIN_RADIUS_UM = 1.6  # centres nearer than a small nucleus's width are one nucleus
SMOOTHING_UM = 0.5  # stain grain, well below the size of a nucleus


def split_touching(mask: NDArray[np.bool_], mpp: float) -> NDArray[np.int32]:
    """(H, W) int32 nuclei of a mask (H, W) bool: a watershed on the smoothed distance transform. mpp in µm per px."""
    depth = gaussian(ndimage.distance_transform_edt(mask), SMOOTHING_UM / mpp)
    pieces, _ = ndimage.label(mask)
    peaks = peak_local_max(
        depth, min_distance=max(1, round(MIN_RADIUS_UM / mpp)), labels=pieces, exclude_border=False
    )
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels: NDArray[np.int32] = watershed(-depth, markers, mask=mask).astype(np.int32)
    return labels
