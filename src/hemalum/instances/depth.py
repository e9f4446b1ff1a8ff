"""How deep each pixel lies in its nucleus: the distance to the nearest pixel outside, for whole label maps."""

from typing import Any

import edt
import numpy as np
from numba import njit
from numpy.typing import NDArray

_DEEP = 64  # px: below, searching is faster than the library's lower envelope, and it skips the background
_FAR = 30_000  # px: no pixel outside in this column


def measure_depth(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Exact Euclidean distance (H, W) float32, px, to the nearest pixel with another label; 0 on background.

    `labels` is (H, W) int32 with 0 = background. Beyond the edge of the map everything goes on: a nucleus that
    fills the map is infinitely deep. Separable (Meijster et al. 2000): columns first, then a search along rows,
    which ends as soon as no farther pixel can be nearer.
    """
    if labels.size == 0:
        return np.zeros(labels.shape, np.float32)
    column = np.empty(labels.shape, np.int32)
    if _column_depth(labels, column) > _DEEP:
        deep: NDArray[np.float32] = edt.edt(labels, black_border=False, parallel=1)
        return deep
    depth = np.zeros(labels.shape, np.float32)
    _depth(labels, column, depth)
    return depth


@njit(cache=True, nogil=True)
def _column_depth(labels: Any, column: Any) -> int:
    """Fill in the distance to another label in the same column; gives the largest on a nucleus."""
    height, width = labels.shape
    for x in range(width):
        column[0, x] = _FAR
    for y in range(1, height):
        for x in range(width):
            column[y, x] = min(column[y - 1, x] + 1, _FAR) if labels[y, x] == labels[y - 1, x] else 1
    largest = 0
    for y in range(height - 1, -1, -1):
        for x in range(width):
            if y < height - 1:
                below = column[y + 1, x] + 1 if labels[y, x] == labels[y + 1, x] else 1
                column[y, x] = min(column[y, x], below)
            if labels[y, x]:
                largest = max(largest, column[y, x])
    return largest


@njit(cache=True, nogil=True)
def _depth(labels: Any, column: Any, depth: Any) -> None:
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label == 0:
                continue
            best = column[y, x] * column[y, x]
            for away in range(1, width):
                if away * away >= best:
                    break
                for other in (x - away, x + away):
                    if 0 <= other < width:
                        beside = column[y, other] * column[y, other] if labels[y, other] == label else 0
                        best = min(best, beside + away * away)
            depth[y, x] = np.sqrt(np.float32(best))
