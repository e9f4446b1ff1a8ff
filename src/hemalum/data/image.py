"""From a file to pixels: the one place where a plain image or a label map is decoded."""

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hemalum.errors import HemalumError, one_line

log = logging.getLogger(__name__)

TIFF_SUFFIXES = (".tif", ".tiff", ".btf")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", *TIFF_SUFFIXES)
MAX_PIXELS = 1_000_000_000  # 3 GB as RGB; beyond it a file is more likely hostile or a slide than a tile

_pillow_limit = threading.Lock()


def read_image(path: Path | str, *, max_pixels: int | None = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a plain image (PNG, JPEG, BMP, TIFF) as (H, W, 3) uint8 RGB.

    Gray becomes three equal channels; alpha is laid over white; 16-bit gray is stretched from its own
    minimum and maximum to 0..255, which the log says. `max_pixels=None` lifts the size limit.

    Raises HemalumError for a file that is missing, not an image, truncated, empty, too large, or whose
    pixels are CMYK, palette, 1-bit, float or 16-bit color.
    """
    path = Path(path)
    return to_rgb(_decode(path, max_pixels, labels=False), path)


def read_label_map(path: Path | str) -> NDArray[np.int32]:
    """Read a label map (PNG, TIFF; one channel of whole numbers) as (H, W) int32, 0 = background.

    A palette image gives its indices; three equal channels give one of them; whole numbers stored as float
    (ImageJ's 32-bit TIFF) are taken. The ids are as stored: a binary mask gives 0 and 1 (or 0 and 255).

    Raises HemalumError for a file that is missing, not an image, truncated, empty, too large, lossy (JPEG),
    colored, negative, or holding fractions.
    """
    path = Path(path)
    return to_label_map(_decode(path, MAX_PIXELS, labels=True), path)


def to_label_map(pixels: NDArray[Any], path: Path | str) -> NDArray[np.int32]:
    """(H, W) or (H, W, 1..4) whole numbers of any dtype to (H, W) int32 ids; `path` is for messages.

    Raises HemalumError as `read_label_map` does.
    """
    if pixels.ndim == 3:
        colors = pixels[..., :3] if pixels.shape[2] in (3, 4) else pixels[..., :1]
        if not (colors == colors[..., :1]).all():
            raise HemalumError(f"{path}: a label map has one channel, this one has colors; save ids as gray")
        pixels = colors[..., 0]
    if pixels.dtype == np.bool_:
        return pixels.astype(np.int32)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise HemalumError(f"{path}: label map holds NaN or infinite values; ids must be whole numbers")
    if pixels.dtype.kind == "f" and not (pixels == np.floor(pixels)).all():
        raise HemalumError(f"{path}: label map holds fractions; ids must be whole numbers")
    if pixels.dtype.kind not in "uif":
        raise HemalumError(f"{path}: label map has pixels of type {pixels.dtype}; ids must be whole numbers")
    if pixels.min() < 0 or pixels.max() > np.iinfo(np.int32).max:
        raise HemalumError(
            f"{path}: label ids run from {pixels.min():g} to {pixels.max():g}; they must fit 0 to 2147483647"
        )
    return pixels.astype(np.int32)


def to_rgb(pixels: NDArray[Any], name: Path | str) -> NDArray[np.uint8]:
    """(H, W), (H, W, 1..4) uint8 or (H, W) uint16 to (H, W, 3) uint8 RGB; `name` is for messages.

    Raises HemalumError for any other shape or dtype.
    """
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype == np.uint16 and pixels.ndim == 2:
        low, high = int(pixels.min()), int(pixels.max())
        log.info("%s: 16-bit gray %d..%d stretched to 0..255", name, low, high)
        pixels = stretch(pixels, low, high)
    if pixels.dtype != np.uint8:
        kind = "16-bit color" if pixels.dtype == np.uint16 else f"{pixels.dtype}"
        raise HemalumError(f"{name}: {kind} pixels; save the image with 8 bits per channel")
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    channels = pixels.shape[2] if pixels.ndim == 3 else 0
    if channels == 3:
        return np.ascontiguousarray(pixels)
    if channels not in (2, 4):
        raise HemalumError(f"{name}: pixels have shape {pixels.shape}; want (H, W) gray or (H, W, 3) RGB")
    if pixels[..., -1].min() < 255:
        log.info("%s: transparent pixels laid over white", name)
    return over_white(pixels)


def over_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay (H, W, 2) gray + alpha or (H, W, 4) RGBA over white: (H, W, 3) RGB."""
    color = pixels[..., :-1]
    if color.shape[2] == 1:
        color = np.repeat(color, 3, axis=2)
    alpha = pixels[..., -1:]
    if alpha.min() == 255:
        return np.ascontiguousarray(color)
    # white is the background of a bright-field image; what lies under full transparency is arbitrary
    weight = alpha.astype(np.float32) / 255
    blended: NDArray[np.uint8] = np.rint(color * weight + 255 * (1 - weight)).astype(np.uint8)
    return blended


def stretch(pixels: NDArray[np.uint16], low: int, high: int) -> NDArray[np.uint8]:
    """Map low..high linearly to 0..255 (all 0 when low == high)."""
    scale = 255.0 / max(high - low, 1)
    clipped = np.clip(pixels.astype(np.float32) - low, 0, high - low)
    stretched: NDArray[np.uint8] = np.rint(clipped * scale).astype(np.uint8)
    return stretched


def is_tiff(path: Path | str) -> bool:
    """Whether the file begins as a TIFF does; False for a file that cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return _is_tiff(stream.read(4))
    except OSError:
        return False


def is_image(path: Path | str) -> bool:
    """Whether the file begins as an image does that `read_image` knows; False for a file that cannot be read."""
    if is_tiff(path):
        return True
    try:
        with open_plain(Path(path)):
            return True
    except Exception:  # Pillow raises OSError, SyntaxError and more
        return False


def stated_dpi(path: Path | str) -> tuple[float, float] | None:
    """Dots per inch (x, y) that a PNG, JPEG or BMP states, or None. Raises as `read_image` does."""
    try:
        with open_plain(Path(path)) as image:
            dpi = image.info.get("dpi")
    except (OSError, SyntaxError, ValueError) as error:
        raise HemalumError(f"{path}: image is damaged or truncated ({one_line(error)})") from error
    if not isinstance(dpi, tuple) or len(dpi) != 2 or not all(float(value) > 0 for value in dpi):
        return None
    return float(dpi[0]), float(dpi[1])


def _decode(path: Path, max_pixels: int | None, *, labels: bool) -> NDArray[Any]:
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
    decode = _decode_tiff if _is_tiff(head) else _decode_plain
    pixels = decode(path, head, max_pixels, labels)
    if pixels.size == 0:
        raise HemalumError(f"{path}: image has no pixels (shape {pixels.shape})")
    return pixels


def _is_tiff(head: bytes) -> bool:
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _decode_plain(path: Path, head: bytes, max_pixels: int | None, labels: bool) -> NDArray[Any]:
    # Pillow gives a 16-bit color PNG as 8-bit without a word: ask the header (PNG, section 11.2.2)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 26 and head[24] == 16 and head[25] != 0:
        raise HemalumError(f"{path}: 16-bit color pixels; save the image with 8 bits per channel")
    try:
        with open_plain(path) as image:
            check_size(path, image.height, image.width, max_pixels)
            if labels and image.format == "JPEG":
                raise HemalumError(f"{path}: a label map cannot be a JPEG (it changes ids); use PNG or TIFF")
            if not labels:
                _check_mode(path, image.mode)
            return np.asarray(image)
    except UnidentifiedImageError:
        raise HemalumError(f"{path}: not an image that can be read (PNG, JPEG, BMP, TIFF)") from None
    except HemalumError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, zlib.error and more
        raise HemalumError(f"{path}: image is damaged or truncated ({one_line(error)})") from error


def open_plain(path: Path) -> Image.Image:
    """A PNG, JPEG or BMP as Pillow opens it, of whatever size: callers check that. Raises what Pillow raises."""
    with _pillow_limit:
        # our own limit is checked by the caller, with a message that says how to lift it
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def plain_size(path: Path) -> tuple[int, int] | None:
    """Height and width that a PNG, JPEG or BMP states, px, without decoding it; None for whatever else."""
    try:
        with open_plain(path) as image:
            return image.height, image.width
    except Exception:  # Pillow raises many; who decodes the file names what is wrong
        return None


def _check_mode(path: Path, mode: str) -> None:
    if mode in ("L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I;16L"):
        return
    mode_names = {"P": "palette", "PA": "palette", "1": "1-bit", "F": "float", "I": "32-bit integer"}
    kind = mode_names.get(mode, mode)
    raise _unsupported(path, kind)


def _unsupported(path: Path, kind: str) -> HemalumError:
    return HemalumError(f"{path}: {kind} pixels are not supported; save the image as 8-bit RGB or gray")


def _decode_tiff(path: Path, _: bytes, max_pixels: int | None, labels: bool) -> NDArray[Any]:
    import tifffile  # kept out of the import of the package: it costs 0.1 s

    try:
        with tifffile.TiffFile(path) as tiff:
            if not tiff.pages:
                raise HemalumError(f"{path}: TIFF holds no image")
            page: Any = tiff.pages[0]
            photometric = getattr(page.photometric, "name", str(page.photometric))
            if photometric == "SEPARATED":
                raise _unsupported(path, "CMYK")
            if photometric == "PALETTE" and not labels:  # ImageJ stores ids so, under a lookup table
                raise _unsupported(path, "palette")
            # four channels count as one pixel: a file may claim thousands
            check_size(
                path, int(page.imagelength) * -(-int(page.samplesperpixel) // 4), int(page.imagewidth), max_pixels
            )
            series: Any = tiff.series[0]
            pixels: NDArray[Any] = page.asarray()
            # color may be stored as planes, or as one page per channel
            axes = str(page.axes)
            if page.ndim == 2 and series.axes in ("CYX", "SYX") and series.shape[0] in (3, 4):
                pixels, axes = series.asarray(), "SYX"
            elif len(series.shape) > len(page.shape):
                log.warning("%s: a stack of %d pages; the first is taken", path, len(tiff.pages))
            if axes in ("SYX", "CYX"):
                pixels = np.moveaxis(pixels, 0, -1)
            if photometric == "MINISWHITE":
                pixels = ~pixels if pixels.dtype == np.bool_ else np.iinfo(pixels.dtype).max - pixels
            return pixels
    except HemalumError:
        raise
    except Exception as error:  # tifffile and its codecs raise zlib.error, struct.error and many more
        raise HemalumError(f"{path}: TIFF is damaged or truncated ({one_line(error)})") from error


def check_size(path: Path | str, height: int, width: int, max_pixels: int | None) -> None:
    """Raise HemalumError when an image has no pixels or more than `max_pixels`."""
    if height < 1 or width < 1:
        raise HemalumError(f"{path}: image has no pixels ({width} x {height})")
    if max_pixels is not None and height * width > max_pixels:
        raise HemalumError(
            f"{path}: {width} x {height} pixels is over the limit of {max_pixels:,}; lift it if it is meant"
        )
