"""From a file to pixels: the one place where a plain image is decoded."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hemalum.data.pixels.channels import find_channel, refuse_color
from hemalum.data.pixels.orientation import AS_STORED, Pixels, is_transposed, turn, turned_words
from hemalum.data.pixels.plain import (
    is_jpeg_xr,
    jpeg_xr_size,
    plain_orientation,
    plain_samples,
    stored_bits,
)
from hemalum.data.pixels.samples import CMYK, Display, Spread, Stored, spread_of
from hemalum.errors import HemalumError, one_line
from hemalum.remarks import remark

log = logging.getLogger(__name__)

TIFF_SUFFIXES = (".tif", ".tiff", ".btf")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".jp2", ".j2k", ".jxr", *TIFF_SUFFIXES)
MAX_PIXELS = 1_000_000_000  # 3 GB as RGB; beyond it a file is more likely hostile or a slide than a tile

LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "WEBP": "WebP", "JPEG2000": "JPEG 2000", "AVIF": "AVIF"}
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # brands of the container

_pillow_limit = threading.Lock()


def read_image(
    path: Path | str, *, max_pixels: int | None = MAX_PIXELS, channel: str | None = None
) -> NDArray[np.uint8]:
    """Read a plain image (PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, JPEG XR) as (H, W, 3) uint8 RGB.

    It is turned as its orientation tag says. Gray becomes three equal channels; alpha is laid over white; more than
    8 bits, and fractions, are scaled by the rules of docs/concepts/pixels.md; of several channels or pages one is
    taken, which `channel` may name. Whatever is left out or changed is a warning. `max_pixels=None` lifts the limit
    on size.

    Raises HemalumError for a file that is missing, not an image, truncated, empty, too large, or whose pixels are
    of a kind that is not read.
    """
    path = Path(path)
    refuse_heic(path)
    decode = _tiff_rgb if _is_tiff(read_head(path)) else _plain_rgb
    pixels, orientation = decode(path, max_pixels, channel)
    if orientation != AS_STORED:
        remark(path, turned_words(orientation))
    return turn(pixels, orientation)


def labels_as_seen(labels: Pixels, label_file: Path, shape: tuple[int, ...], image_file: Path) -> Pixels:
    """Labels (H, W, …) of an image whose `shape` is (H, W, …) as seen: turned where they fit it as stored only.

    Labels that fit neither are given back as they are. What is turned is said.
    """
    if labels.shape[:2] == shape[:2] or labels.shape[:2] != shape[1::-1]:
        return labels
    orientation = orientation_of(image_file)
    if not is_transposed(orientation):
        return labels
    remark_turned_labels(label_file, orientation)
    return turn(labels, orientation)


def remark_turned_labels(label_file: Path, orientation: int) -> None:
    """Say that labels are turned with their image."""
    remark(
        label_file,
        f"labels fit the image as stored, not as its orientation tag ({orientation}) turns it; turned with it",
    )


def to_rgb(pixels: NDArray[Any], name: Path | str) -> NDArray[np.uint8]:
    """(H, W) gray, (H, W, 1..4) gray, gray and alpha, RGB or RGBA of any numeric dtype to (H, W, 3) uint8 RGB.

    More than 8 bits, and fractions, are scaled as `read_image` does. `name` is for messages. Raises HemalumError for
    any other shape or dtype.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    count = pixels.shape[2] if pixels.ndim == 3 else 0
    if count not in (1, 2, 3, 4):
        raise HemalumError(f"{name}: pixels have shape {pixels.shape}; want (H, W) gray or (H, W, 3) RGB")
    return _show(pixels, _by_count(count, pixels.dtype), name)


def _by_count(count: int, dtype: np.dtype[Any], bits: int | None = None) -> Stored:
    """Samples of formats, and of arrays, that know gray, gray and alpha, RGB and RGBA and nothing else."""
    bits = bits or (1 if dtype == np.bool_ else 8 * dtype.itemsize)
    color = Stored("rgb", (0, 1, 2)) if count >= 3 else Stored()
    return replace(color, alpha=count - 1 if count in (2, 4) else None, bits=bits)


def _show(pixels: NDArray[Any], stored: Stored, name: Path | str) -> NDArray[np.uint8]:
    """(H, W, S) samples of a whole image as (H, W, 3) uint8 RGB."""
    return _display(pixels, stored, name).rgb(pixels)


def _display(pixels: NDArray[Any], stored: Stored, name: Path | str) -> Display:
    def spreads(indices: tuple[int, ...]) -> Spread:
        return spread_of(pixels if len(indices) == pixels.shape[2] else pixels[..., list(indices)])

    return Display(stored, pixels.dtype, spreads, name)


def is_tiff(path: Path | str) -> bool:
    """Whether the file begins as a TIFF does; False for a file that cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return _is_tiff(stream.read(4))
    except OSError:
        return False


def is_image(path: Path | str) -> bool:
    """Whether the file begins as an image does that `read_image` knows; False for a file that cannot be read."""
    if is_tiff(path) or is_jpeg_xr(path):
        return True
    try:
        with open_plain(Path(path)):
            return True
    except Exception:  # Pillow raises OSError, SyntaxError and more
        return False


def stated_dpi(path: Path | str) -> tuple[float, float] | None:
    """Dots per inch (x, y) of the image as stored that a PNG, JPEG or BMP states, or None. Raises as `read_image`."""
    if is_jpeg_xr(path):
        return None
    try:
        with open_plain(Path(path)) as image:
            dpi = image.info.get("dpi")
    except (OSError, SyntaxError, ValueError) as error:
        raise HemalumError(f"{path}: image is damaged or truncated ({one_line(error)})") from error
    if not isinstance(dpi, tuple) or len(dpi) != 2 or not all(float(value) > 0 for value in dpi):
        return None
    return float(dpi[0]), float(dpi[1])


def plain_size(path: Path) -> tuple[int, int] | None:
    """Height and width that a PNG, JPEG, BMP or WebP has when it is turned as it says, px; None for whatever else.

    It is not decoded for it, unless it is a PNG with an orientation.
    """
    try:
        with open_plain(path) as image:
            size = image.height, image.width
    except Exception:  # Pillow raises many; who decodes the file names what is wrong
        return None
    return size[::-1] if is_transposed(orientation_of(path)) else size


def orientation_of(path: Path | str) -> int:
    """The orientation that an image states, 1 to 8; 1 for what states none or cannot be read."""
    path = Path(path)
    try:
        if is_tiff(path):
            import tifffile

            from hemalum.data.pixels.tiff import tiff_orientation

            with tifffile.TiffFile(path) as tiff:
                return tiff_orientation(tiff)
        with open_plain(path) as image:
            return plain_orientation(image, path)
    except Exception:  # who decodes the file names what is wrong
        return AS_STORED


def read_head(path: Path) -> bytes:
    """The first bytes of an image file. Raises HemalumError for what is no file, empty, or cannot be opened."""
    if path.is_dir():
        raise HemalumError(f"{path}: is a folder, not an image")
    try:
        with path.open("rb") as stream:
            head = stream.read(33)
    except FileNotFoundError:
        raise HemalumError(f"{path}: no such file") from None
    except OSError as error:
        raise HemalumError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not head:
        raise HemalumError(f"{path}: the file is empty (0 bytes)")
    return head


def refuse_heic(path: Path) -> None:
    """Raise HemalumError for a HEIC or HEIF picture, which names the way out."""
    head = read_head(path)
    if head[4:8] == b"ftyp" and head[8:12] in HEIC:
        raise HemalumError(
            f"{path}: HEIC, as phones save pictures, is not read: convert it to PNG or TIFF (docs/concepts/pixels.md)"
        )


def _is_tiff(head: bytes) -> bool:
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_plain(path: Path) -> Image.Image:
    """What Pillow reads, as it opens it, of whatever size: callers check that. Raises what Pillow raises."""
    with _pillow_limit:
        # our own limit is checked by the caller, with a message that says how to lift it
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _plain_rgb(path: Path, max_pixels: int | None, channel: str | None) -> tuple[NDArray[np.uint8], int]:
    """RGB as stored, and the orientation."""
    with named_faults(path, "PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, JPEG XR"):
        if is_jpeg_xr(path):
            import imagecodecs

            check_size(path, *jpeg_xr_size(path), max_pixels)
            decoded = imagecodecs.jpegxr_decode(path.read_bytes())
            _check_plain_channel(channel, decoded.ndim == 2, path)
            return to_rgb(decoded, path), AS_STORED
        with open_plain(path) as image:
            check_size(path, image.height, image.width, max_pixels)
            bits = stored_bits(path, image.format)
            pixels = plain_samples(image, path)
            orientation = plain_orientation(image, path)
            stored = _by_count(pixels.shape[2] if pixels.ndim == 3 else 1, pixels.dtype, bits)
            if image.mode == "CMYK":
                remark(path, CMYK)
                stored = Stored("cmyk", (0, 1, 2, 3))
            _check_plain_channel(channel, stored.color == "gray", path)
        return _show(pixels if pixels.ndim == 3 else pixels[..., None], stored, path), orientation


def _check_plain_channel(channel: str | None, gray: bool, path: Path) -> None:
    """Raise HemalumError for a channel of a format that has none, but for the first of a gray image."""
    if not gray:
        refuse_color(channel, path)
    elif channel is not None:
        find_channel(channel, 1, [], path)


@contextmanager
def named_faults(path: Path, formats: str = "PNG, JPEG, BMP, TIFF") -> Iterator[None]:
    """What decoders raise as one line with the name of the file; `formats` are those that are read."""
    try:
        yield
    except UnidentifiedImageError:
        raise HemalumError(f"{path}: not an image that can be read ({formats})") from None
    except HemalumError:
        raise
    except MemoryError:
        raise HemalumError(f"{path}: the image does not fit in memory; cut it, or save it as tiled TIFF") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, zlib.error, struct.error and many more
        kind = "TIFF" if is_tiff(path) else "image"
        raise HemalumError(f"{path}: {kind} is damaged or truncated ({one_line(error)})") from error


def _tiff_rgb(path: Path, max_pixels: int | None, channel: str | None) -> tuple[NDArray[np.uint8], int]:
    """RGB as stored, and the orientation."""
    import tifffile  # kept out of the import of the package: it costs 0.1 s

    from hemalum.data.pixels.tiff import left_out, plan_tiff

    with named_faults(path), tifffile.TiffFile(path) as tiff:
        page = _first_page(tiff, path, max_pixels)
        plan = plan_tiff(tiff, path, channel)
        series: Any = tiff.series[0]
        if len(series.pages) > max(plan.pages):
            parts = [_samples_last(series.pages[number].asarray(), page) for number in plan.pages]
        else:  # pages one after another, of which only the first is listed
            stack = series.asarray().reshape(-1, *page.shape)
            parts = [_samples_last(stack[number], page) for number in plan.pages]
        pixels = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        display = _display(pixels, plan.stored, path)
        shown = display.rgb(pixels)
        if display.is_color:  # not scanned: glass. Gray ones are 0 already
            for y, x, height, width in left_out(series.pages[plan.pages[0]] if len(series.pages) > 1 else page):
                shown[y : y + height, x : x + width] = 255
        return shown, plan.orientation


def _samples_last(pixels: NDArray[Any], page: Any) -> NDArray[Any]:
    """A page as tifffile gives it as (H, W, S)."""
    if pixels.ndim == 2:
        return pixels[..., None]
    return np.moveaxis(pixels, 0, -1) if int(page.planarconfig) == 2 else pixels


def _first_page(tiff: Any, path: Path, max_pixels: int | None) -> Any:
    if not tiff.pages or not tiff.series:
        raise HemalumError(f"{path}: TIFF holds no image")
    page = tiff.series[0].keyframe
    # four channels count as one pixel: a file may claim thousands
    check_size(path, int(page.imagelength) * -(-int(page.samplesperpixel) // 4), int(page.imagewidth), max_pixels)
    if int(page.imagedepth) > 1:
        raise HemalumError(f"{path}: a TIFF of volumes (ImageDepth {page.imagedepth}); save one plane of it")
    return page


def check_size(path: Path | str, height: int, width: int, max_pixels: int | None) -> None:
    """Raise HemalumError when an image has no pixels or more than `max_pixels`."""
    if height < 1 or width < 1:
        raise HemalumError(f"{path}: image has no pixels ({width} x {height})")
    if max_pixels is not None and height * width > max_pixels:
        # that of labeled images has no option: training holds them in memory
        mend = (
            "cut it into smaller images"
            if max_pixels == MAX_PIXELS
            else "--max-pixels lifts it, and a tiled TIFF, which is read by parts, has none"
        )
        raise HemalumError(f"{path}: {width} x {height} pixels is over the limit of {max_pixels:,}; {mend}")
