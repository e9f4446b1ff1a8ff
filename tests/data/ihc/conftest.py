"""A tissue whose nuclei are known, for pairs whose warp and mask are known."""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import ndimage

from hemalum.data.ihc.chromogen import EOSIN, HEMATOXYLIN
from ihc_synthesis import KnownPair, make_pair

MPP = 0.5


class Tile(NamedTuple):
    image: np.ndarray
    labels: np.ndarray


def unit(vector: ArrayLike) -> np.ndarray:
    return np.array(vector) / np.linalg.norm(vector)


def make_tile(seed: int, side: int = 256, nuclei: int = 90) -> Tile:
    """(side, side) H&E: elliptic nuclei of 10 to 16 px in hematoxylin, scattered at random, on uneven eosin."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(float)
    labels = np.zeros((side, side), np.int32)
    for number in range(1, nuclei + 1):
        cy, cx = rng.uniform(0, side, 2)
        angle, a, b = rng.uniform(0, np.pi), rng.uniform(6, 8), rng.uniform(5, 6)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
        inside = (u / a) ** 2 + (v / b) ** 2 <= 1
        if not (labels[ndimage.binary_dilation(inside, iterations=2)] > 0).any():
            labels[inside] = number
    strength = rng.uniform(0.5, 0.9, nuclei + 1) * (np.arange(nuclei + 1) > 0)
    hematoxylin = ndimage.gaussian_filter(strength[labels], 0.7)
    eosin = 0.25 + 0.6 * ndimage.gaussian_filter(rng.normal(0, 1, (side, side)), 6)
    density = hematoxylin[..., None] * unit(HEMATOXYLIN) + eosin.clip(0.1)[..., None] * unit(EOSIN)
    image = 248 * 10**-density + rng.normal(0, 2, density.shape)
    return Tile(np.rint(image.clip(0, 255)).astype(np.uint8), labels)


@pytest.fixture(scope="session")
def tile() -> Tile:
    return make_tile(1)


@pytest.fixture(scope="session")
def pair(tile: Tile) -> KnownPair:
    """DAB, rotated, sheared and bent."""
    return make_pair(tile.image, tile.labels, 3)
