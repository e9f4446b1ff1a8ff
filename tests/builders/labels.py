"""Fields of round nuclei with their label maps, and label files as other programs write them."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image


def field(side: int = 96, *, every: int = 18, radius: float = 5.5, seed: int = 0) -> NDArray[np.int32]:
    """(side, side) int32: round nuclei on a loose grid, numbered from 1 by rows; none touch."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    centers = [(cy, cx) for cy in range(every // 2, side, every) for cx in range(every // 2, side, every)]
    for number, (cy, cx) in enumerate(centers, start=1):
        oy, ox, r = rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5), radius * rng.uniform(0.85, 1.1)
        labels[(y - cy - oy) ** 2 + (x - cx - ox) ** 2 <= r * r] = number
    return labels


def photograph(labels: NDArray[Any], seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: purple nuclei on pink, with grain."""
    rng = np.random.default_rng(seed)
    image = np.where((labels > 0)[..., None], (95, 60, 140), (235, 200, 220)).astype(np.float64)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def save(path: Path, pixels: NDArray[Any], **tiff: Any) -> None:
    """Save labels by the ending of their name; `tiff` is for tifffile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.lower()
    if name.endswith((".tif", ".tiff", ".btf")):
        tifffile.imwrite(path, pixels, **tiff)
    elif name.endswith(".npy"):
        np.save(path, pixels)
    elif name.endswith(".mat"):
        from scipy.io import savemat

        savemat(path, {"inst_map": pixels})
    else:
        Image.fromarray(pixels).save(path)


def make_source(root: Path, label_names: list[str], count: int = 2, **sizes: int) -> list[NDArray[np.int32]]:
    """ROOT/images/f0.png … and ROOT/labels by these names ("{}_masks.png"), 16 bits; gives the label maps."""
    fields = [field(seed=number, **sizes) for number in range(count)]
    for number, labels in enumerate(fields):
        save(root / "images" / f"f{number}.png", photograph(labels, number))
        for name in label_names:
            save(root / "labels" / name.format(f"f{number}"), labels.astype(np.uint16))
    return fields
