"""The classical floor: Otsu on the hematoxylin channel, then a distance-transform watershed.

Nothing is learned. Every learned system is reported beside it; one that does not clear it has learned nothing.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.filters import gaussian, threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from hemalum.data.label_maps import SMOOTHING_UM, split_touching
from hemalum.errors import HemalumError

MIN_NUCLEUS_UM2 = 8.0  # a disc 3.2 µm across; smaller pieces are debris or a nucleus barely grazed
TYPICAL_RADIUS_UM = 2.6  # inscribed circle of a median nucleus in H&E sections

FLUORESCENCE_BRIGHTNESS = 0.5
FLUORESCENCE_SPREAD = 0.03
BLACK_BRIGHTNESS = 0.1

Signal = NDArray[np.float64]


def segment_classical(image: NDArray[np.uint8], mpp: float | None = None) -> NDArray[np.int32]:
    """Label map (H, W) int32, 0 = background, of an (H, W, 3) uint8 RGB image.

    Nuclear signal: hematoxylin after Ruifrok and Johnston's color deconvolution; brightness where the
    image looks like fluorescence (`is_fluorescence`); darkness where it is bright and colorless. All sizes
    are in µm; with `mpp` None the scale is taken from the thresholded nuclei themselves (`_estimate_mpp`),
    which is rougher. Raises HemalumError when the image is not (H, W, 3) uint8 or mpp is not positive.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise HemalumError(f"image must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    if mpp is not None and not mpp > 0:
        raise HemalumError(f"mpp must be positive, not {mpp} µm/px")
    if image.size == 0:
        return np.zeros(image.shape[:2], np.int32)
    signal = nuclear_signal(image)
    if np.ptp(signal) == 0:
        return np.zeros(image.shape[:2], np.int32)
    if mpp is None:
        rough = gaussian(signal, 1.0)
        mpp = _estimate_mpp(rough > threshold_otsu(rough))
    smooth = gaussian(signal, SMOOTHING_UM / mpp)
    foreground = _clean(smooth > threshold_otsu(smooth), mpp)
    return split_touching(foreground, mpp)


def is_fluorescence(image: NDArray[np.uint8]) -> bool:
    """True when nuclei are brighter than the background.

    The rule: the median pixel is black (brightness below 0.1), or it is dark and colorless (brightness
    below 0.5 and channels within 0.03 of each other). Dark H&E has color.
    """
    brightness = float(np.median(image.mean(axis=2))) / 255
    spread = float(np.median(np.ptp(image, axis=2))) / 255
    colorless = spread < FLUORESCENCE_SPREAD
    return brightness < BLACK_BRIGHTNESS or (brightness < FLUORESCENCE_BRIGHTNESS and colorless)


def nuclear_signal(image: NDArray[np.uint8]) -> Signal:
    """(H, W) float64, higher where a nucleus is more likely, in arbitrary units."""
    brightness: Signal = image.mean(axis=2) / 255
    if is_fluorescence(image):
        return brightness
    if float(np.median(np.ptp(image, axis=2))) / 255 < FLUORESCENCE_SPREAD:
        return 1 - brightness
    hematoxylin: Signal = rgb2hed(image)[..., 0]
    return hematoxylin


def _estimate_mpp(foreground: NDArray[np.bool_]) -> float:
    """µm per pixel at which a typical piece of foreground has the inscribed circle of a typical nucleus.

    Typical is the area-weighted median over pieces: specks are many but small.
    """
    pieces, count = ndimage.label(foreground)
    if count == 0:
        return 0.5
    depth = ndimage.distance_transform_edt(foreground)
    radii = np.asarray(ndimage.maximum(depth, pieces, np.arange(1, count + 1)))
    areas = np.bincount(pieces.ravel())[1:]
    order = np.argsort(radii)
    half = np.searchsorted(np.cumsum(areas[order]), areas.sum() / 2)
    return TYPICAL_RADIUS_UM / max(float(radii[order][half]), 1.0)


def _clean(foreground: NDArray[np.bool_], mpp: float) -> NDArray[np.bool_]:
    area = max(MIN_NUCLEUS_UM2 / mpp**2, 1.0)
    kept = remove_small_objects(foreground, max_size=math.ceil(area) - 1)
    filled: NDArray[np.bool_] = remove_small_holes(kept, max_size=math.ceil(area) - 1)
    return filled
