"""Maps that are high in the middle of nuclei, made ready for separation: a small blur, and depth by distance.

The blur keeps chromatin and noise from making maxima of their own. Depth is how far each pixel lies from the nearest
one outside its nucleus, for full label maps.
"""

from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from hemalum.compiled import njit

Float = NDArray[np.float32]
Labels = NDArray[np.int32]

_DEEP = 64  # px: below, searching is faster than the library's lower envelope, and it skips the background
_FAR = 30_000  # px: no pixel outside in this column


def smooth(peaks: Float, rounds: int) -> Float:
    """Give `peaks` (H, W) float32 blurred `rounds` times with 1 2 1 along rows and columns, edges repeated.

    A value depends on `rounds` px around it and is the same to the last bit in any window that holds these. The
    standard deviation is √(rounds / 2) px.
    """
    blurred = np.array(peaks, np.float32, order="C")
    if blurred.size:
        _blur(blurred, np.empty_like(blurred), rounds)
    return blurred


@njit(nogil=True)
def _blur(values: Any, row_blurred: Any, rounds: int) -> None:
    height, width = values.shape
    half, quarter = np.float32(0.5), np.float32(0.25)
    for _ in range(rounds):
        for y in range(height):
            # the loop along the row has no condition in it, so that it becomes vector instructions
            for x in range(1, width - 1):
                row_blurred[y, x] = half * values[y, x] + quarter * (values[y, x - 1] + values[y, x + 1])
            for x in (0, width - 1):
                left, right = values[y, max(x - 1, 0)], values[y, min(x + 1, width - 1)]
                row_blurred[y, x] = half * values[y, x] + quarter * (left + right)
        for y in range(height):
            up, down = max(y - 1, 0), min(y + 1, height - 1)
            for x in range(width):
                values[y, x] = half * row_blurred[y, x] + quarter * (row_blurred[up, x] + row_blurred[down, x])


def measure_depth(labels: Labels) -> Float:
    """Exact Euclidean distance (H, W) float32, px, to the nearest pixel with another label; 0 on background.

    `labels` is (H, W) int32 with 0 = background. Beyond the edge of the map everything goes on: a nucleus that
    fills the map is infinitely deep. Separable (Meijster et al. 2000): columns first, then a search along rows,
    which ends as soon as no farther pixel can be nearer.
    """
    if labels.size == 0:
        return np.zeros(labels.shape, np.float32)
    column = np.empty(labels.shape, np.int32)
    if _measure_columns(labels, column) > _DEEP:
        deep: Float = edt.edt(labels, black_border=False, parallel=1)
        return deep
    depth = np.zeros(labels.shape, np.float32)
    _search_rows(labels, column, depth)
    return depth


@njit(nogil=True)
def _measure_columns(labels: Any, column: Any) -> int:
    """Fill in the distance to another label in the same column; return the largest on a nucleus."""
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


@njit(nogil=True)
def _search_rows(labels: Any, column: Any, depth: Any) -> None:
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label == 0:
                continue
            best = column[y, x] * column[y, x]
            for offset in range(1, width):
                if offset * offset >= best:
                    break
                for x_other in (x - offset, x + offset):
                    if 0 <= x_other < width:
                        squared = column[y, x_other] * column[y, x_other] if labels[y, x_other] == label else 0
                        best = min(best, squared + offset * offset)
            depth[y, x] = np.sqrt(np.float32(best))
