"""Drawn nuclei for tests of separation, outlines and measurements."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def draw_ellipses(
    shape: tuple[int, int], ellipses: list[tuple[float, float, float, float, float]]
) -> NDArray[np.int32]:
    """Label map of ellipses (y, x, half axes a and b, angle), earlier ones over later ones."""
    labels = np.zeros(shape, np.int32)
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    for n, (y, x, a, b, angle) in enumerate(ellipses, 1):
        u = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
        v = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
        labels[((u / a) ** 2 + (v / b) ** 2 <= 1) & (labels == 0)] = n
    return labels


def draw_crowd(seed: int, shape: tuple[int, int] = (120, 140), nuclei: int = 40) -> NDArray[np.int32]:
    """Random ellipses, some touching, some cut by the border; every label is one 4-connected piece."""
    rng = np.random.default_rng(seed)
    ellipses = [
        (*rng.uniform((0, 0), shape), *rng.uniform((5, 4), (9, 7)), rng.uniform(0, np.pi)) for _ in range(nuclei)
    ]
    drawn = draw_ellipses(shape, ellipses)  # type: ignore[arg-type]
    labels = np.zeros(shape, np.int32)
    for n in np.unique(drawn[drawn > 0]):
        pieces, _ = ndimage.label(drawn == n)
        largest = np.argmax(np.bincount(pieces.ravel())[1:]) + 1
        if (pieces == largest).sum() >= 30:  # slivers of nuclei drawn over are none
            labels[pieces == largest] = n
    return labels


def smooth_field(seed: int, shape: tuple[int, int], sigma: float) -> NDArray[np.float32]:
    """Blobs of random size in [0, 1], median 0.5."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return np.clip(0.5 + 0.3 * field / (field.std() + 1e-9), 0, 1).astype(np.float32)
