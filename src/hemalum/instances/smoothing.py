"""A small blur of the peaks, so that chromatin and noise do not make maxima of their own."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float = NDArray[np.float32]


def smooth(peaks: Float, rounds: int) -> Float:
    """Give `peaks` (H, W) float32 blurred `rounds` times with 1 2 1 along rows and columns, edges repeated.

    A value depends on `rounds` px around it and is the same to the last bit in any window that holds these. The
    standard deviation is √(rounds / 2) px.
    """
    blurred = np.array(peaks, np.float32, order="C")
    if blurred.size:
        _blur(blurred, np.empty_like(blurred), rounds)
    return blurred


@njit(cache=True, nogil=True)
def _blur(values: Any, between: Any, rounds: int) -> None:
    height, width = values.shape
    half, quarter = np.float32(0.5), np.float32(0.25)
    for _ in range(rounds):
        for y in range(height):
            # the loop along the row has no condition in it, so that it becomes vector instructions
            for x in range(1, width - 1):
                between[y, x] = half * values[y, x] + quarter * (values[y, x - 1] + values[y, x + 1])
            for x in (0, width - 1):
                left, right = values[y, max(x - 1, 0)], values[y, min(x + 1, width - 1)]
                between[y, x] = half * values[y, x] + quarter * (left + right)
        for y in range(height):
            up, down = max(y - 1, 0), min(y + 1, height - 1)
            for x in range(width):
                values[y, x] = half * between[y, x] + quarter * (between[up, x] + between[down, x])
