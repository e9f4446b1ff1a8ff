"""Maps of an image, band by band: rows are read, brought to the model's scale, cut in windows and run.

Whatever the network predicts, two maps are kept of it: the foreground and the peaks that separation needs, and where
nuclei have classes a third, the class of each pixel. They follow from a neighborhood of at most the
representation's reach, by which the halo is wider.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.stain.he_appearance import ColorChange
from hemalum.inference.tiles import Grid
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.models.windows import Span, missing, stitch, window_halo
from hemalum.slides.image_source import ImageSource
from hemalum.slides.resample import Resampler
from hemalum.targets.representations import Representation, find_representation

Maps = NDArray[np.float32]
Pixels = NDArray[np.uint8]

CALL_AREA = 1 << 18  # px of windows of one size in one call: small ones alone would leave a GPU idle


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Rows start..stop of the image at the model's scale.

    `image` (stop - start, w, 3) uint8; `maps` (2 or 3, (stop - start)·upsampling, w·upsampling) float32:
    foreground, peaks and, where nuclei have classes, the class of each pixel from 1.
    """

    start: int
    stop: int
    image: Pixels
    maps: Maps

    def rows(self, start: int, stop: int, upsampling: int) -> "Band":
        """Give those of the rows start..stop that the band has; a row is `upsampling` rows of its maps."""
        first, last = max(start - self.start, 0), max(stop - self.start, 0)
        maps = self.maps[:, first * upsampling : last * upsampling]
        return Band(self.start + first, min(stop, self.stop), self.image[first:last], maps)


def bands(
    source: ImageSource,
    engine: Engine,
    representation: Representation,
    shape: tuple[int, int],
    grid: Grid,
    *,
    stride: int,
    upsampling: int,
    change: ColorChange | None = None,
    organ: int | None = None,
) -> Iterator[Band]:
    """Give the bands of `grid` from top to bottom for the image resampled to `shape` (h, w) px, the model's scale.

    With `change` the network sees other colors; those of the bands are the image's own. `organ` is the index of the
    image's, for a network that tells organs apart. While a band is with the caller, the engine works on the next one.
    """

    def run(image: Pixels, span: Span, columns: list[Span], band: Band) -> None:
        images = np.stack([image[:, column.start : column.stop] for column in columns])
        for column, maps in zip(columns, run_engine(engine, images, organ), strict=True):
            left, right = column.core_start, min(column.core_stop, shape[1])
            for target, source in zip(band.maps, representation.read(maps), strict=True):
                target[:, left * upsampling : right * upsampling] = source[
                    (band.start - span.start) * upsampling : (band.stop - span.start) * upsampling,
                    (left - column.start) * upsampling : (right - column.start) * upsampling,
                ]

    if grid.window is None:
        rows = _Rows(source, shape, -shape[1] % stride, "edge")
        per_call = 1
    else:
        rows = _Rows(source, shape, missing(shape, grid.window)[1], "symmetric")
        # a matter of the size alone, so that no result depends on how many calls the engine takes at once
        per_call = max(1, CALL_AREA // grid.window**2)
    channels = 3 if representation.class_names else 2
    calls = [grid.columns[first : first + per_call] for first in range(0, len(grid.columns), per_call)]
    with ThreadPoolExecutor(engine.parallel, thread_name_prefix="engine") as pool:
        waiting: deque[tuple[Band, list[Future[None]]]] = deque()
        try:
            for span in grid.rows:
                image = rows.read(span)
                start, stop = span.core_start, min(span.core_stop, shape[0])
                maps = np.empty((channels, (stop - start) * upsampling, shape[1] * upsampling), np.float32)
                band = Band(start, stop, image[start - span.start : stop - span.start, : shape[1]], maps)
                seen = image if change is None else change.apply(image)
                waiting.append((band, [pool.submit(run, seen, span, columns, band) for columns in calls]))
                if len(waiting) > 1:
                    yield _wait(*waiting.popleft())
            while waiting:
                yield _wait(*waiting.popleft())
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def run_engine(engine: Engine, images: Pixels, organ: int | None = None) -> Maps:
    """Maps of images; engines whose model tells no organs apart need know nothing of them."""
    return engine.maps(images) if organ is None else engine.maps(images, organ)


def run_image(engine: Engine, image: Pixels, model: Model) -> Maps:
    """Maps (C, h·upsampling, w·upsampling) of a small image (h, w, 3), at the model's scale, held whole.

    h and w are multiples of the model's stride, unless it has windows of one size, which are put together here.
    """
    card = model.card
    if card.window is None:
        maps: Maps = run_engine(engine, image[None], model.organ)[0]
        return maps
    shape = image.shape[0], image.shape[1]
    below, right = missing(shape, card.window)
    padded = np.pad(image, ((0, below), (0, right), (0, 0)), "symmetric")
    reach = find_representation(card.representation, card.classes).smoothed(card.separation).reach
    return stitch(
        shape,
        card.window,
        window_halo(card.window, card.stride, reach),
        lambda rows, columns: run_engine(
            engine, padded[None, rows.start : rows.stop, columns.start : columns.stop], model.organ
        )[0],
        card.output_upsampling,
    )


def _wait(band: Band, futures: list[Future[None]]) -> Band:
    for future in futures:
        future.result()
    return band


class _Rows:
    """Rows at the model's scale, padded beyond the image by repeating its last pixel or by mirroring it.

    Spans are asked for from top to bottom; what they share is resampled once.
    """

    def __init__(
        self, source: ImageSource, shape: tuple[int, int], right: int, padding: Literal["edge", "symmetric"]
    ) -> None:
        self.source, self.shape = source, shape
        self.resampler = Resampler(source.shape, shape)
        self.right, self.padding = right, padding
        self.start = 0
        self.buffer: Pixels = np.empty((0, shape[1] + self.right, 3), np.uint8)

    def read(self, span: Span) -> Pixels:
        """Rows span.start..span.stop, (rows, padded width, 3)."""
        fresh = max(span.start, self.start + len(self.buffer))
        last = min(span.stop, self.shape[0])
        parts = [self.buffer[span.start - self.start :]] if fresh > span.start else []
        if fresh < last:
            above, below = self.resampler.needs(fresh, last)
            pixels = self.resampler.rows(self.source.read(above, below), fresh, last)
            parts.append(self._padded(pixels, 0, self.right) if self.right else pixels)
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self.start, self.buffer = span.start, rows
        return self._padded(rows, span.stop - last, 0) if span.stop > last else rows

    def _padded(self, pixels: Pixels, below: int, right: int) -> Pixels:
        return np.pad(pixels, ((0, below), (0, right), (0, 0)), mode=self.padding)
