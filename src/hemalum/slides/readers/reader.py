"""Reader: pixels of the levels of a file; what every reader has, and what becomes of tiles that cannot be read."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError, one_line

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
Shape = tuple[int, int]

MAX_PIXELS_DECODED = 250_000_000  # decoded at once: 750 MB as RGB
NAMED = 5  # broken tiles that the log names one by one; the others are counted


@dataclass(frozen=True, slots=True, order=True)
class BrokenTile:
    """A tile that could not be read: `level`, its upper left corner and its size in px of that level, and why."""

    level: int
    x: int
    y: int
    width: int
    height: int
    reason: str


class BrokenTiles:
    """The tiles of one file that could not be read, each once; several threads may add to it."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.tiles: dict[tuple[int, int, int], BrokenTile] = {}
        self._lock = threading.Lock()

    def add(self, tile: BrokenTile) -> None:
        """Add a tile; the log names the first ones."""
        with self._lock:
            if (tile.level, tile.x, tile.y) in self.tiles:
                return
            self.tiles[tile.level, tile.x, tile.y] = tile
            count = len(self.tiles)
        if count <= NAMED:
            log.warning(
                "%s: the tile of level %d at x %d, y %d cannot be read (%s): white",
                self.path,
                tile.level,
                tile.x,
                tile.y,
                tile.reason,
            )
        elif count == NAMED + 1:
            log.warning("%s: more tiles cannot be read; they are counted", self.path)

    def sorted(self) -> list[BrokenTile]:
        """All tiles by level, x and y."""
        with self._lock:
            return sorted(self.tiles.values())


class Reader(Protocol):
    """The pixels of a file: one class for each way to read one. Several threads may read at once.

    `format` is its name for people. `shapes` are (H, W) px of its levels, the finest first, inside the scanner's
    bounds, which begin at `offset` (x, y) px of its canvas. `stated` is what the file states, µm per px in x and y.
    `files` identify the pixels. `broken` are the tiles that came as white.
    """

    format: str
    shapes: tuple[Shape, ...]
    offset: tuple[int, int]
    stated: tuple[float, float] | None
    files: tuple[Path, ...]
    broken: BrokenTiles

    def read_level(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """Give (height, width, 3) RGB of a window that lies within the level, in px of the level."""
        ...

    def close(self) -> None: ...


def tiles_in(window: tuple[int, int, int, int], shape: Shape, tile: Shape) -> Iterator[tuple[int, int, int, int]]:
    """(y, x, height, width) of each tile of a level of `shape` that a window (y, x, height, width) touches."""
    y, x, height, width = window
    for top in range(y // tile[0] * tile[0], y + height, tile[0]):
        for left in range(x // tile[1] * tile[1], x + width, tile[1]):
            yield top, left, min(tile[0], shape[0] - top), min(tile[1], shape[1] - left)


def paste(result: NDArray[np.generic], y: int, x: int, pixels: NDArray[np.generic], top: int, left: int) -> None:
    """Copy what `result`, whose corner is (y, x), shares with `pixels`, whose corner is (top, left)."""
    first, last = max(y, top), min(y + result.shape[0], top + pixels.shape[0])
    west, east = max(x, left), min(x + result.shape[1], left + pixels.shape[1])
    if first < last and west < east:
        result[first - y : last - y, west - x : east - x] = pixels[
            first - top : last - top, west - left : east - left
        ]


def read_mended(
    read: Callable[[int, int, int, int], Pixels],
    window: tuple[int, int, int, int],
    *,
    level: int,
    shape: Shape,
    tile: Shape,
    broken: BrokenTiles,
) -> Pixels:
    """What `read(y, x, height, width)` gives for a window; when it fails, tile by tile, white for those that fail.

    A tile is always read as one, so that what is white does not depend on the window.
    """
    try:
        return read(*window)
    except Exception:  # whatever a decoder raises; the tile that raises it is named below
        log.debug("%s: level %d, window %s is read tile by tile", broken.path, level, window)
    y, x, height, width = window
    result = np.full((height, width, 3), 255, np.uint8)
    for top, left, tall, wide in tiles_in(window, shape, tile):
        try:
            paste(result, y, x, read(top, left, tall, wide), top, left)
        except Exception as error:
            broken.add(BrokenTile(level, left, top, wide, tall, one_line(error)))
    return result


def consistent_levels(shapes: list[Shape], name: Path | str) -> list[int]:
    """Indices of the levels that show the same field as the first, each smaller than the one before.

    Raises HemalumError when there is no level with pixels.
    """
    if not shapes or min(shapes[0]) < 1:
        raise HemalumError(f"{name}: the slide has no levels with pixels; scan or export it again")
    kept = [0]
    for index, (height, width) in enumerate(shapes[1:], start=1):
        last = shapes[kept[-1]]
        if height < 1 or width < 1 or height > last[0] or width > last[1] or (height, width) == last:
            log.warning("%s: level %d has %d x %d px; left out", name, index, width, height)
            continue
        # levels are rounded at each halving: a few px, whatever the level's size
        off = abs(height * shapes[0][1] - width * shapes[0][0]) / max(shapes[0])
        if off > 4 + 0.01 * min(height, width):
            log.warning("%s: level %d has %d x %d px, another field; left out", name, index, width, height)
            continue
        kept.append(index)
    return kept
