"""Windows of one size: how an image is cut for a model whose every pixel depends on the whole input.

Such a network (global pooling, attention, one input size) sees in use what it saw in training: windows of the
training crop's side. Neighbors overlap by two halos at least, and each answers for the pixels up to the middle of
the overlap. Where the windows lie follows from the image's size alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Span:
    """Along one axis: start..stop is read, core_start..core_stop is answered for."""

    start: int
    stop: int
    core_start: int
    core_stop: int


def window_halo(window: int, stride: int, reach: int = 0) -> int:
    """What a window sees at least around its core, px: an eighth of it up to whole strides, at most a quarter.

    `reach` is how far around a pixel its peak depends on, by which seams would show.
    """
    eighth = round(window / 8 / stride) * stride
    return min(max(eighth, stride, reach), window // 4)


def cut_windows(length: int, window: int, halo: int) -> list[Span]:
    """Cut 0..length px into the fewest spans of exactly `window` px that overlap by 2 · halo at least, evenly.

    Where the axis is shorter than a window, the one span goes beyond its end.
    """
    if length <= window:
        return [Span(0, window, 0, length)]
    parts = -(-(length - 2 * halo) // (window - 2 * halo))
    starts = [index * (length - window) // (parts - 1) for index in range(parts)]
    edges = [0, *((one + window + other) // 2 for one, other in pairwise(starts)), length]
    return [
        Span(start, start + window, core, core_stop)
        for start, (core, core_stop) in zip(starts, pairwise(edges), strict=True)
    ]


def missing(shape: tuple[int, int], window: int) -> tuple[int, int]:
    """Rows and columns that an image of (h, w) px lacks for one window; it is mirrored there, as in training."""
    return max(0, window - shape[0]), max(0, window - shape[1])


def stitch(
    shape: tuple[int, int],
    window: int,
    halo: int,
    run: Callable[[Span, Span], NDArray[np.float32]],
    upsampling: int = 1,
) -> NDArray[np.float32]:
    """Maps (C, h · upsampling, w · upsampling) of a small image of (h, w) px out of those of its windows.

    `run` takes a window's rows and columns, beyond the image where that is smaller than a window, and returns its
    maps (C, window · upsampling, window · upsampling).
    """

    def core(rows: Span, columns: Span) -> NDArray[np.float32]:
        high, wide = (
            slice((span.core_start - span.start) * upsampling, (span.core_stop - span.start) * upsampling)
            for span in (rows, columns)
        )
        return run(rows, columns)[:, high, wide].copy()  # a view would hold the window, halo and all

    down, across = (cut_windows(length, window, halo) for length in shape)
    return np.block([[core(rows, columns) for columns in across] for rows in down])
