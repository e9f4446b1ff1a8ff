"""Slides through OpenSlide: MIRAX, Hamamatsu, Leica, Ventana, Philips, DICOM and what else it knows."""

import logging
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np

from hemalum.data.pixels.samples import over_white
from hemalum.errors import HemalumError, one_line
from hemalum.slides.readers.reader import (
    BrokenTiles,
    Pixels,
    Shape,
    consistent_levels,
    paste,
    read_mended,
    tiles_in,
)
from hemalum.slides.readers.scale_tags import Scale

log = logging.getLogger(__name__)

FORMATS = {
    "aperio": "Aperio SVS", "dicom": "DICOM", "generic-tiff": "TIFF", "hamamatsu": "Hamamatsu", "leica": "Leica SCN",
    "mirax": "MIRAX", "philips": "Philips TIFF", "sakura": "Sakura", "trestle": "Trestle", "ventana": "Ventana BIF",
    "zeiss": "Zeiss CZI",
}  # fmt: skip
ALIGNED = (
    "aperio",
    "generic-tiff",
    "hamamatsu",
    "philips",
    "dicom",
)  # tiles of a level lie on one grid from its corner
CELL = 256  # px, where tiles lie otherwise


class OpenSlideReader:
    """A slide that OpenSlide reads; see `Reader`. Coordinates are relative to the scanner's bounds, as in QuPath.

    Every thread has a handle of its own. After an error a handle gives errors only, so it is opened again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = BrokenTiles(path)
        self._local = threading.local()
        self._handles: list[Any] = []
        self._lock = threading.Lock()
        slide = self._handle()
        try:
            self._describe(slide)
        except BaseException:
            self.close()
            raise

    def _describe(self, slide: Any) -> None:
        path, properties = self.path, dict(slide.properties)
        vendor = properties.get("openslide.vendor", "")
        self.format = FORMATS.get(vendor, vendor or "OpenSlide")
        self.files: tuple[Path, ...] = _files(path)
        self.stated = _stated(properties)
        size = slide.dimensions
        self.x, self.y = (_number(properties.get(f"openslide.bounds-{axis}"), 0) for axis in "xy")
        self.offset = self.x, self.y
        width = _number(properties.get("openslide.bounds-width"), size[0] - self.x)
        height = _number(properties.get("openslide.bounds-height"), size[1] - self.y)
        if min(self.x, self.y, width - 1, height - 1) < 0 or self.x + width > size[0] or self.y + height > size[1]:
            raise HemalumError(
                f"{path}: the file states bounds of {width} x {height} px at x {self.x}, y {self.y}, which "
                f"do not lie in its {size[0]} x {size[1]} px; export the slide again"
            )
        shapes = [
            (round(height / factor), round(width / factor)) if number else (height, width)
            for number, factor in enumerate(slide.level_downsamples)
        ]
        self.numbers = consistent_levels(shapes, path)
        self.shapes = tuple(shapes[number] for number in self.numbers)
        self.factors = [slide.level_downsamples[number] for number in self.numbers]
        self.tiles = [_tile(properties, number, vendor) for number in self.numbers]

    def read_level(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """Give (height, width, 3) RGB of a window of a level."""
        shape, tile = self.shapes[level], self.tiles[level]
        grid = tile or (CELL, CELL)
        window = y, x, height, width
        if tile is not None and self._is_exact(level):
            return self._mended(level, window, grid)
        result = np.empty((height, width, 3), np.uint8)
        if self._is_exact(level):  # cells, so that what is white does not depend on the window
            top, left = y // CELL * CELL, x // CELL * CELL
            bottom, right = (
                min(-(-(y + height) // CELL) * CELL, shape[0]),
                min(-(-(x + width) // CELL) * CELL, shape[1]),
            )
            paste(result, y, x, self._mended(level, (top, left, bottom - top, right - left), grid), top, left)
            return result
        # OpenSlide draws between pixels here, by a shift that depends on the corner: each cell has its own corner
        for cell in tiles_in(window, shape, grid):
            paste(result, y, x, self._mended(level, cell, grid), cell[0], cell[1])
        return result

    def close(self) -> None:
        """Close the handles of all threads."""
        with self._lock:
            handles, self._handles = self._handles, []
        self._local = threading.local()
        for handle in handles:
            handle.close()

    def _is_exact(self, level: int) -> bool:
        factor: float = self.factors[level]
        return abs(factor - round(factor)) < 1e-9

    def _mended(self, level: int, window: tuple[int, int, int, int], grid: Shape) -> Pixels:
        def read(y: int, x: int, height: int, width: int) -> Pixels:
            return self._read(level, y, x, height, width)

        return read_mended(read, window, level=level, shape=self.shapes[level], tile=grid, broken=self.broken)

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        factor = self.factors[level]
        corner = self.x + round(x * factor), self.y + round(y * factor)
        handle = self._handle()
        try:
            pixels = np.asarray(handle.read_region(corner, self.numbers[level], (width, height)))
        except Exception:
            self._forget(handle)
            raise
        # where there is no tile OpenSlide gives transparent pixels
        return over_white(pixels[..., :3], pixels[..., 3])

    def _handle(self) -> Any:
        """The handle of this thread."""
        import openslide

        handle = getattr(self._local, "handle", None)
        if handle is None:
            try:
                handle = openslide.OpenSlide(str(self.path))
            except openslide.OpenSlideError as error:
                raise HemalumError(f"{self.path}: OpenSlide cannot open it ({one_line(error)})") from error
            with self._lock:
                self._handles.append(handle)
            self._local.handle = handle
        return handle

    def _forget(self, handle: Any) -> None:
        self._local.handle = None
        with self._lock:
            if handle in self._handles:
                self._handles.remove(handle)
        handle.close()


def vendor_of(path: Path) -> str | None:
    """What OpenSlide takes the file for ("hamamatsu", "generic-tiff" …), or None."""
    import openslide

    vendor: str | None = openslide.OpenSlide.detect_format(str(path))
    return vendor


def _stated(properties: dict[str, str]) -> Scale | None:
    try:
        scale = float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"])
    except (KeyError, ValueError):
        return None
    return scale if math.isfinite(sum(scale)) else None


def _tile(properties: dict[str, str], level: int, vendor: str) -> Shape | None:
    """(height, width) of the tiles of a level, where they lie on one grid; else None."""
    height, width = (
        _number(properties.get(f"openslide.level[{level}].tile-{side}"), 0) for side in ("height", "width")
    )
    return (height, width) if vendor in ALIGNED and 16 <= min(height, width) <= max(height, width) <= 4096 else None


def _files(path: Path) -> tuple[Path, ...]:
    folder = path.with_suffix("")  # MIRAX: the pixels stand in a folder of the same name
    return (path, *sorted(file for file in folder.glob("*.dat"))) if folder.is_dir() else (path,)


def _number(text: str | None, default: int) -> int:
    try:
        return default if text is None else int(text)
    except ValueError:
        return default
