"""A picture of an image's embedding: its first three principal components as colors, beside the image."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.files import atomic_path

_GAP = 8  # px between the two
_SPREAD = (1, 99)  # percentiles that become 0 and 255: single cells may lie far out


def principal_components(embedding: NDArray[Any]) -> NDArray[np.float32]:
    """The first three principal components (h, w, 3) float32 of an embedding (C, h, w), the strongest first.

    Over the cells of this image, centerd. Each component's largest loading is positive, so that the same image gives
    the same picture; with fewer cells or channels than components the last ones are 0.
    """
    channels, height, width = embedding.shape
    cells = embedding.reshape(channels, -1).T.astype(np.float64)
    cells -= cells.mean(axis=0)
    _, _, directions = np.linalg.svd(cells, full_matrices=False)
    directions = directions[:3]
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.where(directions[np.arange(len(directions)), largest] < 0, -1, 1)[:, None]
    scores = np.zeros((height * width, 3), np.float32)
    scores[:, : len(directions)] = cells @ directions.T
    return scores.reshape(height, width, 3)


def embedding_picture(image: NDArray[np.uint8], embedding: NDArray[Any], cells: float) -> NDArray[np.uint8]:
    """The image (H, W, 3) and its embedding (C, h, w) side by side, (H, 2 W + gap, 3); `cells` of it to a px."""
    height, width = image.shape[:2]
    components = principal_components(embedding)
    low, high = np.percentile(components, _SPREAD, axis=(0, 1))
    unit = (components - low) / np.maximum(high - low, 1e-6)
    colors = (unit.clip(0, 1) * 255).round().astype(np.uint8)
    rows, columns = (
        np.minimum(((np.arange(length) + 0.5) * cells).astype(int), count - 1)
        for length, count in ((height, colors.shape[0]), (width, colors.shape[1]))
    )
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    return np.concatenate([image, gap, colors[np.ix_(rows, columns)]], axis=1)


def write_embedding_picture(path: Path, image: NDArray[np.uint8], embedding: NDArray[Any], cells: float) -> None:
    """Write `embedding_picture` as a PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(embedding_picture(image, embedding, cells)).save(temporary, format="PNG")
