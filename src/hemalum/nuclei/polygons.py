"""Label map → outlines of all nuclei in one compiled pass, and back.

The boundary of a 4-connected set of pixels is walked along the pixel edges, with the set on the right. A
ring is either these edges themselves (area equal to the pixel count) or the line through the middles of
the edges, which has no stairs, is half a pixel smaller in area, and gives the same pixels back when it is
filled. With the map of probability at hand, that line is moved
between the two pixel centers to where the probability crosses the threshold (marching squares, Lorensen &
Cline 1987, nucleus by nucleus): an outline found at a coarse scale then fits at a fine one. Filling is by pixel
center; pixel (row, column) covers [column, column + 1) × [row, row + 1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
import shapely
from numpy.typing import NDArray

from hemalum.compiled import njit
from hemalum.errors import HemalumError
from hemalum.settings import as_number

PINCH = 1 / 64  # px cut off a corner where a ring would touch itself; exact in float32 up to 131,072 px


@dataclass(frozen=True, slots=True, eq=False)
class Polygons:
    """Closed exterior rings as ragged arrays: ring i is `coords[offsets[i]:offsets[i + 1]]`.

    `coords` (M, 2) float32 x, y in px, last point = first; `offsets` (N + 1,) int64.
    """

    coords: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def scaled(self, x: float, y: float) -> "Polygons":
        """Give the same rings with x and y multiplied, for a grid at another scale."""
        if x == 1 and y == 1:
            return self
        return Polygons((self.coords * np.array([x, y])).astype(np.float32), self.offsets)

    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give least and greatest x, y of each ring, (N, 2) float32 each."""
        if len(self) == 0:
            return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
        starts = self.offsets[:-1]
        return np.minimum.reduceat(self.coords, starts), np.maximum.reduceat(self.coords, starts)

    def take(self, order: NDArray[np.int64]) -> "Polygons":
        """Give the rings at these positions, in this order."""
        length = np.diff(self.offsets)[order]
        offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        source = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][order] - offsets[:-1], length)
        return Polygons(self.coords[source], offsets)

    def shapely(self) -> NDArray[np.object_]:
        """Give N shapely polygons."""
        rings: NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON,
            self.coords.astype(np.float64),
            (self.offsets, np.arange(len(self) + 1)),
        )
        return rings

    def simplified(self, tolerance: float) -> "Polygons":
        """Drop points not farther than `tolerance` px from the line that is left; rings stay valid.

        Douglas & Peucker 1973 from the first point of a ring, which stays. Raises HemalumError as `check_tolerance`.
        """
        if check_tolerance(tolerance) == 0 or len(self) == 0:
            return self
        # of a polygon GEOS also drops the first point, without a look at what it dropped beside that: twice as far
        rings = shapely.from_ragged_array(
            shapely.GeometryType.LINESTRING, self.coords.astype(np.float64), (self.offsets,)
        )
        kept = shapely.simplify(rings, tolerance, preserve_topology=True)
        _, coords, (offsets,) = shapely.to_ragged_array(kept, include_z=False)
        return Polygons(coords.astype(np.float32), offsets.astype(np.int64))

    @staticmethod
    def joined(parts: "list[Polygons]") -> "Polygons":
        """Give the rings of all parts, one part after the other."""
        if not parts:
            return Polygons(np.zeros((0, 2), np.float32), np.zeros(1, np.int64))
        starts = np.cumsum([0] + [len(part.coords) for part in parts])
        offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=False)]
        return Polygons(np.concatenate([part.coords for part in parts]), np.concatenate([*offsets, starts[-1:]]))


def check_tolerance(tolerance: float) -> float:
    """Give px by which outlines may be moved back, or raise HemalumError where it is no such number."""
    tolerance = as_number(tolerance, "simplify")
    if not isinstance(tolerance, int | float):
        raise HemalumError(f"simplify is {tolerance!r}: want one number")
    if not 0 <= tolerance < float("inf"):
        raise HemalumError(f"--simplify is {tolerance:g}: want px by which an outline may be moved, 0 or more")
    return tolerance


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """What one walk round each nucleus gives.

    `ids` (N,) int32 in raster order of first pixel; `first` (N, 2) int32 row and column of that pixel,
    where the label map's own first pixel is at `origin`; `perimeter` (N,) float64 px by Crofton's formula
    in four directions; `hull_area` (N,) float64 px² of the convex hull of the middles of the edges.
    """

    polygons: Polygons
    ids: NDArray[np.int32]
    first: NDArray[np.int32]
    perimeter: NDArray[np.float64]
    hull_area: NDArray[np.float64]
    origin: tuple[int, int] = (0, 0)


def trace(
    labels: NDArray[np.int32],
    probability: NDArray[np.float32] | None = None,
    threshold: float = 0.5,
    *,
    smooth: bool = True,
    origin: tuple[int, int] = (0, 0),
) -> Outlines:
    """Give the exterior outline of every label of (H, W) integer, 0 = background.

    A label is one 4-connected piece (of one in several pieces, the piece with the first pixel is walked);
    holes are not outlined. `smooth` takes the line through the middles of the pixel edges; with `probability`
    (H, W) float32, the line where it crosses `threshold` between a nucleus and background. `origin` is the row
    and column of labels[0, 0] in the coordinates given back. Raises HemalumError when not 2-D, ids are
    negative, or the two maps differ in shape.
    """
    if labels.ndim != 2:
        raise HemalumError(f"label map must be (H, W), not {labels.shape}")
    if labels.size and int(labels.min()) < 0:
        raise HemalumError("label map has negative ids; 0 is background and nuclei count from 1")
    dense = np.ascontiguousarray(labels, np.int32)
    size = int(dense.max()) + 1 if dense.size else 1
    ids, first = first_pixels(dense, size)
    if probability is None:
        probability = np.zeros((0, 0), np.float32)
    elif probability.shape != labels.shape:
        raise HemalumError(f"label map is {labels.shape} and the map of probability {probability.shape}")
    dense_probability = np.ascontiguousarray(probability, np.float32)
    coords, offsets, perimeter, hull = _walk_all(dense, ids, first, smooth, dense_probability, np.float32(threshold))
    row, column = origin
    if row or column:
        coords += np.array([column, row], np.float32)
        first += np.array([row, column], np.int32)
    return Outlines(Polygons(coords, offsets), ids, first, perimeter, hull, origin)


def fill(
    polygons: Polygons, shape: tuple[int, int], ids: NDArray[np.uint32] | None = None, *, top: int = 0
) -> NDArray[np.uint32]:
    """Give the label map (H, W) uint32 of the pixels whose center is inside; later rings over earlier ones.

    `ids` (N,) are the values drawn, 1..N by default. `top` is the row of the image that labels[0] is of.
    """
    labels = np.zeros(shape, np.uint32)
    values = np.arange(1, len(polygons) + 1, dtype=np.uint32) if ids is None else ids.astype(np.uint32)
    _fill(polygons.coords, polygons.offsets, values, labels, top)
    return labels


def fill_rows(
    polygons: Polygons, width: int, ids: NDArray[np.uint32] | None = None
) -> Callable[[int, int], NDArray[np.uint32]]:
    """What draws rows start..stop of the label map of `width` px that `fill` gives, without drawing the others."""
    low, high = polygons.bounds()
    values = np.arange(1, len(polygons) + 1, dtype=np.uint32) if ids is None else ids

    def draw(start: int, stop: int) -> NDArray[np.uint32]:
        near = np.flatnonzero((low[:, 1] < stop) & (high[:, 1] > start))
        return fill(polygons.take(near), (stop - start, width), values[near], top=start)

    return draw


def split_pieces(labels: NDArray[Any]) -> NDArray[np.int32]:
    """Give the 4-connected pieces of every label of (H, W) integer as labels of their own, 1..N, raster order."""
    if labels.size == 0:
        return np.zeros(labels.shape, np.int32)
    # of a bool array one row high cc3d underestimates how many labels there may be
    ids = np.ascontiguousarray(labels.view(np.uint8) if labels.dtype == bool else labels)
    return cc3d.connected_components(ids, connectivity=4, out_dtype=np.uint32).astype(np.int32)


@njit(nogil=True)
def first_pixels(labels: Any, size: int) -> Any:
    """Ids below `size` in raster order of their first pixel, and row and column of that."""
    seen = np.zeros(size, np.bool_)
    seen[0] = True
    ids = np.empty(size, np.int32)
    first = np.empty((size, 2), np.int32)
    count = 0
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n and not seen[n]:
                seen[n] = True
                ids[count] = n
                first[count, 0] = y
                first[count, 1] = x
                count += 1
    return ids[:count].copy(), first[:count].copy()


@njit(nogil=True, inline="always")
def _holds(labels: Any, y: int, x: int, n: int) -> bool:
    return bool(0 <= y < labels.shape[0] and 0 <= x < labels.shape[1] and labels[y, x] == n)


@njit(nogil=True)
def _find_crossing(labels: Any, probability: Any, threshold: Any, y: int, x: int, v: int, u: int) -> float:
    """How far from the middle of the edge the line lies, towards the outer pixel (v, u), in px: -0.45 to 0.45.

    0 where the outer pixel is beyond the map or another nucleus, and where the two
    do not straddle the threshold (a filled hole, a dropped speck).
    """
    if not (0 <= v < labels.shape[0] and 0 <= u < labels.shape[1]) or labels[v, u] != 0:
        return 0.0
    inside, outside = probability[y, x], probability[v, u]
    if outside < 0 or outside >= threshold or inside < threshold:
        return 0.0
    share = (inside - threshold) / (inside - outside)
    # in 1/64 px, like PINCH: an outline must not depend, in its last bit, on the band that it is traced in
    return float(round(64 * min(max(share - 0.5, -0.45), 0.45)) / 64)


@njit(nogil=True)
def _walk_all(labels: Any, ids: Any, first: Any, smooth: bool, probability: Any, threshold: Any) -> Any:
    count = ids.size
    coords = np.empty((64 * count + 64, 2), np.float32)
    offsets = np.zeros(count + 1, np.int64)
    perimeter = np.empty(count, np.float64)
    hull = np.empty(count, np.float64)
    # leftmost and rightmost boundary point at each half row, in half px: hull candidates sorted by y
    left = np.full(2 * labels.shape[0] + 2, 2**30, np.int64)
    right = np.full(2 * labels.shape[0] + 2, -(2**30), np.int64)
    chain = np.empty((4 * labels.shape[0] + 8, 2), np.int64)
    dx = (1, 0, -1, 0)
    dy = (0, 1, 0, -1)
    # pixels ahead of a corner, to the right and to the left of the way, for east, south, west, north
    rx, ry = (0, -1, -1, 0), (0, 0, -1, -1)
    lx, ly = (0, 0, -1, -1), (-1, 0, 0, -1)
    exact = smooth and probability.size > 0
    size = 0
    for i in range(count):
        n, y0, x0 = ids[i], first[i, 0], first[i, 1]
        x, y, way = x0, y0, 0
        before_x, before_y = 1, -1  # the ring reaches its first edge from the left side of its first pixel
        edges = diagonals = 0
        bottom = 0
        begin = size
        while True:
            if size + 3 > coords.shape[0]:
                coords = np.concatenate((coords, np.empty_like(coords)))
            mx, my = 2 * x + dx[way], 2 * y + dy[way]
            k = my - 2 * y0
            shift = 0.0
            if exact:
                shift = _find_crossing(
                    labels, probability, threshold, y + ry[way], x + rx[way], y + ly[way], x + lx[way]
                )
            outward_x, outward_y = lx[way] - rx[way], ly[way] - ry[way]
            left[k] = min(left[k], mx - 2 * x0)
            right[k] = max(right[k], mx - 2 * x0)
            bottom = max(bottom, k)
            x += dx[way]
            y += dy[way]
            edges += 1
            on_right = _holds(labels, y + ry[way], x + rx[way], n)
            on_left = _holds(labels, y + ly[way], x + lx[way], n)
            turned = way
            if not on_right:
                turned = (way + 1) % 4
                if not on_left:
                    diagonals += 1
            elif on_left:
                turned = (way + 3) % 4
                diagonals += 1
            else:
                diagonals += 2
            if smooth:
                after_x, after_y = dx[way] + dx[turned], dy[way] + dy[turned]
                if exact or after_x != before_x or after_y != before_y:
                    coords[size, 0] = 0.5 * mx + shift * outward_x
                    coords[size, 1] = 0.5 * my + shift * outward_y
                    size += 1
                before_x, before_y = after_x, after_y
            elif turned != way:
                if on_left and not on_right:
                    # a corner that the ring passes twice: both passes stay clear of it
                    coords[size, 0] = x - PINCH * dx[way]
                    coords[size, 1] = y - PINCH * dy[way]
                    coords[size + 1, 0] = x + PINCH * dx[turned]
                    coords[size + 1, 1] = y + PINCH * dy[turned]
                    size += 2
                else:
                    coords[size, 0] = x
                    coords[size, 1] = y
                    size += 1
            way = turned
            if x == x0 and y == y0:
                break
        coords[size] = coords[begin]
        size += 1
        offsets[i + 1] = size
        perimeter[i] = np.pi / 8 * (edges + diagonals / np.sqrt(2.0))
        hull[i] = _measure_hull(left, right, bottom, chain)
        left[: bottom + 1] = 2**30
        right[: bottom + 1] = -(2**30)
    return coords[:size].copy(), offsets, perimeter, hull


@njit(nogil=True)
def _measure_hull(left: Any, right: Any, bottom: int, chain: Any) -> float:
    """Area in px² between the two convex chains over points in half px (Andrew's monotone chain, by row)."""
    twice = 0
    for side in range(2):
        sign = 1 if side == 0 else -1
        count = 0
        for k in range(bottom + 1):
            u = left[k] if side == 0 else right[k]
            if abs(u) == 2**30:
                continue
            while count > 1:
                ux, uy = chain[count - 1, 0] - chain[count - 2, 0], chain[count - 1, 1] - chain[count - 2, 1]
                if sign * (ux * (k - chain[count - 2, 1]) - uy * (u - chain[count - 2, 0])) < 0:
                    break
                count -= 1
            chain[count, 0] = u
            chain[count, 1] = k
            count += 1
        for j in range(count - 1):
            twice -= sign * (chain[j, 0] + chain[j + 1, 0]) * (chain[j + 1, 1] - chain[j, 1])
    return twice / 8.0


@njit(nogil=True)
def _fill(coords: Any, offsets: Any, values: Any, labels: Any, top: int) -> None:
    height, width = labels.shape
    crossings = np.empty(256, np.float64)
    for i in range(offsets.size - 1):
        a, b = offsets[i], offsets[i + 1]
        if b - a < 3:
            continue
        if b - a > crossings.size:
            crossings = np.empty(2 * (b - a), np.float64)
        low, high = coords[a, 1], coords[a, 1]
        for j in range(a, b):
            low = min(low, coords[j, 1])
            high = max(high, coords[j, 1])
        for y in range(max(top, int(np.ceil(low - 0.5))), min(top + height, int(np.ceil(high - 0.5)))):
            center = y + 0.5
            count = 0
            for j in range(a, b - 1):
                v0, v1 = np.float64(coords[j, 1]), np.float64(coords[j + 1, 1])
                if (v0 <= center) != (v1 <= center):
                    u0, u1 = np.float64(coords[j, 0]), np.float64(coords[j + 1, 0])
                    crossings[count] = u0 + (center - v0) * (u1 - u0) / (v1 - v0)
                    count += 1
            crossings[:count].sort()
            for j in range(0, count - 1, 2):
                start = max(0, int(np.ceil(crossings[j] - 0.5)))
                stop = min(width, int(np.ceil(crossings[j + 1] - 0.5)))
                for x in range(start, stop):
                    labels[y - top, x] = values[i]
