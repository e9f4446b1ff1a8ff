"""ImageSource: an image whose rows are read when they are needed, and the readers behind it."""

import logging
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from hemalum.data.image import check_size, is_tiff, over_white, read_image, stretch, to_rgb
from hemalum.errors import HemalumError
from hemalum.slides.readers.scale_tags import file_mpp, tiff_mpp

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

MIN_SIDE = 16
MAX_PIXELS_DECODED = 250_000_000  # decoded at once: 750 MB as RGB
MAX_PIXELS_ROWS = 1_000_000_000  # read row by row: beyond it a file is a slide, or hostile


class Rows(Protocol):
    """Where the rows of an image come from: one class per way to read a file.

    `shape` is (H, W) px, `mpp` what the file states, µm per px. `read` gets rows within the image.
    """

    shape: tuple[int, int]
    mpp: float | None

    def read(self, start: int, stop: int) -> Pixels: ...

    def close(self) -> None: ...


class ImageSource:
    """An image of `shape` (H, W) px with `mpp` µm per px where the file says so, else None.

    `read(y0, y1)` gives rows y0..y1 as (y1 - y0, W, 3) uint8 RGB. Use it as a context manager.
    """

    def __init__(self, rows: Rows, name: str) -> None:
        self.rows, self.name = rows, name
        self.shape, self.mpp = rows.shape, rows.mpp

    @classmethod
    def open(cls, path: Path | str, *, max_pixels: int | None = None) -> Self:
        """Open PNG, JPEG, BMP, TIFF or OME-TIFF: 8-bit RGB, RGBA (over white), gray, 16-bit gray (stretched).

        TIFF is read strip by strip or tile by tile, all else is decoded whole. `max_pixels` replaces the
        limits of 250 million pixels for images decoded whole and 1,000 million for the others.

        Raises HemalumError when the file is missing, not an image, truncated, smaller than 16 x 16, over
        the limit, or has pixels of another kind.
        """
        path = Path(path)
        rows: Rows | None = _open_tiff(path, max_pixels) if is_tiff(path) else None
        if rows is None:
            pixels = read_image(path, max_pixels=MAX_PIXELS_DECODED if max_pixels is None else max_pixels)
            _check_small(pixels.shape, path)
            rows = DecodedRows(pixels, file_mpp(path))
        return cls(rows, str(path))

    @classmethod
    def of(cls, pixels: NDArray[Any], *, name: str = "image") -> Self:
        """Wrap an array: (H, W), (H, W, 1..4) uint8 or (H, W) uint16. Raises HemalumError for others."""
        if pixels.ndim not in (2, 3) or pixels.size == 0:
            raise HemalumError(f"{name}: pixels have shape {pixels.shape}; want (H, W) gray or (H, W, 3) RGB")
        _check_small(pixels.shape, name)
        return cls(DecodedRows(to_rgb(pixels, name), None), name)

    def read(self, start: int, stop: int) -> Pixels:
        """Rows start..stop (clipped to the image), (rows, W, 3) uint8. Raises HemalumError when damaged."""
        return self.rows.read(max(start, 0), min(stop, self.shape[0]))

    def close(self) -> None:
        """Close the file."""
        self.rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_small(shape: tuple[int, ...], name: Path | str) -> None:
    if min(shape[:2]) < MIN_SIDE:
        raise HemalumError(
            f"{name}: image is {shape[1]} x {shape[0]} px; at least {MIN_SIDE} x {MIN_SIDE} px are needed"
        )


class DecodedRows:
    """Rows of an image that is in memory."""

    def __init__(self, pixels: Pixels, mpp: float | None) -> None:
        self.pixels, self.mpp = pixels, mpp
        self.shape = pixels.shape[0], pixels.shape[1]

    def read(self, start: int, stop: int) -> Pixels:
        return self.pixels[start:stop]

    def close(self) -> None:
        self.pixels = self.pixels[:0]


class TiffRows:
    """Rows of a TIFF page, decoded one row of strips or tiles at a time; the last one is kept.

    `tall` and `wide` are rows and columns of a strip or tile, px.
    """

    def __init__(self, tiff: Any, path: Path, max_pixels: int | None) -> None:
        self.tiff, self.path = tiff, path
        self.page = page = tiff.pages[0]
        self.shape = self.height, self.width = int(page.imagelength), int(page.imagewidth)
        check_size(path, *self.shape, MAX_PIXELS_ROWS if max_pixels is None else max_pixels)
        _check_small(self.shape, path)
        if len(tiff.series[0].shape) > len(page.shape):
            log.warning("%s: a stack of %d pages; the first is taken", path, len(tiff.pages))
        self.tall = int(page.tilelength if page.is_tiled else min(page.rowsperstrip or self.height, self.height))
        self.wide = int(page.tilewidth) if page.is_tiled else self.width
        if page.compression != 1:  # one compressed strip may be the whole image
            check_size(path, self.tall, self.width, MAX_PIXELS_DECODED if max_pixels is None else max_pixels)
        # pixels as they are, one after another: any rows can be read, whatever the strips
        self.direct = bool(page.is_contiguous) and page.compression == 1 and not page.is_tiled
        if self.direct:
            self.tall = 64
        self.across = -(-self.width // self.wide)
        self.samples = int(page.samplesperpixel)
        self.inverted = page.photometric.name == "MINISWHITE"
        self.warned = False
        self.cached_strip: tuple[int, NDArray[Any]] = (-1, np.empty(0, page.dtype))
        self.extremes = self._find_extremes() if page.dtype == np.uint16 else None
        self.mpp = tiff_mpp(tiff, path)

    def read(self, start: int, stop: int) -> Pixels:
        parts = []
        for number in range(start // self.tall, -(-stop // self.tall)):
            top = number * self.tall
            parts.append(self._strip(number)[max(start - top, 0) : stop - top])
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if self.extremes is not None:
            pixels = stretch(pixels, *self.extremes)
        if self.samples == 1:
            return np.repeat(pixels, 3, axis=2)
        if self.samples == 3:
            return np.ascontiguousarray(pixels)
        if not self.warned and pixels[..., 3].min() < 255:
            log.info("%s: transparent pixels laid over white", self.path)
            self.warned = True
        return over_white(pixels)

    def close(self) -> None:
        self.tiff.close()

    def _strip(self, number: int) -> NDArray[Any]:
        """One row of segments, (rows, W, samples), as stored."""
        if self.cached_strip[0] == number:
            return self.cached_strip[1]
        page, top = self.page, number * self.tall
        strip = np.zeros((min(self.tall, self.height - top), self.width, self.samples), page.dtype)
        options: dict[str, Any] = {"_fullsize": bool(page.is_tiled)}
        if page.compression in (6, 7, 34892, 33007):  # JPEG: its tables are stored once for all segments
            options |= {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        handle = page.parent.filehandle
        try:
            if self.direct:
                size = strip.nbytes
                handle.seek(page.dataoffsets[0] + top * self.width * self.samples * strip.itemsize)
                data = handle.read(size)
                if len(data) < size:
                    raise ValueError(f"row {top} onwards: {len(data)} of {size} bytes")
                strip[...] = np.frombuffer(data, page.parent.byteorder + page.dtype.char).reshape(strip.shape)
            for column in range(0 if self.direct else self.across):
                index = number * self.across + column
                offset, size = page.dataoffsets[index], page.databytecounts[index]
                if not size:  # a segment left out: background
                    continue
                handle.seek(offset)
                data = handle.read(size)
                if len(data) < size:
                    raise ValueError(f"segment {index} ends after {len(data)} of {size} bytes")
                pixels = page.decode(data, index, **options)[0][0]
                left = column * self.wide
                part = pixels[: len(strip), : self.width - left]
                strip[: len(part), left : left + self.wide] = part
        except Exception as error:  # tifffile and its codecs raise zlib.error, struct.error and many more
            line = " ".join(str(error).split())[:120] or type(error).__name__
            raise HemalumError(f"{self.path}: TIFF is damaged or truncated ({line})") from error
        if self.inverted:
            strip = np.iinfo(strip.dtype).max - strip
        self.cached_strip = (number, strip)
        return strip

    def _find_extremes(self) -> tuple[int, int]:
        low, high = np.iinfo(np.uint16).max, 0
        for number in range(-(-self.height // self.tall)):
            strip = self._strip(number)
            low, high = min(low, int(strip.min())), max(high, int(strip.max()))
        log.info("%s: 16-bit gray %d..%d stretched to 0..255", self.path, low, high)
        return low, high


def _open_tiff(path: Path, max_pixels: int | None) -> TiffRows | None:
    """Open a TIFF for reading by rows, or None when its layout or its pixels are not for that."""
    import tifffile  # kept out of the import of the package: it costs 0.1 s

    try:
        tiff = tifffile.TiffFile(path)
    except Exception:
        return None  # the reader of whole images names what is wrong
    try:
        page: Any = tiff.pages[0]
        plain = (
            getattr(page.photometric, "name", "") in ("RGB", "YCBCR", "MINISBLACK", "MINISWHITE")
            and page.planarconfig == 1
            and (page.dtype == np.uint8 or (page.dtype == np.uint16 and page.samplesperpixel == 1))
            and page.bitspersample in (8, 16)
            and page.samplesperpixel in (1, 3, 4)
            and page.imagedepth == 1
            and page.fillorder == 1
            and tiff.series[0].axes not in ("CYX", "SYX")
        )
    except Exception:
        plain = False
    if not plain:
        tiff.close()
        return None
    try:
        return TiffRows(tiff, path, max_pixels)
    except BaseException:
        tiff.close()
        raise
