"""The image with the outline of every nucleus drawn on it, and a legend where nuclei have classes."""

from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hemalum.errors import HemalumError
from hemalum.export.colours import Classes
from hemalum.export.lettering import Lettering
from hemalum.files import atomic_path

COLOUR = (0, 255, 128)  # green is the one hue that neither hematoxylin, eosin nor DAB takes
LETTERS, GROUND = (245, 245, 245), (38, 34, 46)  # of the legend: the colours of classes are made for dark and tissue
NONE: NDArray[np.int32] = np.zeros(0, np.int32)
SMALLEST, SHARE = 13, 75  # px: height of the legend's type, and the width of the image by it


def draw_outlines(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint32],
    *,
    colour: tuple[int, int, int] = COLOUR,
    classes: Classes | None = None,
) -> NDArray[np.uint8]:
    """Give a copy of image (H, W, 3) uint8 with a line one pixel thin along the inside of every label's edge.

    With `classes`, of the nuclei with labels 1..N, each line has the colour of its class. Between two touching
    nuclei there is one line, not two, that of the lower label. Raises HemalumError when sizes differ.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[:2] != labels.shape:
        raise HemalumError(f"image {image.shape} and label map {labels.shape} are not of one size")
    drawn = np.array(image, np.uint8, order="C")
    colours, kinds = [colour], NONE
    if classes is not None:
        colours += classes.colours
        kinds = classes.numbers
    _draw(drawn, np.ascontiguousarray(labels), kinds, np.array(colours, np.uint8))
    return drawn


def draw_legend(width: int, classes: Classes) -> NDArray[np.uint8]:
    """Give a strip (h, width, 3) uint8 with colour, name and number of nuclei of each class."""
    pen, size = Lettering(), max(SMALLEST, width // SHARE)
    gap, line = size // 2, size * 8 // 5
    places: list[tuple[int, int, str]] = []
    x = y = gap
    for name, count in classes.counts.items():
        text = pen.fit(f"{name} {count:,}", width - 3 * gap - size, size)
        wide = size + gap + round(pen.length(text, size))
        if x > gap and x + wide > width - gap:
            x, y = gap, y + line
        places.append((x, y, text))
        x += wide + 2 * size
    strip = Image.new("RGB", (width, y + line + gap // 2), GROUND)
    pen.draw = ImageDraw.Draw(strip)
    for colour, (left, top, text) in zip(classes.colours, places, strict=True):
        box = (left, top, left + size - 1, top + size - 1)
        pen.draw.rectangle(box, outline=colour, width=max(3, size // 5))
        pen.text(left + size + gap, top - size // 8, text, size, LETTERS)
    return np.asarray(strip)


def write_overlay(
    path: str | Path,
    image: NDArray[np.uint8],
    labels: NDArray[np.uint32],
    *,
    colour: tuple[int, int, int] = COLOUR,
    classes: Classes | None = None,
) -> None:
    """Write `draw_outlines` as PNG, with `classes` above a legend, which makes the picture higher than the image.

    Raises HemalumError when sizes differ or the file cannot be written.
    """
    pixels = draw_outlines(image, labels, colour=colour, classes=classes)
    if classes is not None:
        pixels = np.concatenate([pixels, draw_legend(pixels.shape[1], classes)])
    drawn = Image.fromarray(pixels)
    with atomic_path(path) as temporary:
        drawn.save(temporary, format="PNG", compress_level=1)


@njit(cache=True, nogil=True)
def _draw(image: Any, labels: Any, kinds: Any, colours: Any) -> None:
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
                kind = kinds[n - 1] if n <= kinds.size else 0
                for c in range(3):
                    image[y, x, c] = colours[kind, c]
