"""Where a bright-field section has tissue."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import remove_small_holes, remove_small_objects

BLACK = 12  # RGB; nothing stained is as dark in all channels: such pixels are a scanner's blank border
WHITE = 220  # the brightest pixels of a tile that is all tissue are no measure of the light; glass is above this
MIN_DENSITY = 0.04  # mean optical density over R, G, B; glass is at 0.00 to 0.03, pale stroma at 0.08
SMOOTHING_UM = 3.0  # bridges the pale cytoplasm between nuclei
CLOSING_UM = 20.0  # bridges stroma that an IHC section leaves as pale as glass, between the nuclei that lie in it
MIN_PIECE_UM2 = 30.0  # a nucleus by itself, blurred by the smoothing, is larger
MIN_HOLE = 0.01  # of the image; a smaller hole belongs to the tissue


def optical_density(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) float32: optical density (log10) against the section's own white, 0 where it is brighter.

    White is the 99.5th percentile of each channel, but at least 220: a tile may hold no glass at all.
    Pixels that are black in all channels count as glass.
    """
    pixels = image.reshape(-1, 3)
    sparse = pixels[:: max(1, len(pixels) // 250_000)]
    white = np.maximum(np.percentile(sparse, 99.5, axis=0), WHITE)
    # a table instead of a logarithm per pixel: there are 256 values only
    table = np.log10((white[None] + 1) / (np.arange(256)[:, None] + 1)).clip(0).astype(np.float32)
    density = np.stack([table[:, channel][image[..., channel]] for channel in range(3)], axis=-1)
    density[(image <= BLACK).all(axis=2)] = 0
    return density


def tissue_mask(density: NDArray[np.float32], mpp: float) -> NDArray[np.bool_]:
    """(H, W) bool: True on tissue. `density` is (H, W, 3) optical density, `mpp` in µm per pixel.

    A fixed level of optical density, not Otsu's: a field of view is often all tissue, and Otsu would then cut
    the stroma off. Gaps up to 40 µm wide and holes below 1 % of the image belong to the tissue around.
    """
    smooth = ndimage.gaussian_filter(density.mean(axis=2), SMOOTHING_UM / mpp)
    kept: NDArray[np.bool_] = remove_small_objects(smooth > MIN_DENSITY, max_size=round(MIN_PIECE_UM2 / mpp**2))
    if not kept.any() or kept.all():
        return kept
    reached = ndimage.distance_transform_edt(~kept) <= CLOSING_UM / mpp
    closed = kept | (ndimage.distance_transform_edt(reached) > CLOSING_UM / mpp) if not reached.all() else reached
    filled: NDArray[np.bool_] = remove_small_holes(closed, max_size=max(round(MIN_HOLE * smooth.size), 1))
    return filled
