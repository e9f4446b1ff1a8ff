"""ImageJ RoiSets: a zip of .roi files, one outline each, as the ROI Manager saves them."""

import logging
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hemalum.data.annotations.outlines import Outline
from hemalum.errors import HemalumError, one_line

log = logging.getLogger(__name__)

# a RoiSet of 117 nuclei holds 53 kB, packed to 33 kB
MAX_ENTRIES = 20_000
MAX_BYTES = 64 * 1024 * 1024  # of all entries together, unpacked
MAX_RATIO = 100  # unpacked to packed; coordinates do not pack to a twentieth
AREAS = ("POLYGON", "FREEHAND", "TRACED", "RECT", "OVAL")


def read_roi_set(path: Path | str, *, left_out: Counter[str] | None = None) -> tuple[Outline, ...]:
    """The outlines of a RoiSet zip in the order of the entries' names, or of one .roi; nothing is unpacked to disk.

    Polygons, freehand and traced outlines, rectangles, ovals and composites of them are read. Folders and
    the hidden files that macOS adds are passed over. With `left_out`, lines and points are counted there under
    their word, and not refused.

    Raises HemalumError for a file that is missing or no zip, for entries that are encrypted, no .roi, twice
    there, or named with a path that leads elsewhere, for more than 20,000 entries, 64 MiB unpacked or a
    packing ratio over 100, for damaged entries and vertices that are no finite numbers, and for lines and points,
    which enclose nothing.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".roi":
            if path.stat().st_size > MAX_BYTES:
                raise HemalumError(
                    f"{path}: {path.stat().st_size:,} bytes are over the limit of {MAX_BYTES:,} for a ROI"
                )
            return tuple(_outlines(path, [(path.name, path.read_bytes())], left_out))
        with zipfile.ZipFile(path) as archive:
            entries = _check_entries(path, archive.infolist())
            return tuple(_outlines(path, ((entry.filename, archive.read(entry)) for entry in entries), left_out))
    except FileNotFoundError:
        raise HemalumError(f"{path}: no such file") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise HemalumError(f"{path}: not a zip archive, or damaged ({one_line(error)})") from error


def _check_entries(path: Path, infos: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The entries to read, after every check that needs no unpacking."""
    if len(infos) > MAX_ENTRIES:
        raise HemalumError(f"{path}: {len(infos):,} entries are over the limit of {MAX_ENTRIES:,} for a RoiSet")
    size = sum(info.file_size for info in infos)
    if size > MAX_BYTES:
        raise HemalumError(f"{path}: unpacks to {size:,} bytes, over the limit of {MAX_BYTES:,} for a RoiSet")
    for info in infos:
        name = info.filename
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if ".." in parts or name.startswith(("/", "\\")) or (parts and ":" in parts[0]):
            raise HemalumError(f"{path}: entry {name!r} leads out of the archive; this is no RoiSet of ImageJ")
        if info.flag_bits & 1:
            raise HemalumError(f"{path}: entry {name!r} is encrypted; save the RoiSet without a password")
        if info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise HemalumError(
                f"{path}: entry {name!r} unpacks to {info.file_size:,} bytes from {info.compress_size:,}; refused"
            )
    entries = [info for info in infos if not (info.is_dir() or _hidden(info.filename))]
    for info in entries:
        if not info.filename.lower().endswith(".roi"):
            raise HemalumError(f"{path}: entry {info.filename!r} is no .roi file; want a RoiSet of ImageJ")
    for name, count in Counter(info.filename for info in entries).items():
        if count > 1:
            raise HemalumError(f"{path}: entry {name!r} is there {count} times; save the RoiSet again")
    if not entries:
        raise HemalumError(f"{path}: holds no .roi file; want a RoiSet of ImageJ")
    return sorted(entries, key=lambda info: info.filename)


def _hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or parts[-1].startswith(".")


def _outlines(path: Path, entries: Iterable[tuple[str, bytes]], left_out: Counter[str] | None) -> Iterator[Outline]:
    from roifile import ImagejRoi

    for name, content in entries:
        try:
            roi: Any = ImagejRoi.frombytes(content)
            kind = roi.roitype.name
            rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in roi.coordinates(multi=True)]
        except Exception as error:  # a damaged entry fails wherever the parser happens to be
            raise HemalumError(f"{path}: entry {name!r} is no ROI that can be read ({one_line(error)})") from error
        if not all(np.isfinite(ring).all() for ring in rings):
            raise HemalumError(f"{path}: entry {name!r} has a vertex that is no finite number; save the ROI again")
        if kind in AREAS:
            yield Outline(name, tuple(rings))
        elif left_out is None:
            raise HemalumError(
                f"{path}: entry {name!r} is a {kind.lower()}, which encloses nothing; outline the nucleus"
            )
        else:
            left_out["point or line"] += 1
