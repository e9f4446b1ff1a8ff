"""Optical density of a section, where it has tissue, its color deconvolution, and what its chromogen stained."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import closing, disk, opening, remove_small_holes, remove_small_objects

from hemalum.data.stain.separation import unmixing

Chromogen = Literal["dab", "red"]
CHROMOGENS: tuple[Chromogen, ...] = get_args(Chromogen)
Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Optical-density directions (R, G, B) after Ruifrok & Johnston 2001 and the table of their ImageJ plugin.
HEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
DAB = (0.268, 0.570, 0.776)
AEC = (0.274, 0.680, 0.680)
FAST_RED = (0.214, 0.851, 0.478)

BLACK = 12  # RGB; nothing stained is as dark in all channels: such pixels are a scanner's blank border
WHITE = 220  # the brightest pixels of a tile that is all tissue are no measure of the light; glass is above this
MIN_DENSITY = 0.04  # mean optical density over R, G, B; glass is at 0.00 to 0.03, pale stroma at 0.08
CYTOPLASM_UM = 3.0  # bridges the pale cytoplasm between nuclei
STROMA_UM = 20.0  # bridges stroma that an IHC section leaves as pale as glass, between the nuclei that lie in it
MIN_PIECE_UM2 = 30.0  # a nucleus by itself, blurred by the smoothing, is larger
MIN_HOLE = 0.01  # of the image; a smaller hole belongs to the tissue

FLOOR = 0.15  # optical density (log10) along the chromogen; below it is background staining, not a nucleus
CONTRAST = 0.2  # what is stained stands out from what is not by this much in the mean, or it is background
ROUNDS = 6
SMOOTHING_UM = 0.5  # stain grain, well below the size of a nucleus
OPENING_UM = 0.6
CLOSING_UM = 0.8
MAX_HOLE_UM2 = 20.0  # a pale nucleus stained along its rim
WRONG_DEGREES = 15.0  # further from the named chromogen's plane than this, and half as far from another's


def _unit(vector: ArrayLike) -> NDArray[np.float64]:
    direction = np.asarray(vector, np.float64)
    unit: NDArray[np.float64] = direction / np.linalg.norm(direction)
    return unit


# what `red` means: half way between the two red chromogens in use, 8° from either
VECTORS: dict[Chromogen, NDArray[np.float64]] = {"dab": _unit(DAB), "red": _unit(_unit(AEC) + _unit(FAST_RED))}


def optical_density(image: NDArray[np.uint8]) -> Float:
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


def tissue_mask(density: Float, mpp: float) -> Mask:
    """(H, W) bool: True on tissue. `density` is (H, W, 3) optical density, `mpp` in µm per pixel.

    A fixed level of optical density, not Otsu's: a field of view is often all tissue, and Otsu would then cut
    the stroma off. Gaps up to 40 µm wide and holes below 1 % of the image belong to the tissue around.
    """
    smooth = ndimage.gaussian_filter(density.mean(axis=2), CYTOPLASM_UM / mpp)
    kept: Mask = remove_small_objects(smooth > MIN_DENSITY, max_size=round(MIN_PIECE_UM2 / mpp**2))
    if not kept.any() or kept.all():
        return kept
    reached = ndimage.distance_transform_edt(~kept) <= STROMA_UM / mpp
    closed = kept | (ndimage.distance_transform_edt(reached) > STROMA_UM / mpp) if not reached.all() else reached
    filled: Mask = remove_small_holes(closed, max_size=max(round(MIN_HOLE * smooth.size), 1))
    return filled


def deconvolve(density: Float, second: NDArray[np.float64]) -> tuple[Float, Float]:
    """Amounts of hematoxylin and of a `second` stain, each (H, W) float32 ≥ 0, in optical density.

    `density` is (H, W, 3) optical density, `second` the (3,) direction of the other stain.
    """
    amounts = density @ unmixing(_unit(HEMATOXYLIN), _unit(second)).astype(np.float32)
    np.maximum(amounts, 0, out=amounts)
    return amounts[..., 0], amounts[..., 1]


@dataclass(frozen=True, slots=True)
class Staining:
    """What the chromogen stained: `mask` (H, W) bool, the threshold and the share of tissue above it."""

    mask: Mask
    threshold: float
    share: float


def chromogen_mask(amount: Float, tissue: Mask, mpp: float, *, min_area_um2: float) -> Staining:
    """Threshold the amount of chromogen (H, W) by Otsu within the tissue, and clean the mask.

    The threshold never falls below `FLOOR`, and where the two classes differ by less than `CONTRAST` it is sought
    again among the higher values: a gray section with two stained nuclei gives these two, a section without
    chromogen an empty mask, not noise.
    Opening and closing take off grain, holes up to 20 µm² are filled, pieces below `min_area_um2` dropped.
    """
    smooth = ndimage.gaussian_filter(amount, SMOOTHING_UM / mpp)
    inside = smooth[tissue]
    threshold = _threshold(inside)
    if threshold is None:
        return Staining(np.zeros(tissue.shape, np.bool_), FLOOR, 0.0)
    mask = (smooth > threshold) & tissue
    mask = opening(mask, disk(max(1, round(OPENING_UM / mpp))))
    mask = closing(mask, disk(max(1, round(CLOSING_UM / mpp))))
    mask = remove_small_holes(mask, max_size=math.ceil(MAX_HOLE_UM2 / mpp**2))
    mask = remove_small_objects(mask, max_size=math.ceil(min_area_um2 / mpp**2) - 1)
    return Staining(mask, threshold, float(mask.sum() / inside.size))


def _threshold(values: Float) -> float | None:
    """Otsu's threshold, moved up until what lies above stands out; None where nothing does."""
    for _ in range(ROUNDS):
        if values.size == 0 or np.ptp(values) == 0:
            return None
        threshold = max(float(threshold_otsu(values)), FLOOR)
        above = values > threshold
        below = float(values[~above].mean()) if not above.all() else FLOOR
        if above.any() and float(values[above].mean()) - below >= CONTRAST:
            return threshold
        values = values[above]
    return None


def misnamed(density: Float, tissue: Mask, named: Chromogen) -> Chromogen | None:
    """The chromogen that a section looks to have been stained with, where it is not the `named` one.

    Hematoxylin and a chromogen span a plane in optical-density space; mixtures of the two lie in it. Pixels with
    chromogen are told by their absorption in blue beyond what hematoxylin explains. Their median angle from
    the plane of each chromogen decides; None where there are few such pixels or the named one is near enough.
    """
    blue = density[..., 2] - density[..., 0] * (HEMATOXYLIN[2] / HEMATOXYLIN[0])
    pixels = density[tissue & (blue > FLOOR)].astype(np.float64)
    if len(pixels) < max(50, tissue.sum() // 2000):
        return None
    pixels = pixels[:: max(1, len(pixels) // 100_000)]
    first = _unit(HEMATOXYLIN)
    away = pixels - np.outer(pixels @ first, first)  # what is left at right angles to hematoxylin: an angle there
    away /= np.linalg.norm(away, axis=1, keepdims=True)  # is the angle between planes
    angles = {}
    for name, vectors in {"dab": (DAB,), "red": (AEC, VECTORS["red"], FAST_RED)}.items():
        normals = [_unit(np.cross(first, _unit(vector))) for vector in vectors]
        angles[name] = min(float(np.degrees(np.arcsin(np.median(np.abs(away @ normal))))) for normal in normals)
    for name in CHROMOGENS:
        if name != named and angles[named] > WRONG_DEGREES and angles[name] < angles[named] / 2:
            return name
    return None
