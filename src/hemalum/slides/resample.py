"""Resampling an image window by window, with exactly the pixels that resampling it whole gives.

The triangle filter widened by the shrinking factor, as Pillow's `Image.resize(size, BILINEAR)` has it and as
the training images were made with. The weights of a target row or column follow from the sizes of the whole
images alone, and every target pixel is summed in one order, so cutting the image in windows changes nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.compiled import njit

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Along one axis: target pixel i is the sum of `values[i, k] * source[first[i] + k]`, k < count[i]."""

    first: NDArray[np.int64]
    count: NDArray[np.int64]
    values: NDArray[np.float32]


def triangle_weights(source: int, target: int) -> Weights:
    """Weights of the triangle filter from `source` to `target` pixels, antialiased when shrinking."""
    scale = source / target
    support = max(scale, 1.0)
    center = (np.arange(target) + 0.5) * scale
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    count = np.minimum((center + support + 0.5).astype(np.int64), source) - first
    taps = np.arange(int(count.max()))
    distance = np.abs(first[:, None] + taps + 0.5 - center[:, None]) / support
    values = np.where(taps < count[:, None], np.maximum(1 - distance, 0), 0)
    values /= values.sum(axis=1, keepdims=True)
    return Weights(first, count, values.astype(np.float32))


class Resampler:
    """Resamples an image of (H, W) px to (h, w) px, in windows of the target; equal sizes cost nothing."""

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        self.source, self.target = source, target
        self.identity = source == target
        self._rows = triangle_weights(source[0], target[0])
        self._columns = triangle_weights(source[1], target[1])

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Source rows that the target rows start..stop are made of."""
        return (start, stop) if self.identity else _needs(self._rows, start, stop)

    def needs_columns(self, start: int, stop: int) -> tuple[int, int]:
        """Source columns that the target columns start..stop are made of."""
        return (start, stop) if self.identity else _needs(self._columns, start, stop)

    def rows(self, pixels: Image, start: int, stop: int) -> Image:
        """Target rows start..stop, (stop - start, w, 3) uint8, from `pixels`, the rows that `needs` names."""
        return self.window(pixels, slice(start, stop), slice(0, self.target[1]))

    def window(self, pixels: Image, rows: slice, columns: slice) -> Image:
        """Target window (rows, columns, 3) uint8 from `pixels`, which `needs` and `needs_columns` name."""
        if self.identity:
            return pixels
        result = np.empty((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)
        down, across = self._rows, self._columns
        _resample(
            np.ascontiguousarray(pixels).reshape(len(pixels), -1),
            down.first[rows] - down.first[rows.start],
            down.count[rows],
            down.values[rows],
            across.first[columns] - across.first[columns.start],
            across.count[columns],
            across.values[columns],
            result,
        )
        return result


def _needs(weights: Weights, start: int, stop: int) -> tuple[int, int]:
    return int(weights.first[start]), int(weights.first[stop - 1] + weights.count[stop - 1])


@njit(nogil=True)
def _resample(
    pixels: Any, row: Any, rows: Any, row_weight: Any, column: Any, columns: Any, weight: Any, result: Any
) -> None:
    line = np.empty(pixels.shape[1], np.float32)
    half = np.float32(0.5)
    for y in range(result.shape[0]):
        line[:] = 0
        for k in range(rows[y]):
            w = row_weight[y, k]
            source = pixels[row[y] + k]
            for i in range(line.size):
                line[i] += w * np.float32(source[i])
        for x in range(result.shape[1]):
            red = green = blue = half
            index = 3 * column[x]
            for k in range(columns[x]):
                w = weight[x, k]
                red += w * line[index]
                green += w * line[index + 1]
                blue += w * line[index + 2]
                index += 3
            # weights sum to 1 within rounding, so 255 may come out as 255.49999 + 0.5
            result[y, x, 0] = np.uint8(min(red, np.float32(255)))
            result[y, x, 1] = np.uint8(min(green, np.float32(255)))
            result[y, x, 2] = np.uint8(min(blue, np.float32(255)))
