"""Pixel by pixel: target maps of a label map, and the peaks of centre maps. Compiled."""

from typing import Any

import numpy as np
from numba import njit

RIM = 1.5  # px: pixels of a nucleus nearer than this to a pixel outside it are boundary
STEEP = np.float32(4)  # a centre map that falls by 1 / STEEP over three pixels marks a boundary
FAINT = np.float32(0.1)  # no foreground threshold that makes sense is lower


@njit(cache=True, nogil=True)
def _largest(labels: Any, distance: Any, ids: int) -> Any:
    largest = np.zeros(ids, np.float32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n and distance[y, x] > largest[n]:
                largest[n] = distance[y, x]
    return largest


@njit(cache=True, nogil=True)
def fill_interior_boundary(labels: Any, distance: Any, ids: int, interior: Any, boundary: Any) -> None:
    height, width = labels.shape
    largest = _largest(labels, distance, ids)
    beside = np.zeros(labels.shape, np.int32)  # a nucleus beside this background pixel
    for y in range(height):
        for x in range(width):
            n = labels[y, x]
            if n == 0:
                continue
            if distance[y, x] > RIM:
                interior[y, x] = 1.0
                continue
            # a nucleus that is all rim keeps its middle, so that it can still be told from its neighbours
            if distance[y, x] == largest[n]:
                interior[y, x] = 1.0
            else:
                boundary[y, x] = 1.0
            for v in range(max(y - 1, 0), min(y + 2, height)):
                for u in range(max(x - 1, 0), min(x + 2, width)):
                    if labels[v, u] == 0:
                        if beside[v, u] == 0:
                            beside[v, u] = n
                        elif beside[v, u] != n:
                            boundary[v, u] = 1.0


@njit(cache=True, nogil=True)
def fill_distance(labels: Any, distance: Any, ids: int, foreground: Any, relative: Any) -> None:
    largest = _largest(labels, distance, ids)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n:
                foreground[y, x] = 1.0
                # one nucleus over the whole map has no boundary in sight: infinite distance
                relative[y, x] = distance[y, x] / largest[n] if np.isfinite(largest[n]) else 1.0


@njit(cache=True, nogil=True)
def fill_centre_gradient(labels: Any, ids: int, horizontal: Any, vertical: Any) -> None:
    height, width = labels.shape
    area = np.zeros(ids, np.float64)
    centre = np.zeros((ids, 2), np.float64)
    for y in range(height):
        for x in range(width):
            n = labels[y, x]
            if n:
                area[n] += 1
                centre[n, 0] += x
                centre[n, 1] += y
    reach = np.zeros((ids, 4), np.float64)  # left, right, up, down of the centre
    for n in range(1, ids):
        if area[n]:
            centre[n] /= area[n]
    for y in range(height):
        for x in range(width):
            n = labels[y, x]
            if n:
                reach[n, 0] = max(reach[n, 0], centre[n, 0] - x)
                reach[n, 1] = max(reach[n, 1], x - centre[n, 0])
                reach[n, 2] = max(reach[n, 2], centre[n, 1] - y)
                reach[n, 3] = max(reach[n, 3], y - centre[n, 1])
    for y in range(height):
        for x in range(width):
            n = labels[y, x]
            if n:
                dx, dy = x - centre[n, 0], y - centre[n, 1]
                side = reach[n, 0] if dx < 0 else reach[n, 1]
                horizontal[y, x] = dx / side if side > 0 else 0.0
                side = reach[n, 2] if dy < 0 else reach[n, 3]
                vertical[y, x] = dy / side if side > 0 else 0.0


@njit(cache=True, nogil=True)
def fill_centre_peaks(foreground: Any, horizontal: Any, vertical: Any, peaks: Any) -> None:
    """1 at the centre of a nucleus, 0 on its boundary and wherever a map falls instead of rising.

    HoVer-Net takes a wide Sobel filter scaled to each tile's extremes, which depends on the tile; this rule
    looks one pixel around. The fall matters between touching nuclei: there a map turns from 1 to -1, and the
    0 on the way would look like a centre; inside a nucleus there is none. Towards the background maps fade
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
