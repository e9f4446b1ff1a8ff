"""Simulated H-DAB: brown laid over an H&E crop in optical density, so that a network meets it in training.

Immunohistochemistry has no eosin, a paler hematoxylin, and DAB where the antigen is: in some nuclei, at the rims of
cells, or in their plasma, of any strength. Where nuclei are is known from the labels.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemalum.data.stain_separation import STAINS

_RIM = (2.0, 6.0)  # px from a nucleus at which a cell's membrane is drawn
_UNMIX = np.linalg.inv(STAINS)


def stain_with_dab(
    image: NDArray[np.uint8], labels: NDArray[np.int32], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """An H&E crop (H, W, 3) as if it were H-DAB; `labels` (H, W) are its nuclei.

    One of nuclear, membranous and cytoplasmic stain is drawn, nuclear half of the time.
    """
    density = -np.log(np.maximum(image, 1) / np.float32(255))
    amounts = density @ _UNMIX.astype(np.float32)  # of hematoxylin, eosin and what is left
    eosin = np.maximum(amounts[..., 1], 0)
    strength = rng.uniform(0.3, 2.2)
    kind = rng.choice(["nuclear", "nuclear", "membranous", "cytoplasmic"])
    if kind == "nuclear":
        each = rng.uniform(0.3, 1.0, int(labels.max()) + 1) * (rng.random(int(labels.max()) + 1) < rng.uniform())
        each[0] = 0
        brown = each[labels]
    elif kind == "membranous":
        away = ndimage.distance_transform_edt(labels == 0)
        brown = ((away >= _RIM[0]) & (away < _RIM[1])) * _patches(labels.shape, rng)
    else:
        brown = np.minimum(eosin, 1) * _patches(labels.shape, rng)
    brown = ndimage.gaussian_filter(brown.astype(np.float32) * np.float32(strength), rng.uniform(0.5, 1.5))
    direction = np.clip(STAINS[2] + rng.normal(0, 0.03, 3), 0.05, None)
    amounts[..., 0] *= np.float32(rng.uniform(0.6, 1.1))
    amounts[..., 1] *= np.float32(rng.uniform(0.0, 0.3))
    changed = amounts @ STAINS.astype(np.float32)
    changed += brown[..., None] * (direction / np.linalg.norm(direction)).astype(np.float32)
    stained: NDArray[np.uint8] = np.clip(255 * np.exp(-changed) + 0.5, 0, 255).astype(np.uint8)
    return stained


def _patches(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """A smooth field in [0, 1]: antigens come in areas."""
    coarse = rng.uniform(-0.5, 1.5, (5, 5))
    field = ndimage.zoom(coarse, (shape[0] / 5, shape[1] / 5), order=1, grid_mode=True, mode="nearest")
    smooth: NDArray[np.float32] = np.clip(field, 0, 1).astype(np.float32)
    return smooth
