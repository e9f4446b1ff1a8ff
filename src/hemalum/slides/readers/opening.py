"""Which reader a file is for."""

from pathlib import Path

from hemalum.data.image import is_image, is_tiff, refuse_heic
from hemalum.data.pixels.channels import refuse_color
from hemalum.errors import HemalumError
from hemalum.slides.readers.dicom import DicomReader, first_dicom
from hemalum.slides.readers.image import ImageReader
from hemalum.slides.readers.ome_zarr import ZarrReader, is_zarr
from hemalum.slides.readers.openslide import OpenSlideReader, vendor_of
from hemalum.slides.readers.reader import Reader
from hemalum.slides.readers.tiff import TiffReader

# their tiles lie side by side as the TIFF says; the tiles of other scanners are put together by OpenSlide
PLAIN_TIFF = (None, "aperio", "generic-tiff")


def open_reader(path: Path, *, max_pixels: int | None = None, channel: str | None = None) -> Reader:
    """Open a file or folder with the reader it is for. `max_pixels` replaces the limit of what is decoded whole.

    `channel` is the one to read, of several. Raises HemalumError when the file is missing, not a slide or an image,
    damaged, or over the limit, and when the channel is not there.
    """
    if is_zarr(path):
        return ZarrReader(path, channel)
    if path.is_dir():
        return _open_dicom(path, channel)
    try:
        empty = path.stat().st_size == 0
        path.open("rb").close()
    except FileNotFoundError:
        raise HemalumError(f"{path}: no such file") from None
    except OSError as error:
        raise HemalumError(f"{path}: cannot be read ({error.strerror or error})") from error
    if empty:
        raise HemalumError(f"{path}: the file is empty (0 bytes)")
    vendor = vendor_of(path)
    if is_tiff(path) and vendor in PLAIN_TIFF:
        reader = TiffReader.open(path, max_pixels=max_pixels, channel=channel)
        if reader is not None:
            return reader
    if first_dicom(path) is not None:
        return _open_dicom(path, channel)
    if vendor not in (None, "generic-tiff"):  # of these the reader of images says what is wrong
        refuse_color(channel, path)
        return OpenSlideReader(path)
    refuse_heic(path)
    if not is_image(path):
        raise HemalumError(
            f"{path}: not a slide or an image that can be read (docs/how-to/slides.md lists the formats)"
        )
    return ImageReader.open(path, max_pixels=max_pixels, channel=channel)


def is_slide(path: Path) -> bool:
    """Whether the path looks like a slide or an image, without opening it for reading."""
    if path.is_dir():
        return is_zarr(path) or first_dicom(path) is not None
    return path.is_file() and (is_image(path) or first_dicom(path) is not None or vendor_of(path) is not None)


def _open_dicom(path: Path, channel: str | None) -> Reader:
    """Open with OpenSlide what it can decode, and the rest with wsidicom."""
    first = first_dicom(path)
    if first is None:
        raise HemalumError(f"{path}: a folder that is neither OME-Zarr nor a DICOM slide")
    refuse_color(channel, path)
    if vendor_of(first) == "dicom":
        try:
            return OpenSlideReader(first)
        except HemalumError:
            pass  # a coding that OpenSlide does not know; wsidicom says what is wrong
    return DicomReader(path)
