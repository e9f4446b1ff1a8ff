"""Outlines of nuclei drawn on their image, and a legend where they have classes."""

import logging
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hemalum.compiled import njit
from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.nuclei.io.colors import Classes
from hemalum.nuclei.io.text_drawing import TextDrawing

log = logging.getLogger(__name__)

COLOR: tuple[int, int, int] = (0, 255, 128)  # green is the one hue that neither hematoxylin, eosin nor DAB takes
LEGEND_TEXT, LEGEND_BACKGROUND = (245, 245, 245), (38, 34, 46)  # the colors of classes are made for dark and tissue
NO_CLASSES: NDArray[np.int32] = np.zeros(0, np.int32)
MIN_TYPE, TYPE_SHARE = 13, 75  # px: height of the legend's type, and the width of the image by it
BAND = 1 << 21  # px that are drawn at once
MOST_PIXELS, MOST_SIDE = 150_000_000, 32_767  # of a picture: larger ones are opened by few programs
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
RGB_LINES = bytes((8, 2, 0, 0, 0))  # 8 bits, RGB, deflate, filters, not interlaced

ReadRows = Callable[[int, int], NDArray[np.uint8]]  # rows start..stop of an image, (rows, W, 3)
# the same rows of its label map, (rows, W), and the class of each of its labels 1..N, (N,)
DrawLabels = Callable[[int, int], tuple[NDArray[np.uint32], NDArray[np.int32]]]


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


def write_overlay(
    path: Path | str,
    shape: tuple[int, int],
    image: ReadRows,
    labels: DrawLabels,
    *,
    color: tuple[int, int, int] = COLOR,
    classes: Classes | None = None,
) -> None:
    """Write an image of (H, W) px with outlines as `draw_outlines` draws them, PNG, and a legend of its classes.

    It is read, drawn and written by bands, so memory does not grow with the height of the image. `classes` gives the
    colors and the legend; the class of each label comes with the labels.
    """
    height, width = shape
    legend = None if classes is None else draw_legend(width, classes)

    def bands() -> Iterator[NDArray[np.uint8]]:
        step = max(1, BAND // width)
        for start in range(0, height, step):
            stop = min(start + step, height)
            # whether a pixel is an edge depends on the rows above and below it
            top, bottom = max(start - 1, 0), min(stop + 1, height)
            drawn_labels, numbers = labels(top, bottom)
            shown = None if classes is None else replace(classes, numbers=numbers)
            drawn = draw_outlines(image(top, bottom), drawn_labels, color=color, classes=shown)
            yield drawn[start - top : stop - top]
        if legend is not None:
            yield legend

    _write_png(path, (height + (0 if legend is None else len(legend)), width), bands())


def shrinking(shape: tuple[int, int], path: Path | str) -> int:
    """By which whole factor a picture of an image of (H, W) px is smaller; where that is not 1 the log says so."""
    by = max(math.ceil(math.sqrt(math.prod(shape) / MOST_PIXELS)), math.ceil(max(shape) / MOST_SIDE), 1)
    if by > 1:
        log.info("%s: drawn %d times smaller than the image: few programs open %d x %d px", path, by, *shape[::-1])
    return by


def shrunk_rows(read: ReadRows, height: int, by: int) -> ReadRows:
    """What reads the rows of an image `by` times smaller, each pixel the mean of by x by."""
    if by == 1:
        return read

    def rows(start: int, stop: int) -> NDArray[np.uint8]:
        pixels = read(start * by, min(stop * by, height))
        below, right = -len(pixels) % by, -pixels.shape[1] % by
        blocks = np.pad(pixels, ((0, below), (0, right), (0, 0)), "edge").reshape(stop - start, by, -1, by, 3)
        shrunk: NDArray[np.uint8] = np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
        return shrunk

    return rows


def _write_png(path: Path | str, shape: tuple[int, int], bands: Iterator[NDArray[np.uint8]]) -> None:
    """Write RGB rows as they come (PNG, ISO/IEC 15948), each as the difference to the one above (filter Up)."""
    height, width = shape
    with atomic_path(path) as temporary, temporary.open("wb") as file:

        def chunk(kind: bytes, data: bytes) -> None:
            file.write(len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4))

        file.write(PNG_SIGNATURE)
        chunk(b"IHDR", width.to_bytes(4) + height.to_bytes(4) + RGB_LINES)
        packer = zlib.compressobj(1)
        above: NDArray[np.uint8] = np.zeros((1, 3 * width), np.uint8)
        for band in bands:
            rows = band.reshape(len(band), 3 * width)
            lines = np.full((len(rows), 3 * width + 1), 2, np.uint8)
            np.subtract(rows, np.concatenate([above, rows[:-1]]), out=lines[:, 1:])
            above = rows[-1:]
            chunk(b"IDAT", packer.compress(lines.data))
        chunk(b"IDAT", packer.flush())
        chunk(b"IEND", b"")


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


@njit(nogil=True)
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
