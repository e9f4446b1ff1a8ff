"""The images and slides of a folder: whatever a reader can open, and what looks like an image and cannot be."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from hemalum.data.image import IMAGE_SUFFIXES, open_plain
from hemalum.errors import HemalumError
from hemalum.slides.readers.opening import is_slide
from hemalum.slides.slide import SLIDE_SUFFIXES

log = logging.getLogger(__name__)

FILE_SUFFIXES = (*IMAGE_SUFFIXES, *SLIDE_SUFFIXES)
# what Pillow opens of pictures; it knows the heads of films, printer's pages and tables too
PICTURES = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
# images and slides of other programs, by their endings; those of FILE_SUFFIXES are always taken
FOREIGN = (
    ".afi", ".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dicom", ".dng", ".ets", ".fits", ".gif", ".heic", ".heif",
    ".i2syntax", ".ims", ".isyntax", ".j2c", ".jfif", ".jpf", ".jpx", ".jxl", ".kfb", ".lif",
    ".lsm", ".mds", ".nd2", ".nef", ".oib", ".oif", ".orf", ".ome", ".pgm", ".ppm", ".psd", ".qpi", ".raw", ".sdpc",
    ".tga", ".tmap", ".vms", ".vmu", ".vsi", ".wdp", ".xcf", ".zarr", ".zvi",
)  # fmt: skip
NAMED = 5  # of what is passed over


def images_in(folder: Path, *, without: Sequence[str] = ()) -> list[Path]:
    """The images and slides directly inside a folder, sorted; folders that are a slide, OME-Zarr or DICOM, are too.

    What looks like an image and cannot be opened is named by the log. Hidden files and the files that belong to a
    slide are left out, and names that end in one of `without`. Raises HemalumError for a folder that cannot be read.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise HemalumError(f"{folder}: folder cannot be read ({error.strerror or error})") from error
    entries = [
        entry for entry in entries if not entry.name.startswith(".") and not entry.name.endswith(tuple(without))
    ]
    for entry in entries:
        if not entry.is_file() and not entry.is_dir():  # reading from a pipe would wait for ever
            log.warning("%s: passed over, as it is no file (a broken link, pipe or socket)", entry)
    entries = [entry for entry in entries if entry.is_file() or entry.is_dir()]
    parts = {name for entry in entries for name in _parts_of(entry)}
    entries = [entry for entry in entries if entry.name not in parts]
    taken = [entry for entry in entries if _opens(entry)]
    known = set(taken)
    passed = [entry.name for entry in entries if entry not in known and entry.suffix.lower() in FOREIGN]
    if passed:
        more = f" and {len(passed) - NAMED} more" if len(passed) > NAMED else ""
        log.warning(
            "%s: passed over, as no reader opens it: %s%s (docs/how-to/slides.md lists the formats)",
            folder,
            ", ".join(passed[:NAMED]),
            more,
        )
    return taken


def where_else(folder: Path) -> str:
    """The end of a line on a folder without images: which of its folders hold some."""
    inside = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    holding = [entry.name for entry in inside if _holds_images(entry)]
    if not holding:
        return ""
    more = ", …" if len(holding) > NAMED else ""
    return f"; its folders {', '.join(holding[:NAMED])}{more} hold some: name them"


def _holds_images(folder: Path) -> bool:
    try:
        return any(entry.suffix.lower() in FILE_SUFFIXES for entry in folder.iterdir())
    except OSError:
        return False


def _opens(entry: Path) -> bool:
    """Whether the entry is an image or a slide, by its ending or else by how it begins."""
    try:
        if entry.is_dir():
            return is_slide(entry)
        if entry.suffix.lower() in FILE_SUFFIXES:  # a damaged one is named when its turn comes
            return True
        return is_slide(entry) and not _is_other(entry)
    except OSError:  # a folder that cannot be read
        return False


def _is_other(file: Path) -> bool:
    """Whether Pillow opens it as what is no picture, such as a film."""
    try:
        with open_plain(file) as image:
            return image.format not in PICTURES
    except Exception:  # Pillow raises many of what is not for it
        return False


def _parts_of(entry: Path) -> list[str]:
    """The files beside it that belong to a slide of Hamamatsu, which names them."""
    if entry.suffix.lower() not in (".vms", ".vmu"):
        return []
    try:
        text = entry.read_bytes()[: 1 << 20].decode("latin-1")
    except OSError:
        return []
    return [
        name.strip() for name in re.findall(r"(?m)^\w+(?:\(\d+,\d+(?:,\d+)?\))?=(.+\.(?:jpe?g|ngr|opt))\s*$", text)
    ]
