"""Images that are decoded whole, and arrays."""

from pathlib import Path

import numpy as np

from hemalum.data.image import read_image
from hemalum.slides.readers.reader import MAX_PIXELS_DECODED, BrokenTiles, Pixels, Shape
from hemalum.slides.readers.scale_tags import file_scale


class ImageReader:
    """An image that is in memory; see `Reader`."""

    offset = 0, 0

    def __init__(self, pixels: Pixels, name: Path | str, *, stated: tuple[float, float] | None = None) -> None:
        self.pixels, self.stated = pixels, stated
        self.format = "image"
        self.shapes: tuple[Shape, ...] = ((pixels.shape[0], pixels.shape[1]),)
        self.files: tuple[Path, ...] = ()
        self.broken = BrokenTiles(name)

    @classmethod
    def open(cls, path: Path, *, max_pixels: int | None = None, channel: str | None = None) -> "ImageReader":
        """Decode PNG, JPEG, BMP, or a TIFF that is not read by tiles. Raises HemalumError as `read_image` does."""
        limit = MAX_PIXELS_DECODED if max_pixels is None else max_pixels
        pixels = read_image(path, max_pixels=limit, channel=channel)
        reader = cls(pixels, path, stated=file_scale(path))
        reader.files = (path,)
        return reader

    def read_level(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """Give (height, width, 3) RGB of a window, a part of the pixels themselves."""
        return np.ascontiguousarray(self.pixels[y : y + height, x : x + width])

    def close(self) -> None:
        """Forget the pixels."""
        self.pixels = self.pixels[:0]
