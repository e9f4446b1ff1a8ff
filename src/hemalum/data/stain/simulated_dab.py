"""Simulated H-DAB: brown laid over an H&E crop in optical density, so that a network meets it in training.

Immunohistochemistry has no eosin, a paler hematoxylin, and DAB where the antigen is: in some nuclei, at the rims of
cells, or in areas of their plasma, of any strength. Where nuclei are is known from the labels.
"""

from dataclasses import dataclass
from functools import cache

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemalum.data.stain.separation import STAINS

_RIM = (2.0, 6.0)  # px from a nucleus at which a cell's membrane is drawn
_KNOTS = 5  # of a smooth field, along each side
_UNMIX = np.linalg.inv(STAINS)


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedDab:
    """One draw: OD' = OD @ matrix + amount · direction, natural logarithm.

    `matrix` (3, 3) weakens hematoxylin and takes eosin out; `amount` (H, W) is of DAB, whose `direction` (3,) has
    unit length.
    """

    matrix: NDArray[np.float64]
    amount: NDArray[np.float32]
    direction: NDArray[np.float64]


def draw_dab(labels: NDArray[np.int32], rng: np.random.Generator) -> SimulatedDab:
    """Draw a stain for a crop whose nuclei are `labels` (H, W): nuclear half of the time, membranous, or in areas."""
    strength = rng.uniform(0.3, 2.2)
    kind = rng.choice(["nuclear", "nuclear", "membranous", "cytoplasmic"])
    if kind == "nuclear":
        nuclei = int(labels.max()) + 1
        each = rng.uniform(0.3, 1.0, nuclei) * (rng.random(nuclei) < rng.uniform())
        each[0] = 0
        brown = each[labels]
    elif kind == "membranous":
        away = edt.edt(labels == 0, parallel=1)
        brown = ((away >= _RIM[0]) & (away < _RIM[1])) * _areas(labels.shape, rng)
    else:
        brown = (labels == 0) * _areas(labels.shape, rng) * rng.uniform(0.3, 1.0)
    amount = ndimage.gaussian_filter(brown.astype(np.float32) * np.float32(strength), rng.uniform(0.5, 1.5))
    direction = np.clip(STAINS[2] + rng.normal(0, 0.03, 3), 0.05, None)
    kept = np.diag([rng.uniform(0.6, 1.1), rng.uniform(0.0, 0.3), 1.0])
    return SimulatedDab(_UNMIX @ kept @ STAINS, amount, direction / np.linalg.norm(direction))


def _areas(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """A smooth field in [0, 1]: antigens come in areas."""
    coarse = rng.uniform(-0.5, 1.5, (_KNOTS, _KNOTS))
    down, across = (_linear(length) for length in shape)
    smooth: NDArray[np.float32] = np.clip(down @ coarse @ across.T, 0, 1).astype(np.float32)
    return smooth


@cache
def _linear(length: int) -> NDArray[np.float64]:
    """Linear interpolation between `_KNOTS` values in the middles of equal parts of `length`, (length, _KNOTS)."""
    positions = (np.arange(length) + 0.5) * (_KNOTS / length) - 0.5
    return np.stack([np.interp(positions, np.arange(_KNOTS), row) for row in np.eye(_KNOTS)], axis=1)
