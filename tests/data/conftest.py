"""Miniatures that the tests of data/ share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def discs(shape: tuple[int, int], centers: list[tuple[int, int]], radius: float) -> np.ndarray:
    """(H, W) int32: discs numbered from 1 in the order of their centers (y, x)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for number, (cy, cx) in enumerate(centers, start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return labels


GRID = [(12, 12), (12, 40), (40, 12), (40, 40), (26, 26)]


@pytest.fixture
def grid_labels() -> np.ndarray:
    """(52, 52) int32: five discs of radius 6 px that do not touch."""
    return discs((52, 52), GRID, 6)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, np.ndarray], Path]:
    """Save an array as an image below tmp_path."""

    def save(name: str, pixels: np.ndarray) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return path

    return save


def noise_image(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def nuclei_image(labels: np.ndarray, seed: int) -> np.ndarray:
    """Noise (H, W, 3) uint8 that is dark where there are nuclei."""
    noise = noise_image((labels.shape[0], labels.shape[1]), seed)
    return np.where(labels[..., None] > 0, noise // 8, noise)


@pytest.fixture
def make_folder(tmp_path: Path, grid_labels: np.ndarray) -> Callable[..., Path]:
    """A user's folder of `count` images with label maps, and an index with patient and mpp columns."""

    def make_folder(count: int = 10, index: bool = True, name: str = "user") -> Path:
        root = tmp_path / name
        lines = ["image,label,patient,mpp"]
        for number in range(count):
            for kind, pixels in (
                ("images", nuclei_image(grid_labels, number)),
                ("labels", grid_labels.astype(np.uint16)),
            ):
                (root / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / f"tile_{number}.png")
            lines.append(f"tile_{number}.png,tile_{number}.png,p{number // 2},0.5")
        if index:
            (root / "index.csv").write_text("\n".join(lines) + "\n")
        return root

    return make_folder


@pytest.fixture
def colors() -> Callable[[tuple[int, int], int], np.ndarray]:
    """A function of shape and seed that gives an image of noise, (H, W, 3) uint8."""
    return noise_image
