"""The nuclei of a slide as tiles: outlines where they are few enough to draw, else how dense they lie.

An outline tile is little-endian: uint32 n and p; n uint32 ids, n uint8 numbers of classes (0 for none), zeros up to a
multiple of 4; n + 1 uint32 offsets; p points, int16 x and y in 1/8 px of the tile as it is shown.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.compiled import njit
from hemalum.nuclei.polygons import Polygons
from hemalum.nuclei.store import NucleiStore, from_wkb, number_names
from hemalum.review.server.tiles import TILE, Pyramid, encode_png

MOST = 8_000  # nuclei of a tile that are drawn as outlines
CELL = 64  # px of the slide: side of the cells that nuclei are counted in
MAX_CELLS = 1 << 22
STEPS = 8  # of a point to a px
TOLERANCE = 0.25  # px of the screen that a simplified outline is off
DENSE = 99.0  # percentile of the cells with nuclei that has the full color
COLORS = (68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)  # from few to many
OPACITY = 80, 220  # of few and of many nuclei


class NucleiTiles:
    """Tiles of a store's nuclei. Outlines are given on levels from `outlines_from` on, densities on those before.

    `scale` is nuclei per mm² (per megapixel without a scale) at the full color. A nucleus is in the tile of its
    centroid.
    """

    def __init__(self, store: NucleiStore) -> None:
        self.store, self.pyramid = store, Pyramid(store.run.shape)
        height, width = store.run.shape
        self._cell = CELL
        while (height // self._cell + 1) * (width // self._cell + 1) > MAX_CELLS:
            self._cell *= 2
        self._counts = self._count(self._cell)
        drawn = [level for level in range(self.pyramid.levels) if self._fullest(level) <= MOST]
        self.outlines_from = drawn[0] if drawn else self.pyramid.levels
        some = self._counts[self._counts > 0]
        self._full = float(np.percentile(some, DENSE)) if some.size else 1.0
        area = self._cell**2 * (store.run.mpp or 1.0) ** 2 / 1e6
        self.scale = self._full / area

    def outlines(self, level: int, x: int, y: int) -> bytes:
        """The outlines of a tile, simplified for its level."""
        factor = self.pyramid.downsample(level)
        left, top, side = x * TILE * factor, y * TILE * factor, TILE * factor
        names = self.store.run.class_names
        columns = ["id", "geometry", *(["class"] if names else [])]
        table = self.store.window(left, top, side + 1, side + 1, columns=[*columns, "x", "y"], centers=True)
        # a centroid on the far edge of the slide belongs to its last tile
        height, width = self.store.run.shape
        right, below = (edge + (edge >= end) for edge, end in ((left + side, width), (top + side, height)))
        inside = (table.column("x").to_numpy() < right) & (table.column("y").to_numpy() < below)
        table = table.take(np.flatnonzero(inside))
        numbers = np.zeros(table.num_rows, np.int32)
        if names:
            numbers = number_names(table.column("class"), names)
        rings = simplify_rings(from_wkb(table.column("geometry")), TOLERANCE * factor)
        moved = (rings.coords.astype(np.float64) - [left, top]) * (STEPS / factor)
        return pack_outlines(table.column("id").to_numpy(), numbers, moved, rings.offsets)

    def density(self, level: int, x: int, y: int) -> bytes:
        """How dense nuclei lie in a tile, as PNG: RGBA, clear where there are none."""
        factor = self.pyramid.downsample(level)
        rows, columns = self.pyramid.tile(level, x, y)
        box = (columns.start, rows.start, columns.stop, rows.stop)
        counts = Image.fromarray(self._counts.astype(np.float32))
        ends = counts.size * 2
        box_cells = tuple(min(edge * factor / self._cell, end) for edge, end in zip(box, ends, strict=True))
        size = columns.stop - columns.start, rows.stop - rows.start
        means = np.asarray(counts.resize(size, Image.Resampling.BILINEAR, box_cells))
        return encode_png(color_numbers(means / self._full), PALETTE)

    def _count(self, cell: int) -> NDArray[np.int64]:
        height, width = (-(-length // cell) for length in self.store.run.shape)
        counts = np.zeros(height * width, np.int64)
        for table in self.store.tables(["x", "y"]):
            column = np.clip(table.column("x").to_numpy() // cell, 0, width - 1).astype(np.int64)
            row = np.clip(table.column("y").to_numpy() // cell, 0, height - 1).astype(np.int64)
            counts += np.bincount(row * width + column, minlength=counts.size)
        return counts.reshape(height, width)

    def _fullest(self, level: int) -> int:
        """Nuclei of the tile of a level that has the most."""
        cells = max(1, TILE * self.pyramid.downsample(level) // self._cell)
        sums = np.add.reduceat(self._counts, np.arange(0, self._counts.shape[0], cells), axis=0)
        return int(np.add.reduceat(sums, np.arange(0, sums.shape[1], cells), axis=1).max())


def simplify_rings(rings: Polygons, tolerance: float) -> Polygons:
    """Rings with fewer points, at least a triangle each: for the eye, they may touch themselves.

    A point that goes was at most `tolerance` px from the line that is left (Douglas & Peucker 1973). A tile of 7,000
    nuclei takes 9 ms; `Polygons.simplified`, whose rings stay valid, fifty times as long.
    """
    kept = _keep_points(rings.coords, rings.offsets, tolerance)
    numbers = np.concatenate([[0], np.cumsum(kept)])
    return Polygons(rings.coords[kept], numbers[rings.offsets].astype(np.int64))


@njit(nogil=True)
def _keep_points(coords: Any, offsets: Any, tolerance: float) -> Any:
    """Which points (P,) of closed rings stay."""
    keep = np.zeros(len(coords), np.bool_)
    stack = np.empty((len(coords) + 3, 2), np.int64)
    for i in range(len(offsets) - 1):
        first, last = offsets[i], offsets[i + 1] - 1
        keep[first] = keep[last] = True
        if last - first <= 3:
            keep[first:last] = True
            continue
        # a ring begins where it ends: the triangle of three points far apart is where to start from
        far, _ = _farthest(coords, first, last, first, first)
        wide, _ = _farthest(coords, first, last, first, far)
        keep[far] = keep[wide] = True
        low, high = min(far, wide), max(far, wide)
        stack[0, 0], stack[0, 1] = first, low
        stack[1, 0], stack[1, 1] = low, high
        stack[2, 0], stack[2, 1] = high, last
        count = 3
        while count:
            count -= 1
            start, stop = stack[count]
            if stop - start < 2:
                continue
            point, distance = _farthest(coords, start, stop, start, stop)
            if distance > tolerance:
                keep[point] = True
                stack[count, 0], stack[count, 1] = start, point
                stack[count + 1, 0], stack[count + 1, 1] = point, stop
                count += 2
    return keep


@njit(nogil=True)
def _farthest(coords: Any, start: int, stop: int, a: int, b: int) -> Any:
    """The point between `start` and `stop` that is farthest from the line from point a to point b, and how far."""
    ax, ay = np.float64(coords[a, 0]), np.float64(coords[a, 1])
    dx, dy = np.float64(coords[b, 0]) - ax, np.float64(coords[b, 1]) - ay
    length = dx * dx + dy * dy
    most, point = -1.0, start + 1
    for k in range(start + 1, stop):
        x, y = np.float64(coords[k, 0]) - ax, np.float64(coords[k, 1]) - ay
        along = min(max((x * dx + y * dy) / length, 0.0), 1.0) if length > 0 else 0.0
        x -= along * dx
        y -= along * dy
        if x * x + y * y > most:
            most, point = x * x + y * y, k
    return point, np.sqrt(most)


def pack_outlines(
    ids: NDArray[np.int64], numbers: NDArray[np.int32], points: NDArray[np.float64], offsets: NDArray[np.int64]
) -> bytes:
    """The bytes of an outline tile: ids and classes (N,), points (P, 2) in 1/8 px, offsets (N + 1,) of closed rings.

    The last point of a ring, which is its first, is left out. Ids are given modulo 2³².
    """
    last = np.zeros(len(points), np.bool_)
    last[offsets[1:] - 1] = True
    left = offsets - np.arange(len(offsets))
    limits = np.iinfo(np.int16)
    content = [
        struct.pack("<II", len(ids), int(left[-1])),
        (ids & 0xFFFFFFFF).astype("<u4").tobytes(),
        np.minimum(numbers, 255).astype(np.uint8).tobytes(),
        bytes(-len(ids) % 4),
        left.astype("<u4").tobytes(),
        np.clip(np.rint(points[~last]), limits.min, limits.max).astype("<i2").tobytes(),
    ]
    return b"".join(content)


def color_numbers(shares: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The numbers in `PALETTE` of shares (H, W) of the full density, from 0; what is above 1 has the color of 1."""
    numbers: NDArray[np.uint8] = np.ceil(np.clip(shares, 0, 1) * 255).astype(np.uint8)
    return numbers


def _palette() -> NDArray[np.uint8]:
    """256 RGBA colors, the first one clear."""
    steps = np.linspace(0, 1, 256)
    at = np.linspace(0, 1, len(COLORS))
    channels = [np.interp(steps, at, channel) for channel in np.transpose(COLORS)]
    palette: NDArray[np.uint8] = np.rint(np.column_stack([*channels, np.interp(steps, (0, 1), OPACITY)])).astype(
        np.uint8
    )
    palette[0] = 0
    return palette


PALETTE = _palette()
