"""Stain jitter: colour variation between laboratories, made in optical-density space."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hemalum.data.stain_separation import STAINS

_DARKEST = 1 / 256


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


def jitter_stain(images_BCHW: Tensor, matrix_B33: Tensor, offset_B3: Tensor) -> Tensor:
    """Apply drawn stain changes to images (B, 3, H, W) float32 in [0, 1]; gives the same shape and range."""
    density = -torch.log(images_BCHW.clamp_min(_DARKEST))
    changed = torch.einsum("bchw,bcd->bdhw", density, matrix_B33) + offset_B3[:, :, None, None]
    return torch.exp(-changed).clamp_(0, 1)
