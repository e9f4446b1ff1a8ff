"""Maps of an image, band by band: rows are read, brought to the model's scale, cut in windows and run.

Whatever the network predicts, two maps are kept of it: the foreground and the peaks that separation needs. They
follow from a neighbourhood of at most a pixel, by which the halo is wider.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemalum.data.stain_normalisation import StainMap
from hemalum.inference.engine import Engine
from hemalum.inference.image import ImageSource
from hemalum.inference.resample import Resampler
from hemalum.inference.tiles import Grid, Span, plan
from hemalum.instances.representations import Representation

Maps = NDArray[np.float32]
Pixels = NDArray[np.uint8]

WINDOW_AREA = 5_000_000  # px that the network sees at once, over all windows at work; about 100 bytes each
BAND_AREA = 8_000_000  # px of a band on the separation grid; two are held, 11 bytes per px


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Rows start..stop of the image at the model's scale.

    `image` (stop - start, w, 3) uint8; `maps` (2, (stop - start)·enlarge, w·enlarge) float32: foreground, peaks.
    """

    start: int
    stop: int
    image: Pixels
    maps: Maps


def plan_windows(shape: tuple[int, int], *, halo: int, stride: int, enlarge: int, parallel: int = 1) -> Grid:
    """Windows for an image of (h, w) px at the model's scale; see `tiles.plan`."""
    height, width = (size + -size % stride for size in shape)
    return plan(
        height,
        width,
        halo=halo + -halo % stride,
        stride=stride,
        area=WINDOW_AREA // parallel,
        band_area=BAND_AREA // enlarge**2,
    )


def bands(
    source: ImageSource,
    engine: Engine,
    representation: Representation,
    shape: tuple[int, int],
    grid: Grid,
    *,
    stride: int,
    enlarge: int,
    stain: StainMap | None = None,
) -> Iterator[Band]:
    """Give the bands of `grid` from top to bottom for the image resampled to `shape` (h, w).

    With `stain` the network sees other colours; those of the bands are the image's own.
    While a band is with the caller, the engine works on the next one.
    """

    def run(image: Pixels, span: Span, column: Span, band: Band) -> None:
        window = representation.reader(engine.maps(image[None, :, column.start : column.stop])[0])
        left, right = column.core_start, min(column.core_stop, shape[1])
        for target, source in zip(band.maps, window, strict=True):
            target[:, left * enlarge : right * enlarge] = source[
                (band.start - span.start) * enlarge : (band.stop - span.start) * enlarge,
                (left - column.start) * enlarge : (right - column.start) * enlarge,
            ]

    rows = _Rows(source, shape, stride)
    with ThreadPoolExecutor(engine.parallel, thread_name_prefix="engine") as pool:
        waiting: deque[tuple[Band, list[Future[None]]]] = deque()
        try:
            for span in grid.rows:
                image = rows.read(span)
                start, stop = span.core_start, min(span.core_stop, shape[0])
                maps = np.empty((2, (stop - start) * enlarge, shape[1] * enlarge), np.float32)
                band = Band(start, stop, image[start - span.start : stop - span.start, : shape[1]], maps)
                seen = image if stain is None else stain.apply(image)
                waiting.append((band, [pool.submit(run, seen, span, column, band) for column in grid.columns]))
                if len(waiting) > 1:
                    yield _wait(*waiting.popleft())
            while waiting:
                yield _wait(*waiting.popleft())
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def _wait(band: Band, futures: list[Future[None]]) -> Band:
    for future in futures:
        future.result()
    return band


class _Rows:
    """Rows at the model's scale, padded to whole strides by repeating the last pixel.

    Spans are asked for from top to bottom; what they share is resampled once.
    """

    def __init__(self, source: ImageSource, shape: tuple[int, int], stride: int) -> None:
        self.source, self.shape = source, shape
        self.resampler = Resampler(source.shape, shape)
        self.right = -shape[1] % stride
        self.start = 0
        self.kept: Pixels = np.empty((0, shape[1] + self.right, 3), np.uint8)

    def read(self, span: Span) -> Pixels:
        """Rows span.start..span.stop, (rows, padded width, 3)."""
        fresh = max(span.start, self.start + len(self.kept))
        last = min(span.stop, self.shape[0])
        parts = [self.kept[span.start - self.start :]] if fresh > span.start else []
        if fresh < last:
            above, below = self.resampler.needs(fresh, last)
            pixels = self.resampler.rows(self.source.read(above, below), fresh, last)
            parts.append(np.pad(pixels, ((0, 0), (0, self.right), (0, 0)), "edge") if self.right else pixels)
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self.start, self.kept = span.start, rows
        if span.stop > last:
            rows = np.pad(rows, ((0, span.stop - last), (0, 0), (0, 0)), "edge")
        return rows
