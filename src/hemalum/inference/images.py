"""Images as Python users have them: arrays of any library, PIL images, tensors, open files."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.errors import HemalumError, one_line

MAX_BYTES = 4 << 30  # of an open file, which is copied to disk to be read
TAKEN = (
    "(H, W) or (3, H, W) or (H, W, 1, 3 or 4), of uint8, of float in [0, 1] or [0, 255], or gray of uint16; "
    "an image of PIL, a path, or an open file"
)


def as_pixels(image: Any) -> NDArray[Any]:
    """An array, a tensor or an image of PIL as (H, W) uint8 or uint16, or (H, W, 1, 3 or 4) uint8.

    Floats in [0, 1] are taken times 255, floats up to 255 as they are, both rounded; the range is that of all pixels.
    (3, H, W) is turned to (H, W, 3), unless the last axis has 3 as well. Raises HemalumError for other things.
    """
    try:
        if isinstance(image, Image.Image):
            return _from_pil(image)
        pixels = _from_tensor(image) if hasattr(image, "detach") else np.asarray(image)
    except (OSError, RuntimeError, SyntaxError, TypeError, ValueError) as error:  # of PIL, torch or NumPy
        if isinstance(error, HemalumError):
            raise
        if isinstance(image, tuple | list):
            raise HemalumError("image: is no one array of numbers; of several images give a list") from error
        raise HemalumError(f"image: {type(image).__name__} cannot be read ({one_line(error)})") from error
    if pixels.dtype == object or pixels.dtype.kind not in "buif":
        raise HemalumError(f"image: cannot take {type(image).__name__} of {pixels.dtype}; want {TAKEN}")
    if pixels.ndim == 4:
        raise HemalumError(f"image: {pixels.shape} is a stack of images: give a list, list(images)")
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4)) or pixels.size == 0:
        raise HemalumError(f"image: has shape {pixels.shape}; want {TAKEN}")
    if pixels.dtype.kind == "b":
        raise HemalumError("image: is a mask of True and False, not a picture")
    return _from_floats(pixels) if pixels.dtype.kind == "f" else _from_integers(pixels)


def _from_tensor(image: Any) -> NDArray[Any]:
    """A tensor of torch, perhaps on another device, or of floats that NumPy does not have."""
    tensor = image.detach().cpu()
    pixels: NDArray[Any] = (tensor.float() if tensor.dtype.is_floating_point else tensor).numpy()
    return pixels


def _from_pil(image: Image.Image) -> NDArray[Any]:
    if image.mode in ("I;16", "I;16L", "I;16B", "I", "F"):
        return as_pixels(np.asarray(image))
    if image.mode == "L":
        return np.asarray(image)
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _from_floats(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(pixels.min()), float(pixels.max())
    if np.isnan(low):
        raise HemalumError("image: holds values that are no numbers (nan); fill them first, as with 1 for white")
    if not (low >= 0 and high <= 255):
        raise HemalumError(
            f"image: floats from {low:g} to {high:g}; want [0, 1] or [0, 255]: scale it, which nobody can do for you"
        )
    scaled: NDArray[np.uint8] = np.rint(pixels * 255 if high <= 1 else pixels).astype(np.uint8)
    return scaled


def _from_integers(pixels: NDArray[Any]) -> NDArray[Any]:
    gray = pixels.ndim == 2 or pixels.shape[-1] == 1
    if pixels.dtype == np.uint8:
        return pixels
    low, high = int(pixels.min()), int(pixels.max())
    if low >= 0 and high <= 255 and pixels.dtype != np.uint16:
        return pixels.astype(np.uint8)
    if gray and low >= 0 and high <= 65535:
        return pixels.reshape(pixels.shape[:2]).astype(np.uint16)
    raise HemalumError(f"image: {pixels.dtype} from {low} to {high}; want {TAKEN}")


@contextmanager
def as_path(stream: BinaryIO) -> Iterator[Path]:
    """An open binary file as one on disk, for as long as it is read, with the ending that its beginning tells.

    Raises HemalumError for one that cannot be read or is in text mode, an empty one, and one that is too large.
    """
    name = stream_name(stream)
    with tempfile.TemporaryDirectory(prefix="hemalum_") as folder:
        path, size = Path(folder) / (Path(name).name or "image"), 0
        with path.open("wb") as copy:
            while block := _read_block(stream, name):
                size += len(block)
                if size > MAX_BYTES:
                    raise HemalumError(f"{name}: more than {MAX_BYTES:,} bytes in an open file: give its path")
                copy.write(block)
        if not size:
            raise HemalumError(f"{name}: the open file has nothing left to read: seek(0) first")
        yield path if path.suffix else path.rename(path.with_suffix(_suffix_of(path, name)))


def stream_name(stream: Any) -> str:
    """What an open file is called: its name, "image" where it has none."""
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) and Path(name).name else "image"


def _read_block(stream: Any, name: str) -> bytes:
    if isinstance(stream, io.TextIOBase):
        raise HemalumError(f"{name}: the file is open as text; open it with mode 'rb'")
    if getattr(stream, "closed", False):
        raise HemalumError(f"{name}: the file is closed; open it again")
    if not getattr(stream, "readable", lambda: True)():
        raise HemalumError(f"{name}: the file is open for writing; open it with mode 'rb'")
    try:
        block = stream.read(1 << 20) or b""
    except (OSError, RuntimeError, ValueError) as error:  # of a connection that ended, a damaged archive
        raise HemalumError(f"{name}: the open file cannot be read ({one_line(error)})") from error
    if not isinstance(block, bytes | bytearray):
        raise HemalumError(f"{name}: the open file gives {type(block).__name__}, not bytes; open it with mode 'rb'")
    return bytes(block)


def is_stream(image: Any) -> bool:
    """Whether it is an open file."""
    return isinstance(image, io.IOBase) or (hasattr(image, "read") and not hasattr(image, "__array__"))


def _suffix_of(path: Path, name: str) -> str:
    with path.open("rb") as stream:
        start = stream.read(4)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return ".tif"
    try:
        with Image.open(path) as image:
            return f".{str(image.format).lower().replace('jpeg2000', 'jp2')}"
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise HemalumError(f"{name}: the open file is no image that can be read") from error
