"""Images as tiles of a pyramid whose levels halve, as viewers of slides ask for them (Deep Zoom)."""

import io
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.slides import Slide

TILE = 512  # px
QUALITY = 90  # of JPEG
DIRECT = 4  # times as fine is the level that a tile is made of directly: 2048 px for 512
OVERVIEW = 1 << 24  # px of the picture of an image that its coarse levels are made of
OVERVIEWS = 8  # pictures that are kept


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The levels of an image of `shape` (H, W) px: the last one is the image, each one before half as large.

    The first one fits one tile.
    """

    shape: tuple[int, int]

    @property
    def levels(self) -> int:
        """How many there are."""
        return 1 + max(0, math.ceil(math.log2(max(self.shape) / TILE)))

    def downsample(self, level: int) -> int:
        """Px of the image along one px of a level."""
        return 1 << (self.levels - 1 - level)

    def shape_of(self, level: int) -> tuple[int, int]:
        """(H, W) px of a level."""
        factor = self.downsample(level)
        return -(-self.shape[0] // factor), -(-self.shape[1] // factor)

    def has(self, level: int, x: int, y: int) -> bool:
        """Whether there is a tile at this column and row of a level."""
        if not 0 <= level < self.levels:
            return False
        height, width = self.shape_of(level)
        return 0 <= x * TILE < width and 0 <= y * TILE < height

    def tile(self, level: int, x: int, y: int) -> tuple[slice, slice]:
        """Rows and columns of a level that a tile of it shows."""
        height, width = self.shape_of(level)
        return slice(y * TILE, min((y + 1) * TILE, height)), slice(x * TILE, min((x + 1) * TILE, width))


class ImageTiles:
    """JPEG tiles of images. Where a level has no other near that is finer, tiles come from one picture of the image,
    made once: an image without a pyramid is not read whole for each. `open_image` gives an image by its id."""

    def __init__(self, open_image: Callable[[str], AbstractContextManager[Slide]]) -> None:
        self._open = open_image
        self._overviews: OrderedDict[str, Slide] = OrderedDict()
        self._making: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def encode(self, image: str, pyramid: Pyramid, level: int, x: int, y: int) -> bytes:
        """A tile as JPEG. Raises HemalumError where the image cannot be opened or read."""
        shape, (rows, columns) = pyramid.shape_of(level), pyramid.tile(level, x, y)
        with self._open(image) as slide:
            nearest = slide.levels[slide.level_for(shape)].shape
            if nearest[0] > DIRECT * shape[0] and shape[0] * shape[1] <= OVERVIEW:
                slide = self._overview(image, slide, pyramid)
            pixels = slide.read_scaled(shape, rows, columns)
        return encode_jpeg(pixels)

    def _overview(self, image: str, slide: Slide, pyramid: Pyramid) -> Slide:
        with self._lock:
            making = self._making.setdefault(image, threading.Lock())
        with making:
            with self._lock:
                if image in self._overviews:
                    self._overviews.move_to_end(image)
                    return self._overviews[image]
            level = max(
                k for k in range(pyramid.levels)
                if math.prod(pyramid.shape_of(k)) <= OVERVIEW
                and slide.levels[slide.level_for(pyramid.shape_of(k))].shape[0] > DIRECT * pyramid.shape_of(k)[0]
            )  # fmt: skip
            shape = pyramid.shape_of(level)
            pixels = slide.read_scaled(shape, slice(0, shape[0]), slice(0, shape[1]))
            overview = Slide.of(pixels, name=slide.name)
            with self._lock:
                self._overviews[image] = overview
                while len(self._overviews) > OVERVIEWS:
                    self._overviews.popitem(last=False)
            return overview


def encode_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=QUALITY)
    return stream.getvalue()


def encode_png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> bytes:
    """(H, W) uint8 as PNG: gray, or the numbers of colors of a `palette` (256, 4) RGBA."""
    stream, picture = io.BytesIO(), Image.fromarray(pixels)
    if palette is not None:
        picture.putpalette(palette.tobytes(), "RGBA")
    picture.save(stream, format="PNG", compress_level=1)
    return stream.getvalue()
