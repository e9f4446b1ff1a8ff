"""A section whose two stains are known, and its optical density by definition."""

import numpy as np

# eosin as it is in sections: pure dye lets all red light pass, and Macenko's threshold would leave it out
PAIR = np.array([[0.56, 0.72, 0.41], [0.22, 0.80, 0.56]])
PAIR /= np.linalg.norm(PAIR, axis=1, keepdims=True)
OTHER = PAIR @ np.diag([1.2, 1.0, 0.7])
OTHER /= np.linalg.norm(OTHER, axis=1, keepdims=True)


def section(
    shape: tuple[int, int] = (96, 96), seed: int = 0, stains: np.ndarray = PAIR, strength: float = 1.0
) -> np.ndarray:
    """(H, W, 3) uint8: pixels of hematoxylin, of eosin and of both in all shares; two per cent are empty."""
    rng = np.random.default_rng(seed)
    share = rng.beta(0.4, 0.4, shape)[..., None]
    amount = rng.uniform(0.6, 1.4, shape)[..., None] * strength
    density = amount * (share * stains[0] + (1 - share) * stains[1])
    density[rng.random(shape) < 0.02] = 0
    return np.clip(np.rint(256 * np.exp(-density) - 1), 0, 255).astype(np.uint8)


def white_of(image: np.ndarray) -> float:
    """The value of an unstained pixel, by its definition."""
    return float(np.percentile(image.reshape(-1, 3).max(axis=1), 99))


def density_of(image: np.ndarray) -> np.ndarray:
    return -np.log((image.reshape(-1, 3).astype(np.float64) + 1) / (white_of(image) + 1))


def tissue(image: np.ndarray) -> np.ndarray:
    """Optical density of the pixels of tissue, by their definition."""
    density = density_of(image)
    return density[density.mean(axis=1) >= 0.15]
