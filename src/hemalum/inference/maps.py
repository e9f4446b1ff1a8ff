"""Maps of an image, tile by tile: pixels are read, brought to the model's scale and run, each tile once.

Whatever the network predicts, two maps are kept of it: the foreground and the peaks that separation needs, and where
nuclei have classes a third, the class of each pixel. They follow from a neighborhood of at most the representation's
reach, by which the halo of the tiles is wider.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hemalum.data.stain.he_appearance import ColorChange
from hemalum.inference.cells import BoxMaps
from hemalum.inference.grid import Box, TileGrid
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.models.windows import missing, stitch, window_halo
from hemalum.slides.slide import Slide
from hemalum.targets.representations import Representation, find_representation

Pixels = NDArray[np.uint8]

KEPT_BYTES = 64 << 20  # of tiles that a neighboring cell may want again: some rows of cells of a region


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """What is kept of a tile: the image in its core (h, w, 3) uint8 and the maps (2 or 3, h·u, w·u) float32."""

    image: Pixels
    maps: NDArray[np.float32]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.image.nbytes + self.maps.nbytes


Tiles = dict[tuple[int, int], Future[Tile]]


class TileMaps:
    """The maps of one image. Several threads may call `read`; a tile is computed by the first that wants it.

    `read_pixels` gives the pixels of a box inside the image, (h, w, 3) uint8 at the model's scale. With `change` the
    network sees other colors. `organ` is the index of the image's, for a network that tells organs apart. Tiles of
    which `wanted` says no, whose answer must not change, are not run: they are white, and nothing is found there.

    Nobody waits forever: whoever puts a tile into `_tiles` hands it to the engine before waiting for anything, and
    when that fails, or the maps are closed, all who wait get an error.
    """

    def __init__(
        self,
        read_pixels: Callable[[Box], Pixels],
        shape: tuple[int, int],
        engine: Engine,
        representation: Representation,
        grid: TileGrid,
        *,
        upsampling: int = 1,
        change: ColorChange | None = None,
        organ: int | None = None,
        wanted: Callable[[Box], bool] | None = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.read_pixels, self.shape, self.grid, self.upsampling = read_pixels, shape, grid, upsampling
        self.engine, self.representation, self.change, self.organ = engine, representation, change, organ
        self.wanted, self.kept_bytes = wanted, kept_bytes
        self._tiles: Tiles = {}  # the oldest first
        self._bytes, self._closed = 0, False
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(engine.parallel, thread_name_prefix="engine")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
        self._pool.shutdown(cancel_futures=True)
        with self._lock:
            left = {tile: future for tile, future in self._tiles.items() if not future.done()}
        self._fail(left, RuntimeError("the maps are closed"))

    def read(self, box: Box) -> BoxMaps:
        """Image and maps of a box inside the image."""
        tiles = [tile for tile in self.grid.over(box) if self.wanted is None or self.wanted(self.grid.core(tile))]
        futures: Tiles = {}
        missing: Tiles = {}
        with self._lock:
            if self._closed:
                raise RuntimeError("the maps are closed")
            for tile in tiles:
                future = self._tiles.get(tile)
                if future is None:
                    self._tiles[tile] = missing[tile] = future = Future()
                futures[tile] = future
        if missing:
            self._compute(missing)
        u = self.upsampling
        image = np.full((*box.shape, 3), 255, np.uint8)
        count = 3 if self.representation.class_names else 2
        maps = np.zeros((count, box.shape[0] * u, box.shape[1] * u), np.float32)
        for tile, future in futures.items():
            kept, core = future.result(), self.grid.core(tile)
            part = core.meet(box)
            image[part.slices(box)] = kept.image[part.slices(core)]
            maps[:, *part.slices(box, u)] = kept.maps[:, *part.slices(core, u)]
        return BoxMaps(box, image, maps)

    def _compute(self, missing: Tiles) -> None:
        """Read the pixels of tiles at once and have the engine work on each; the futures get what comes of it."""
        tiles = list(missing)
        boxes = [self.grid.seen(tile) for tile in tiles]
        around = Box(
            min(box.top for box in boxes), min(box.left for box in boxes),
            max(box.bottom for box in boxes), max(box.right for box in boxes),
        )  # fmt: skip
        try:
            pixels = self._padded(around)
            for first in range(0, len(tiles), self.engine.batch):
                batch = {tile: missing[tile] for tile in tiles[first : first + self.engine.batch]}
                windows = [pixels[box.slices(around)] for box in boxes[first : first + len(batch)]]
                self._submit(batch, windows)
        except BaseException as error:
            self._fail(missing, error)
            raise

    def _submit(self, batch: Tiles, windows: list[Pixels]) -> None:
        try:
            self._pool.submit(self._run, batch, windows)
        except RuntimeError as error:
            if not self._closed:
                raise
            raise RuntimeError("the maps are closed") from error

    def _run(self, batch: Tiles, windows: list[Pixels]) -> None:
        """Maps of some tiles in one call, which is always full, so that no result depends on what is run together."""
        try:
            images = np.stack(windows + windows[-1:] * (self.engine.batch - len(windows)))
            seen = images if self.change is None else np.stack([self.change.apply(image) for image in images])
            results = run_engine(self.engine, seen, self.organ)
            kept = [self._keep(*one) for one in zip(batch, windows, results[: len(batch)], strict=True)]
        except BaseException as error:
            self._fail(batch, error)
            return
        with self._lock:
            for (tile, future), result in zip(batch.items(), kept, strict=True):
                if not future.done():
                    future.set_result(result)
                    self._bytes += result.size if self._tiles.get(tile) is future else 0
            self._drop_oldest()

    def _keep(self, tile: tuple[int, int], pixels: Pixels, maps: NDArray[np.float32]) -> Tile:
        core, seen = self.grid.core(tile), self.grid.seen(tile)
        rows, columns = core.slices(seen, self.upsampling)
        channels = [np.asarray(channel)[rows, columns] for channel in self.representation.read(maps)]
        return Tile(pixels[core.slices(seen)].copy(), np.stack(channels))

    def _fail(self, tiles: Tiles, error: BaseException) -> None:
        """Give an error to all who wait for tiles, which are forgotten: the next who wants one tries again."""
        with self._lock:
            for tile, future in tiles.items():
                if self._tiles.get(tile) is future and not future.done():
                    del self._tiles[tile]
                if not future.done():
                    future.set_exception(error)

    def _drop_oldest(self) -> None:
        """Forget the tiles that came first, down to `kept_bytes`; those that are still computed stay."""
        for tile in list(self._tiles) if self._bytes > self.kept_bytes else ():
            if self._bytes <= self.kept_bytes:
                return
            future = self._tiles[tile]
            if future.done():
                del self._tiles[tile]
                self._bytes -= future.result().size

    def _padded(self, box: Box) -> Pixels:
        """Pixels of a box that may go beyond the image, repeated there, or mirrored for windows of one size."""
        inside = Box(box.top, box.left, min(box.bottom, self.shape[0]), min(box.right, self.shape[1]))
        pixels = self.read_pixels(inside)
        below, right = box.bottom - inside.bottom, box.right - inside.right
        if not (below or right):
            return pixels
        mode: Any = "edge" if self.grid.window is None else "symmetric"
        padded: Pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)), mode)
        return padded


def scaled_pixels(slide: Slide, shape: tuple[int, int]) -> Callable[[Box], Pixels]:
    """What reads a box of a slide at the model's scale, (h, w) px."""
    return lambda box: slide.read_scaled(shape, slice(box.top, box.bottom), slice(box.left, box.right))


def run_engine(engine: Engine, images: Pixels, organ: int | None = None) -> NDArray[np.float32]:
    """Maps of images; engines whose model tells no organs apart need know nothing of them."""
    return engine.maps(images) if organ is None else engine.maps(images, organ)


def run_image(engine: Engine, image: Pixels, model: Model) -> NDArray[np.float32]:
    """Maps (C, h·upsampling, w·upsampling) of a small image (h, w, 3), at the model's scale, held whole.

    h and w are multiples of the model's stride, unless it has windows of one size, which are put together here.
    """
    card = model.card
    if card.window is None:
        maps: NDArray[np.float32] = run_engine(engine, image[None], model.organ)[0]
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
