"""DICOM whole slides through wsidicom: what OpenSlide cannot decode, such as JPEG-LS."""

from pathlib import Path
from typing import Any

import numpy as np

from hemalum.data.image import to_rgb
from hemalum.errors import HemalumError, one_line
from hemalum.slides.readers.reader import BrokenTiles, Pixels, consistent_levels, read_mended


def first_dicom(path: Path) -> Path | None:
    """The file itself, or the first DICOM file of a folder; None where there is none."""
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    for file in files:
        try:
            with file.open("rb") as stream:
                if stream.read(132)[128:] == b"DICM":
                    return file
        except OSError:
            continue
    return None


class DicomReader:
    """A DICOM slide, a file or the folder of its files; see `Reader`."""

    offset = 0, 0

    def __init__(self, path: Path) -> None:
        try:
            from wsidicom import WsiDicom
        except ImportError:
            raise HemalumError(f"{path}: this DICOM slide needs wsidicom: pip install 'hemalum[dicom]'") from None
        try:
            self.slide: Any = WsiDicom.open(path)
        except Exception as error:  # pydicom and wsidicom raise many
            raise HemalumError(f"{path}: not a DICOM slide that can be read ({one_line(error)})") from error
        self.path, self.format = path, "DICOM"
        self.broken = BrokenTiles(path)
        self.files: tuple[Path, ...] = tuple(sorted(path.iterdir())) if path.is_dir() else (path,)
        levels = list(self.slide.levels)
        shapes = [(int(level.size.height), int(level.size.width)) for level in levels]
        self.numbers = consistent_levels(shapes, path)
        self.levels = [levels[number] for number in self.numbers]
        self.shapes = tuple(shapes[number] for number in self.numbers)
        size = levels[0].mpp
        self.stated = (float(size.width), float(size.height)) if size is not None else None

    def read_level(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        """Give (height, width, 3) RGB of a window of a level."""
        table = self.levels[level]

        def read(y: int, x: int, height: int, width: int) -> Pixels:
            return to_rgb(np.asarray(self.slide.read_region((x, y), table.level, (width, height))), self.path)

        tile = int(table.tile_size.height), int(table.tile_size.width)
        return read_mended(
            read, (y, x, height, width), level=level, shape=self.shapes[level], tile=tile, broken=self.broken
        )

    def close(self) -> None:
        """Close the files."""
        self.slide.close()
