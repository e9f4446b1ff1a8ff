"""Slide: an image or a whole slide, read window by window at any scale."""

import copy
import hashlib
import logging
import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hemalum.data.image import plain_size, to_rgb
from hemalum.data.pixels.channels import Channel, check_channel
from hemalum.errors import HemalumError
from hemalum.settings import as_number, as_whole_number
from hemalum.slides.readers.image import ImageReader
from hemalum.slides.readers.opening import open_reader
from hemalum.slides.readers.reader import BrokenTile, BrokenTiles, Pixels, Reader
from hemalum.slides.readers.scale_tags import PLAUSIBLE, believed
from hemalum.slides.resample import Resampler

log = logging.getLogger(__name__)

MIN_SIDE = 16
MAX_PIXELS = 100_000_000_000  # ten times the largest slides; beyond it a file is hostile
ISOTROPY = 1.01  # how much longer a pixel may be one way than the other
COARSER = 1.01  # a level that is this much coarser is taken for the scale itself: levels are rounded
BAND = 1 << 24  # px of a level that are held at once while resampling
BLOCK = 1 << 16  # bytes; what a fingerprint reads in one place
BLOCKS = 8
WHOLE_SLIDE = 100_000_000  # px: what has more is segmented as a slide, whatever its format
PLAIN_FORMATS = ("image", "TIFF", "OME-TIFF", "ImageJ TIFF")  # those that programs write as well as scanners
PLAIN_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".jp2", ".j2k", ".jxr")
SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".czi", ".qptiff")


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a slide: `shape` (H, W) px, `downsample` how much longer its pixels are than those of level 0."""

    shape: tuple[int, int]
    downsample: float


class Slide:
    """An image or a whole slide. Coordinates are px of level 0, relative to the scanner's bounds where it has any.

    `shape` (H, W) px; `mpp` µm per px, or None where neither the user nor the file says, or what the file says cannot
    be: `scale_doubt` is why; `levels`, the finest first;
    `format`, a name for people; `offset`, x, y of its first px on the scanner's canvas; `fingerprint`, sha256 of what
    identifies the pixels; `channel`, the one named when it was opened.
    Several threads may read at once. It can be pickled: the copy opens the file when it is
    first read. Use it as a context manager.
    """

    def __init__(self, reader: Reader, *, path: Path | None, name: str, mpp: float | None = None) -> None:
        self.path, self.name = path, name
        self._reader: Reader | None = reader
        self._broken = reader.broken
        self._lock = threading.Lock()
        self._max_pixels: int | None = None
        self.channel: str | None = None
        self.shape = reader.shapes[0]
        if min(self.shape) < MIN_SIDE:
            raise HemalumError(
                f"{name}: image is {self.shape[1]} x {self.shape[0]} px; "
                f"at least {MIN_SIDE} x {MIN_SIDE} px are needed"
            )
        if math.prod(self.shape) > MAX_PIXELS:
            raise HemalumError(
                f"{name}: {self.shape[1]} x {self.shape[0]} pixels is over the limit of {MAX_PIXELS:,} of a slide"
            )
        stated, self.scale_doubt = believed(reader.stated, name) if mpp is None else (None, "")
        self.mpp = _isotropic(stated, name) if mpp is None else check_slide_mpp(mpp, name)
        self.levels = tuple(
            Level(shape, (self.shape[0] / shape[0] + self.shape[1] / shape[1]) / 2) for shape in reader.shapes
        )
        self.format, self.offset = reader.format, reader.offset
        self.fingerprint = _fingerprint(reader)

    @classmethod
    def of(cls, pixels: NDArray[Any], *, name: str = "image", mpp: float | None = None) -> Self:
        """Wrap an array: (H, W) gray, or (H, W, 1..4) gray, gray and alpha, RGB or RGBA, of any numeric dtype."""
        if pixels.ndim not in (2, 3) or pixels.size == 0:
            raise HemalumError(f"{name}: pixels have shape {pixels.shape}; want (H, W) gray or (H, W, 3) RGB")
        return cls(ImageReader(to_rgb(pixels, name), name), path=None, name=name, mpp=mpp)

    @property
    def is_whole_slide(self) -> bool:
        """Whether it is a whole slide, not an image: results go to a store, and memory does not grow with its size.

        That is what comes in a scanner's format, as OME-Zarr or DICOM, has more than one level, or more than 100
        megapixels.
        """
        return (
            self.format not in PLAIN_FORMATS or len(self.levels) > 1 or math.prod(self.shape) > WHOLE_SLIDE
        )  # fmt: skip

    @property
    def channel_note(self) -> dict[str, str]:
        """What results say of the channel: nothing where none was named."""
        return {} if self.channel is None else {"channel": self.channel}

    @property
    def broken(self) -> list[BrokenTile]:
        """The tiles that could not be read so far; they came as white."""
        return self._broken.sorted()

    def read(self, x: int, y: int, width: int, height: int, mpp: float | None = None) -> Pixels:
        """Give a window of level-0 px as (height, width, 3) uint8 RGB; with `mpp` resampled to that scale.

        At a scale the window is cut from the slide resampled as one, so neighboring windows meet without a seam.

        Raises HemalumError when the window does not lie within the slide, or the slide has no scale and one is asked.
        """
        if min(x, y) < 0 or min(width, height) < 1 or x + width > self.shape[1] or y + height > self.shape[0]:
            raise HemalumError(
                f"{self.name}: a window of {width} x {height} px at x {x}, y {y} does not lie in the slide's "
                f"{self.shape[1]} x {self.shape[0]} px"
            )
        if mpp is None:
            return self._open().read_level(0, y, x, height, width)
        factor = self._factor(mpp)
        shape = scaled(self.shape, factor)
        rows = _span(y, height, shape[0] / self.shape[0], shape[0])
        columns = _span(x, width, shape[1] / self.shape[1], shape[1])
        return self.read_scaled(shape, rows, columns)

    def rows(self, start: int, stop: int) -> Pixels:
        """Give the rows start..stop that the slide has, (rows, W, 3) uint8 RGB."""
        first = max(start, 0)
        return self._open().read_level(0, first, 0, max(min(stop, self.shape[0]) - first, 0), self.shape[1])

    def read_scaled(self, shape: tuple[int, int], rows: slice, columns: slice) -> Pixels:
        """Give rows and columns of the slide resampled to `shape` (h, w) px, (rows, columns, 3) uint8 RGB.

        They come from the nearest finer level, and are the same pixels whatever the window. Slices need both ends.
        Raises HemalumError when the window does not lie within `shape`.
        """
        if not (0 <= rows.start < rows.stop <= shape[0] and 0 <= columns.start < columns.stop <= shape[1]):
            raise HemalumError(
                f"{self.name}: rows {rows.start} to {rows.stop} and columns {columns.start} to {columns.stop} do not "
                f"lie in {shape[1]} x {shape[0]} px"
            )
        reader = self._open()
        level = self.level_for(shape)
        resampler = _resampler(self.levels[level].shape, shape)
        left, right = resampler.needs_columns(columns.start, columns.stop)
        parts = []
        for start, stop in _bands(resampler, rows, right - left):
            top, bottom = resampler.needs(start, stop)
            pixels = reader.read_level(level, top, left, bottom - top, right - left)
            parts.append(resampler.window(pixels, slice(start, stop), columns))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def level_for(self, shape: tuple[int, int]) -> int:
        """The coarsest level that is at least as fine as the slide at `shape` (h, w) px."""
        fit = [
            index
            for index, level in enumerate(self.levels)
            if level.shape[0] * COARSER >= shape[0] and level.shape[1] * COARSER >= shape[1]
        ]
        return fit[-1] if fit else 0

    def thumbnail(self, max_side: int = 1024) -> Pixels:
        """Give the slide as a picture whose longer side has `max_side` px, or fewer where it has no more."""
        if max_side < 1:
            raise HemalumError(f"{self.name}: a thumbnail of {max_side} px; at least 1 is needed")
        shape = scaled(self.shape, min(1.0, max_side / max(self.shape)))
        return self.read_scaled(shape, slice(0, shape[0]), slice(0, shape[1]))

    def check_file(self) -> None:
        """Raise HemalumError where the file that this process sees is not the one that the slide was opened from."""
        if _fingerprint(self._open()) != self.fingerprint:
            raise HemalumError(f"{self.path or self.name}: is another file than the one that was opened")

    def moved_to(self, path: Path) -> Self:
        """A copy that opens its file at `path`, when it is first read."""
        copied = copy.copy(self)
        copied.path = path
        return copied

    def close(self) -> None:
        """Close the file. The next read opens it again."""
        with self._lock:
            reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """All but the open file, its lock and its broken tiles; an array goes as it is."""
        state = self.__dict__ | {"_lock": None, "_reader": None, "_broken": None}
        if self.path is None:
            state["_pixels"] = self._open().read_level(0, 0, 0, *self.shape)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        pixels = state.pop("_pixels", None)
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._broken = BrokenTiles(self.name)
        if pixels is not None:
            self._reader = ImageReader(pixels, self.name)

    def __repr__(self) -> str:
        scale = "mpp unknown" if self.mpp is None else f"{self.mpp:.4g} µm per px"
        return f"Slide({self.name!r}, {self.shape[1]} x {self.shape[0]} px, {scale}, {self.format})"

    def _open(self) -> Reader:
        with self._lock:
            if self._reader is None:
                if self.path is None:
                    raise HemalumError(f"{self.name}: the image is closed")
                reader = open_reader(self.path, max_pixels=self._max_pixels, channel=self.channel)
                if reader.shapes != tuple(level.shape for level in self.levels):
                    reader.close()
                    raise HemalumError(f"{self.path}: the file has changed since it was opened; start again")
                reader.broken, self._reader = self._broken, reader
            return self._reader

    def _factor(self, mpp: float) -> float:
        check_slide_mpp(mpp, self.name)
        if self.mpp is None:
            why = self.scale_doubt or "states no scale"
            raise HemalumError(f"{self.name}: the file {why}; open it with mpp=…, µm per px")
        return self.mpp / mpp


def open_slide(
    path: Path | str,
    *,
    mpp: float | None = None,
    max_pixels: int | None = None,
    channel: Channel | None = None,
    name: str | None = None,
) -> Slide:
    """Open a whole slide or an image (docs/how-to/slides.md lists the formats); gives a `Slide`.

    `mpp`, µm per px, replaces what the file states. `max_pixels` replaces the limit of 250 million pixels for what
    has to be decoded whole. `channel` is the one to show, of a file with stains side by side: its name, or its number
    from 1; without it the rule of docs/concepts/pixels.md decides. `name` is what results and errors call it, the
    path unless it is set.

    Raises HemalumError when the file is missing, not a slide, truncated, smaller than 16 x 16 px, has pixels of
    another kind, or states pixels more than 1 % longer one way than the other. A scale that no microscope has, a
    printer's or a placeholder, counts as none.
    """
    mpp = as_number(mpp, "mpp")
    if mpp is not None:
        check_slide_mpp(mpp, name or path)
    path, max_pixels = Path(path), as_whole_number(max_pixels, "max_pixels")
    channel = check_channel(channel)
    reader = open_reader(path, max_pixels=max_pixels, channel=channel)
    try:
        slide = Slide(reader, path=path, name=name or str(path), mpp=mpp)
    except BaseException:
        reader.close()
        raise
    slide._max_pixels, slide.channel = max_pixels, channel
    return slide


def is_whole_slide(path: Path | str, *, max_pixels: int | None = None) -> bool:
    """`Slide.is_whole_slide` of a file or folder. PNG, JPEG, BMP and WebP are not decoded for it.

    What cannot be opened is told by its name: a folder or a scanner's ending is a slide's.
    """
    path = Path(path)
    if path.suffix.lower() in PLAIN_SUFFIXES:
        return math.prod(plain_size(path) or (0,)) > WHOLE_SLIDE
    try:
        # any scale will do: one that cannot be is named when the slide is segmented
        with open_slide(path, mpp=1.0, max_pixels=max_pixels) as slide:
            return slide.is_whole_slide
    except HemalumError:
        return path.is_dir() or path.suffix.lower() in SLIDE_SUFFIXES


def check_slide_mpp(mpp: float, name: Path | str) -> float:
    """Give the mpp back, or raise HemalumError when no slide can have it."""
    if not PLAUSIBLE[0] < mpp < PLAUSIBLE[1]:
        raise HemalumError(
            f"{name}: mpp {mpp:g} µm per px; a slide has more than {PLAUSIBLE[0]:g} and less than {PLAUSIBLE[1]:g}"
        )
    return mpp


def scaled(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """(H, W) px times a factor, at least 1 px."""
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _isotropic(stated: tuple[float, float] | None, name: str) -> float | None:
    if stated is None:
        return None
    x, y = stated
    if max(x, y) > ISOTROPY * min(x, y):
        raise HemalumError(
            f"{name}: the file states pixels that are not square, {x:g} µm in x and {y:g} µm in y; if that is an "
            "error of the file, give the true scale with --mpp"
        )
    return math.sqrt(x * y)


@lru_cache(maxsize=16)
def _resampler(source: tuple[int, int], target: tuple[int, int]) -> Resampler:
    """Resamplers hold weights for all rows and columns of a slide: too many to make for each window."""
    return Resampler(source, target)


def _span(start: int, length: int, factor: float, limit: int) -> slice:
    """Pixels of the scaled slide that stand for `length` px from `start`; at least one."""
    first = min(round(start * factor), limit - 1)
    return slice(first, min(max(round((start + length) * factor), first + 1), limit))


def _bands(resampler: Resampler, rows: slice, width: int) -> list[tuple[int, int]]:
    """Rows cut so that what they are made of stays small: `width` px of a level in each of its rows."""
    per_row = max(1.0, resampler.source[0] / resampler.target[0])
    step = max(1, int(BAND / width / per_row))
    return [(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)]


def _fingerprint(reader: Reader) -> str:
    """sha256 hex of the level table, and of size and a few blocks of each file; without files, of the pixels."""
    digest = hashlib.sha256(repr(reader.shapes).encode())
    if not reader.files:
        digest.update(reader.read_level(0, 0, 0, *reader.shapes[0]).tobytes())
    for path in reader.files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode() if len(reader.files) > 1 else str(size).encode())
        with path.open("rb") as stream:
            for number in range(BLOCKS):
                stream.seek(max(0, (size - BLOCK) * number // (BLOCKS - 1)))
                digest.update(stream.read(BLOCK))
                if size <= BLOCK:
                    break
    return digest.hexdigest()
