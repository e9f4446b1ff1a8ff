"""Outlines of nuclei drawn on their image, and a legend where they have classes."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hemalum.errors import HemalumError
from hemalum.nuclei.io.colors import Classes
from hemalum.nuclei.io.text_drawing import TextDrawing

COLOR = (0, 255, 128)  # green is the one hue that neither hematoxylin, eosin nor DAB takes
LEGEND_TEXT, LEGEND_BACKGROUND = (245, 245, 245), (38, 34, 46)  # the colors of classes are made for dark and tissue
NO_CLASSES: NDArray[np.int32] = np.zeros(0, np.int32)
MIN_TYPE, TYPE_SHARE = 13, 75  # px: height of the legend's type, and the width of the image by it


def draw_outlines(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint32],
    *,
    color: tuple[int, int, int] = COLOR,
    classes: Classes | None = None,
) -> NDArray[np.uint8]:
    """Give a copy of image (H, W, 3) uint8 with a line one pixel thin along the inside of every label's edge.

    With `classes`, of the nuclei with labels 1..N, each line has the color of its class. Between two touching
    nuclei there is one line, not two, that of the lower label. Raises HemalumError when sizes differ.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[:2] != labels.shape:
        raise HemalumError(f"image {image.shape} and label map {labels.shape} are not of one size")
    drawn = np.array(image, np.uint8, order="C")
    colors, class_ids = [color], NO_CLASSES
    if classes is not None:
        colors += classes.colors
        class_ids = classes.numbers
    _draw(drawn, np.ascontiguousarray(labels), class_ids, np.array(colors, np.uint8))
    return drawn


def draw_legend(width: int, classes: Classes) -> NDArray[np.uint8]:
    """Give a strip (h, width, 3) uint8 with color, name and number of nuclei of each class."""
    pen, size = TextDrawing(), max(MIN_TYPE, width // TYPE_SHARE)
    gap, line = size // 2, size * 8 // 5
    positions: list[tuple[int, int, str]] = []
    x = y = gap
    for name, count in classes.counts.items():
        text = pen.fit(f"{name} {count:,}", width - 3 * gap - size, size)
        entry_width = size + gap + round(pen.length(text, size))
        if x > gap and x + entry_width > width - gap:
            x, y = gap, y + line
        positions.append((x, y, text))
        x += entry_width + 2 * size
    strip = Image.new("RGB", (width, y + line + gap // 2), LEGEND_BACKGROUND)
    pen.draw = ImageDraw.Draw(strip)
    for color, (left, top, text) in zip(classes.colors, positions, strict=True):
        box = (left, top, left + size - 1, top + size - 1)
        pen.draw.rectangle(box, outline=color, width=max(3, size // 5))
        pen.text(left + size + gap, top - size // 8, text, size, LEGEND_TEXT)
    return np.asarray(strip)


@njit(cache=True, nogil=True)
def _draw(image: Any, labels: Any, class_ids: Any, colors: Any) -> None:
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
                class_id = class_ids[n - 1] if n <= class_ids.size else 0
                for c in range(3):
                    image[y, x, c] = colors[class_id, c]
