"""The image with the outline of every nucleus drawn on it."""

from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from PIL import Image

from hemalum.errors import HemalumError
from hemalum.files import atomic_path

COLOUR = (0, 255, 128)  # green is the one hue that neither hematoxylin, eosin nor DAB takes


def draw_outlines(
    image: NDArray[np.uint8], labels: NDArray[np.uint32], *, colour: tuple[int, int, int] = COLOUR
) -> NDArray[np.uint8]:
    """Give a copy of image (H, W, 3) uint8 with a line one pixel thin along the inside of every label's edge.

    Between two touching nuclei there is one line, not two. Raises HemalumError when sizes differ.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[:2] != labels.shape:
        raise HemalumError(f"image {image.shape} and label map {labels.shape} are not of one size")
    drawn = np.array(image, np.uint8, order="C")
    _draw(drawn, np.ascontiguousarray(labels), np.array(colour, np.uint8))
    return drawn


def write_overlay(
    path: str | Path,
    image: NDArray[np.uint8],
    labels: NDArray[np.uint32],
    *,
    colour: tuple[int, int, int] = COLOUR,
) -> None:
    """Write `draw_outlines` as PNG. Raises HemalumError when sizes differ or the file cannot be written."""
    drawn = Image.fromarray(draw_outlines(image, labels, colour=colour))
    with atomic_path(path) as temporary:
        drawn.save(temporary, format="PNG", compress_level=1)


@njit(cache=True, nogil=True)
def _draw(image: Any, labels: Any, colour: Any) -> None:
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            n = labels[y, x]
            if n == 0:
                continue
            edge = False
            for step in range(4):
                v, u = y + (step == 1) - (step == 3), x + (step == 0) - (step == 2)
                if 0 <= v < height and 0 <= u < width:
                    m = labels[v, u]
                    # of two touching nuclei only the lower id draws the line between them
                    edge = edge or m == 0 or m > n
            if edge:
                for c in range(3):
                    image[y, x, c] = colour[c]
