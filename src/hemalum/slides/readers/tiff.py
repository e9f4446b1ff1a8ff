"""TIFF as tiles or strips on levels: plain, pyramidal, OME-TIFF and Aperio SVS, each tile decoded as it is stored.

OpenSlide draws a level whose downsample is not a whole number between pixels, another way for each window; here the
pixels of a level are those of the file (docs/decisions.md).
"""

import logging
import math
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from hemalum.data.image import check_size
from hemalum.data.pixels.orientation import (
    AS_STORED,
    is_transposed,
    seen_shape,
    seen_window,
    stored_window,
    turn,
    turned_words,
)
from hemalum.data.pixels.samples import HISTOGRAM, Display, histogram, spreads_of
from hemalum.data.pixels.tiff import JPEG, Plan, plan_tiff
from hemalum.errors import HemalumError, one_line
from hemalum.remarks import remark
from hemalum.slides.readers.reader import (
    MAX_PIXELS_DECODED,
    BrokenTile,
    BrokenTiles,
    Pixels,
    Shape,
    consistent_levels,
    paste,
    tiles_in,
)
from hemalum.slides.readers.scale_tags import tiff_scale

log = logging.getLogger(__name__)

COMPRESSIONS = (
    1,
    5,
    8,
    32946,
    32773,
    33005,
    34712,
    34925,
    50000,
    50001,
    *JPEG,
)  # not 33003: OpenSlide knows its colors
FORMATS = {"svs": "Aperio SVS", "ome": "OME-TIFF", "imagej": "ImageJ TIFF", "qpi": "PerkinElmer QPTIFF"}
CACHE_BYTES = 64 << 20
STRIP = 64  # rows that are read at once of pixels that are stored one after another
TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # of a tag; others: 1


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    """One level as stored: `planes` are the pages that hold it (one, or one for each color), `keyframe` says how."""

    planes: tuple[Any, ...]
    keyframe: Any
    shape: Shape
    tile: Shape
    direct: bool

    @property
    def across(self) -> int:
        return -(-self.shape[1] // self.tile[1])

    @property
    def segments(self) -> int:
        """Tiles of one color or of all, as they are stored."""
        return self.across * -(-self.shape[0] // self.tile[0])


class TiffReader:
    """A TIFF of 8 or 16 bits, read tile by tile; see `Reader`. Its levels are as stored, its windows as seen."""

    offset = 0, 0

    def __init__(self, tiff: Any, levels: list[_Level], plan: Plan, path: Path, max_pixels: int | None) -> None:
        self.tiff, self.path, self.plan = tiff, path, plan
        self.broken = BrokenTiles(path)
        self.files: tuple[Path, ...] = (path,)
        shapes = [level.shape for level in levels]
        self.levels = [levels[index] for index in consistent_levels(shapes, path)]
        self.shapes = tuple(seen_shape(level.shape, plan.orientation) for level in self.levels)
        limit = MAX_PIXELS_DECODED if max_pixels is None else max_pixels
        for level in self.levels:
            # one strip may be the whole image; four channels count as one pixel
            check_size(path, level.tile[0] * -(-int(level.keyframe.samplesperpixel) // 4), level.tile[1], limit)
        self._check_complete()
        self.format = FORMATS.get(tiff.series[0].kind, "TIFF")
        stated = tiff_scale(tiff)
        self.stated = stated[::-1] if stated and is_transposed(plan.orientation) else stated
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._cached_bytes = 0
        self.display = Display(plan.stored, self.levels[0].keyframe.dtype, spreads_of(self._count), path)
        if plan.orientation != AS_STORED:
            remark(path, turned_words(plan.orientation))

    @classmethod
    def open(cls, path: Path, *, max_pixels: int | None = None, channel: str | None = None) -> Self | None:
        """Open a TIFF, or give None when its layout or its pixels are not for that.

        Raises HemalumError for a file that is truncated, has no levels, or is over the limit.
        """
        import tifffile  # kept out of the import of the package: it costs 0.1 s

        try:
            tiff = tifffile.TiffFile(path)
        except Exception:
            return None  # the reader of whole images names what is wrong
        try:
            levels = _levels(tiff, path, channel)
            if levels is not None:
                return cls(tiff, *levels, path, max_pixels)
        except BaseException as error:
            tiff.close()
            if isinstance(error, HemalumError) or not isinstance(error, Exception):
                raise
            # tifffile raises many
            raise HemalumError(f"{path}: TIFF is damaged or truncated ({one_line(error)})") from error
        tiff.close()
        return None

    def read_level(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """Give (height, width, 3) RGB of a window of a level."""
        table = self.levels[level]
        window = stored_window((y, x, height, width), table.shape, self.plan.orientation)
        result = np.full((*window[2:], 3), 255, np.uint8)
        for top, left, tall, wide in tiles_in(window, table.shape, table.tile):
            index = top // table.tile[0] * table.across + left // table.tile[1]
            try:
                paste(result, *window[:2], self._tile(level, index)[:tall, :wide], top, left)
            except Exception as error:  # codecs raise zlib.error, struct.error and many more
                self._break(level, (top, left, tall, wide), error)
        return turn(result, self.plan.orientation)

    def close(self) -> None:
        """Close the file."""
        self.tiff.close()
        self._cache.clear()

    def _break(self, level: int, window: tuple[int, int, int, int], error: Exception) -> None:
        top, left, tall, wide = seen_window(window, self.levels[level].shape, self.plan.orientation)
        self.broken.add(BrokenTile(level, left, top, wide, tall, one_line(error)))

    def _tile(self, level: int, index: int) -> Pixels:
        """RGB of a tile or strip; those that are decoded are kept for the next window."""
        with self._lock:
            tile = self._cache.get((level, index))
            if tile is not None:
                self._cache.move_to_end((level, index))
                return tile
        tile = self.display.rgb(self._samples(level, index))
        if self.display.is_color and self._is_left_out(level, index):
            tile[:] = 255  # not scanned: glass
        with self._lock:
            if (level, index) not in self._cache:
                self._cache[level, index] = tile
                self._cached_bytes += tile.nbytes
            while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return tile

    def _count(self) -> NDArray[np.int64]:
        """How often each value occurs in each sample of the finest level; tiles that cannot be read have no say."""
        table = self.levels[0]
        samples = len(table.planes) if self.plan.separate else int(table.keyframe.samplesperpixel)
        counts = np.zeros((samples, HISTOGRAM), np.int64)
        for top, left, tall, wide in tiles_in((0, 0, *table.shape), table.shape, table.tile):
            index = top // table.tile[0] * table.across + left // table.tile[1]
            try:
                tile = self._samples(0, index)[:tall, :wide]
            except Exception as error:
                self._break(0, (top, left, tall, wide), error)
                continue
            for sample in range(samples):
                counts[sample] += histogram(tile[..., sample])
        return counts

    def _samples(self, level: int, index: int) -> NDArray[Any]:
        """Samples of a tile or strip as stored, (rows, columns, samples)."""
        table = self.levels[level]
        key = table.keyframe
        planes = len(table.planes) if self.plan.separate else 1 if key.planarconfig == 1 else int(key.samplesperpixel)
        parts = [self._segment(table, plane, index) for plane in range(planes)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _is_left_out(self, level: int, index: int) -> bool:
        """Whether the file leaves out a tile: slide scanners do so with glass."""
        table = self.levels[level]
        page = table.planes[0]
        return not table.direct and not page.dataoffsets[index] and not page.databytecounts[index]

    def _segment(self, table: _Level, plane: int, index: int) -> NDArray[Any]:
        """One tile or strip as stored, (rows, columns, samples)."""
        key = table.keyframe
        page = table.planes[plane if self.plan.separate else 0]
        planar = key.planarconfig != 1 and not self.plan.separate
        samples = 1 if planar or self.plan.separate else int(key.samplesperpixel)
        if table.direct:
            top = index * STRIP
            rows = min(STRIP, table.shape[0] - top)
            row = table.shape[1] * samples * key.dtype.itemsize
            first = page.dataoffsets[0] + (plane * table.shape[0] * row if planar else 0)
            data = self._bytes(first + top * row, rows * row)
            return np.frombuffer(data, self.tiff.byteorder + key.dtype.char).reshape(rows, table.shape[1], samples)
        index += plane * table.segments if planar else 0
        offset, size = page.dataoffsets[index], page.databytecounts[index]
        if not size and not offset:
            return np.zeros((*table.tile, samples), key.dtype)
        if not size or not offset:
            raise ValueError("the file holds none")
        data = self._bytes(offset, size)
        options: dict[str, Any] = {"_fullsize": bool(key.is_tiled)}
        if key.compression in JPEG:
            if key.compression != 6 and not _has_end(data):
                raise ValueError("JPEG that ends too early")
            options |= {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        decoded = key.decode(data, index, **options)[0]
        if decoded is None:
            raise ValueError("the tile is empty")
        pixels: NDArray[Any] = decoded[0]
        if pixels.ndim != 3 or pixels.shape[2] != samples or pixels.dtype != key.dtype:
            raise ValueError(f"{pixels.dtype} pixels of shape {pixels.shape}")
        return pixels

    def _bytes(self, offset: int, size: int) -> bytes:
        handle = self.tiff.filehandle
        if hasattr(os, "pread"):
            data = os.pread(handle.fileno(), size, offset)
        else:
            with self._lock:
                handle.seek(offset)
                data = handle.read(size)
        if len(data) < size:
            raise ValueError(f"{len(data)} of {size} bytes")
        return data

    def _check_complete(self) -> None:
        """Refuse a file that ends before its tiles or its list of levels do: a copy that was cut off."""
        size = self.tiff.filehandle.size
        for number, level in enumerate(self.levels):
            planar = level.keyframe.planarconfig != 1
            wanted = level.segments * (int(level.keyframe.samplesperpixel) if planar else 1)
            for page in level.planes:
                ends = np.asarray(page.dataoffsets, np.uint64) + np.asarray(page.databytecounts, np.uint64)
                if not level.direct and len(ends) < wanted:
                    raise HemalumError(
                        f"{self.path}: level {number} lists {len(ends)} of its {wanted} tiles; the TIFF is damaged"
                    )
                if level.direct and int(ends[-1]) - int(page.dataoffsets[0]) < math.prod(level.keyframe.shape):
                    raise HemalumError(
                        f"{self.path}: level {number} has fewer bytes than pixels; the TIFF is damaged"
                    )
                cut = int((ends > size).sum())
                if cut:
                    raise HemalumError(
                        f"{self.path}: the file is truncated: {cut} of {len(ends)} tiles of level {number} lie "
                        f"behind its end ({size:,} bytes); copy it again"
                    )
        if _list_is_cut(self.tiff, self.levels):
            raise HemalumError(
                f"{self.path}: the file is truncated: its list of levels goes on behind its end ({size:,} bytes); "
                "copy it again"
            )


def _first_list(tiff: Any) -> int:
    """Where the header says that the list of images begins, in bytes from the file's start."""
    form, handle = tiff.tiff, tiff.filehandle
    handle.seek(form.offsetsize)  # 4 bytes before it, or 8 in BigTIFF
    order: Literal["little", "big"] = "little" if tiff.byteorder == "<" else "big"
    return int.from_bytes(handle.read(form.offsetsize), order)


def _levels(tiff: Any, path: Path, channel: str | None) -> tuple[list[_Level], Plan] | None:
    """The levels of the first image of a TIFF and what its pixels are; None when it is not for reading by tiles."""
    if not tiff.pages or not tiff.series or not tiff.series[0].levels:
        size = tiff.filehandle.size
        if _first_list(tiff) >= size:
            raise HemalumError(
                f"{path}: the file is truncated: its list of levels lies behind its end ({size:,} bytes); "
                "copy it again"
            )
        raise HemalumError(f"{path}: the TIFF holds no image")
    series = tiff.series[0]
    first = series.keyframe
    if not _is_plain(first):
        return None
    plan = plan_tiff(tiff, path, channel)
    if any(len(level.pages) <= max(plan.pages) for level in series.levels):
        return None  # pages one after another, of which only the first is listed
    levels = []
    for number, level in enumerate(series.levels):
        key = level.keyframe
        if number and (
            key.dtype != first.dtype or key.samplesperpixel != first.samplesperpixel or not _is_plain(key)
        ):
            log.warning("%s: level %d has pixels of another kind; left out", path, number)
            continue
        planes = tuple(level.pages[index] for index in plan.pages)
        shape = int(key.imagelength), int(key.imagewidth)
        check_size(path, *shape, None)
        # pixels as they are, one after another: any rows can be read, whatever the strips
        direct = bool(key.is_contiguous) and key.compression == 1 and not key.is_tiled
        strip = STRIP if direct else min(int(key.rowsperstrip or shape[0]), shape[0])
        tile = (int(key.tilelength), int(key.tilewidth)) if key.is_tiled else (strip, shape[1])
        levels.append(_Level(planes, key, shape, tile, direct))
    return levels, plan


def _is_plain(page: Any) -> bool:
    """Whether the pixels of a page are of a kind that is read tile by tile."""
    return (
        page.compression in COMPRESSIONS
        and page.dtype in (np.uint8, np.uint16)
        and page.bitspersample in (8, 16)
        and page.imagedepth == 1
        and page.fillorder == 1
        and not (page.is_subsampled and page.compression not in JPEG)
        and (not page.is_tiled or (page.tilelength > 0 and page.tilewidth > 0))
    )


def _has_end(jpeg: bytes) -> bool:
    """Whether the first end mark of the last scan is the end: a decoder fills up with gray what lacks."""
    end = jpeg.find(b"\xff\xd9", jpeg.rfind(b"\xff\xda"))
    return end >= 0 and not jpeg[end + 3 :].strip(b"\0\xff")  # one byte more where lengths are even


def _list_is_cut(tiff: Any, levels: list[_Level]) -> bool:
    """Whether the list of pages, or what it says of one, goes on behind the end of the file.

    tifffile leaves out what it cannot read and goes on: a pyramid without some levels, without its scale.
    """
    if tiff.is_ndpi:  # its offsets are of another width
        return False
    form, handle = tiff.tiff, tiff.filehandle
    handle.seek(tiff.pages.next_page_offset or 0)
    data = handle.read(form.offsetsize)
    if len(data) < form.offsetsize or any(data):  # the last page has 0
        return True
    order: Literal["little", "big"] = "little" if tiff.byteorder == "<" else "big"
    for offset in {page.offset for level in levels for page in level.planes}:
        handle.seek(offset)
        count = int.from_bytes(handle.read(form.tagnosize), order)
        tags = handle.read(count * form.tagsize)
        if len(tags) < count * form.tagsize:
            return True
        for start in range(0, len(tags), form.tagsize):
            tag = tags[start : start + form.tagsize]
            size = TYPE_BYTES.get(int.from_bytes(tag[2:4], order), 1) * int.from_bytes(
                tag[4 : -form.offsetsize], order
            )
            if size > form.offsetsize and int.from_bytes(tag[-form.offsetsize :], order) + size > handle.size:
                return True
    page = tiff.series[0].keyframe
    return bool(page.subifds) and len(page.pages or ()) < len(page.subifds)
