"""Pixel by pixel: target maps of a label map, and the peaks of center maps. Compiled."""

from typing import Any

import numpy as np

from hemalum.compiled import njit

_NONE = np.int32(2**31 - 1)  # above any nucleus's id
RIM = 1.5  # px: pixels of a nucleus nearer than this to a pixel outside it are boundary
STEEP = np.float32(4)  # a center map that falls by 1 / STEEP over three pixels marks a boundary
FAINT = np.float32(0.1)  # no foreground threshold that makes sense is lower


@njit(nogil=True)
def fill_interior_boundary(labels: Any, distance: Any, ids: int, maps: Any) -> None:
    interior, boundary = maps[0], maps[1]
    largest = _largest(labels, distance, ids)
    _mark_between(labels, boundary)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n:
                # a nucleus that is all rim keeps its middle, so that it can still be told from its neighbors
                inner = distance[y, x] > RIM or distance[y, x] == largest[n]
                interior[y, x], boundary[y, x] = inner, not inner


@njit(nogil=True)
def fill_distance(labels: Any, distance: Any, ids: int, maps: Any) -> None:
    foreground, relative = maps[0], maps[1]
    largest = _largest(labels, distance, ids)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n:
                foreground[y, x] = 1.0
                # one nucleus over the whole map has no boundary in sight: infinite distance
                relative[y, x] = distance[y, x] / largest[n] if np.isfinite(largest[n]) else np.float32(1)


@njit(nogil=True)
def fill_center_gradient(labels: Any, ids: int, maps: Any) -> None:
    horizontal, vertical = maps[0], maps[1]
    center, reach = _extents(labels, ids)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n:
                horizontal[y, x] = _part(x - center[n, 0], reach[n, 0], reach[n, 1])
                vertical[y, x] = _part(y - center[n, 1], reach[n, 2], reach[n, 3])


# Takes numbers, not arrays: passing an array on costs more than what is done with its pixel.
@njit(nogil=True)
def _part(offset: Any, before: Any, after: Any) -> Any:
    """An offset from the center as part of how far the nucleus reaches on that side."""
    side = before if offset < 0 else after
    return offset / side if side > 0 else 0.0


@njit(nogil=True)
def _largest(labels: Any, distance: Any, ids: int) -> Any:
    largest = np.zeros(ids, np.float32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n and distance[y, x] > largest[n]:
                largest[n] = distance[y, x]
    return largest


@njit(nogil=True)
def _extents(labels: Any, ids: int) -> Any:
    """Of each nucleus its center, x before y (ids, 2), and how far it reaches left, right, up and down of it."""
    area, center = np.zeros(ids, np.float64), np.zeros((ids, 2), np.float64)
    box = np.empty((ids, 4), np.float64)  # first and last x, first and last y
    box[:] = np.array([np.inf, -np.inf, np.inf, -np.inf])
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n:
                area[n] += 1
                center[n, 0] += x
                center[n, 1] += y
                box[n, 0], box[n, 1] = min(box[n, 0], x), max(box[n, 1], x)
                box[n, 2], box[n, 3] = min(box[n, 2], y), max(box[n, 3], y)
    for n in range(1, ids):
        if area[n]:
            center[n] /= area[n]
            for axis in range(2):
                box[n, 2 * axis] = center[n, axis] - box[n, 2 * axis]
                box[n, 2 * axis + 1] -= center[n, axis]
    return center, box


@njit(nogil=True)
def _mark_between(labels: Any, boundary: Any) -> None:
    """Mark background with pixels of two nuclei or more around it; row by row, in loops that become vector code."""
    height, width = labels.shape
    most, least = np.zeros(width + 2, np.int32), np.full(width + 2, _NONE, np.int32)
    middle = most[1:-1], least[1:-1]
    for y in range(height):
        rows = labels[max(y - 1, 0)], labels[y], labels[min(y + 1, height - 1)]
        for x in range(width):
            above, here, below = rows[0][x], rows[1][x], rows[2][x]
            middle[0][x] = max(above, here, below)
            middle[1][x] = min(above or _NONE, here or _NONE, below or _NONE)
        for x in range(width):
            high, low = max(most[x], most[x + 1], most[x + 2]), min(least[x], least[x + 1], least[x + 2])
            boundary[y, x] = np.float32(rows[1][x] == 0 and low < high)


@njit(nogil=True)
def fill_center_peaks(foreground: Any, horizontal: Any, vertical: Any, peaks: Any) -> None:
    """1 at the center of a nucleus, 0 on its boundary and wherever a map falls instead of rising.

    HoVer-Net takes a wide Sobel filter scaled to each tile's extremes, which depends on the tile; this rule
    looks one pixel around. The fall matters between touching nuclei: there a map turns from 1 to -1, and the
    0 on the way would look like a center; inside a nucleus there is none. Towards the background maps fade
    with the foreground, so they are divided by it. Pixels fainter than FAINT stay 0.
    """
    height, width = horizontal.shape
    for y in range(height):
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            if foreground[y, x] < FAINT:
                continue
            h, v = horizontal[y, x], vertical[y, x]
            left, right = horizontal[y, max(x - 1, 0)], horizontal[y, min(x + 1, width - 1)]
            fall_h = max(left, h) - min(h, right)
            fall_v = max(vertical[up, x], v) - min(v, vertical[down, x])
            edge = max(abs(h), abs(v), STEEP * max(fall_h, fall_v))
            peaks[y, x] = max(np.float32(0), 1 - edge / foreground[y, x])
