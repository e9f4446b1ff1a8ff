"""Stain jitter and transfer: color variation between laboratories, made in optical-density space."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hemalum.data.stain.separation import STAINS, amounts, angle_between, density_table, macenko_stains

DARKEST = 1 / 256  # black has a finite optical density
_PIXELS = 4096  # of an image that its stains are measured on
_DARK = 90  # mean byte below which an image is no stained section: fluorescence
_CLOSEST = 10.0  # degrees between two stains that are told apart
_STRONG = 99.0  # percentile of a stain's amount that is its strength (Macenko et al. 2009)
_FACTOR = (0.5, 2.0)  # a stain becomes at most so much weaker or stronger by a transfer


@dataclass(frozen=True, slots=True, eq=False)
class StainProfile:
    """What an image is stained with: directions (2, 3) of optical density, hematoxylin first, and strengths (2,)."""

    directions: NDArray[np.float64]
    strengths: NDArray[np.float64]

    @property
    def basis(self) -> NDArray[np.float64]:
        """The two directions and the one at right angles to both, rows of unit length (3, 3)."""
        rest = np.cross(*self.directions)
        return np.vstack([self.directions, rest / np.linalg.norm(rest)])


def measure_stains(image: NDArray[np.uint8]) -> StainProfile | None:
    """The stains of an image (H, W, 3) by Macenko's method; None where it shows no two (fluorescence, gray)."""
    every = image.reshape(-1, 3)
    pixels = every[:: max(1, len(every) // _PIXELS)]
    if pixels.mean() < _DARK:
        return None
    density = density_table(255.0)[pixels]
    if ((density >= 0.15).all(axis=1)).sum() < 64:
        return None
    directions = macenko_stains(density)
    if angle_between(directions) < _CLOSEST:
        return None
    strengths = np.percentile(amounts(density, directions, nonnegative=True), _STRONG, axis=0)
    return StainProfile(directions, np.maximum(strengths, 0.05))


def stain_transfer(source: StainProfile, donor: StainProfile, share: float) -> NDArray[np.float64]:
    """A matrix (3, 3) for OD' = OD @ matrix that moves an image's stains by `share` of the way to a donor's.

    Directions and strengths move; what neither stain explains stays as it is. Idea: Macenko et al. 2009, towards
    other training images in the place of one reference.
    """
    directions = (1 - share) * source.directions + share * donor.directions
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    factor = np.clip((donor.strengths / source.strengths) ** share, *_FACTOR)
    aim = StainProfile(directions, source.strengths)
    matrix: NDArray[np.float64] = np.linalg.inv(source.basis) @ np.diag([*factor, 1.0]) @ aim.basis
    return matrix


def draw_stain_jitter(
    rng: np.random.Generator, strength: float, brown: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw one change of staining as an affine map of optical density: OD' = OD @ matrix + offset.

    Each stain's amount is scaled by up to ± `strength` and shifted by up to ± `strength`/10, and each stain's
    direction is turned a little (Tellez et al. 2018 scale and shift; turning the directions is ours: scanners
    and dyes differ in hue, not only in amount). In a share `brown` of the draws eosin takes DAB's direction, as if
    the section had been stained by immunohistochemistry. Gives (3, 3) and (3,) float32.
    """
    amount = rng.uniform(1 - strength, 1 + strength, 3)
    shift = rng.uniform(-strength, strength, 3) / 10
    target = STAINS.copy()
    if rng.random() < brown:
        target[1] = STAINS[2]
    turned = np.clip(target + rng.normal(0, 0.25 * strength, (3, 3)), 0.01, None)
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    matrix = np.linalg.inv(STAINS) @ np.diag(amount) @ turned
    return matrix.astype(np.float32), (shift @ turned).astype(np.float32)


def jitter_stain(
    images_BCHW: Tensor,
    matrix_B33: Tensor,
    offset_B3: Tensor,
    brown_B1HW: Tensor | None = None,
    direction_B3: Tensor | None = None,
) -> Tensor:
    """Apply drawn stain changes to images (B, 3, H, W) float32 in [0, 1]; gives the same shape and range.

    `brown` is an amount of optical density added along `direction`.
    """
    density = -torch.log(images_BCHW.clamp_min(DARKEST))
    changed = torch.einsum("bchw,bcd->bdhw", density, matrix_B33) + offset_B3[:, :, None, None]
    if brown_B1HW is not None and direction_B3 is not None:
        changed = changed + brown_B1HW * direction_B3[:, :, None, None]
    return torch.exp(-changed).clamp_(0, 1)
