"""From a label file to its stored numbers: how a map is to be shown never changes its ids."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.image import (
    LOSSY,
    MAX_PIXELS,
    check_size,
    is_tiff,
    named_faults,
    open_plain,
    orientation_of,
    read_head,
)
from hemalum.data.pixels.orientation import turn
from hemalum.errors import HemalumError
from hemalum.remarks import remark

LARGEST_ID = 2**20  # tables by id stay small; larger ids (unique over a study, hashes) are only names
_INT32 = np.iinfo(np.int32).max
_PNG = b"\x89PNG\r\n\x1a\n"
_GRAY, _PALETTE = 0, 3  # color types of PNG (section 11.2.2)
_STEPS = {2: 85, 4: 17}  # between the grays to which Pillow spreads 2 and 4 bits


def read_label_map(path: Path | str) -> NDArray[np.int32]:
    """Read a label map (PNG, TIFF, BMP; one channel of whole numbers) as (H, W) int32, 0 = background.

    A palette image gives its indices; three equal channels give one of them; whole numbers stored as float
    (ImageJ's 32-bit TIFF) are taken. Ids are as stored, whether 0 is shown black or white, unless they exceed both
    `LARGEST_ID` and the number of pixels: then they become 1, 2, 3 … in their order.

    Raises HemalumError for a file that is missing, not an image, truncated, empty, too large, lossy (JPEG),
    colored, negative, or holding fractions.
    """
    return to_label_map(read_stored(Path(path)), path)


def to_label_map(pixels: NDArray[Any], path: Path | str) -> NDArray[np.int32]:
    """(H, W) or (H, W, 1..4) whole numbers of any dtype to (H, W) int32 ids; `path` is for messages.

    Raises HemalumError as `read_label_map` does.
    """
    numbers = _whole_numbers(pixels, path)
    if numbers.size and int(numbers.max()) > max(LARGEST_ID, numbers.size):
        ids, order = np.unique(numbers, return_inverse=True)
        # 0 stays 0 where it is there, and else the first id is 1
        renumbered: NDArray[np.int32] = (order.reshape(numbers.shape) + int(ids[0] != 0)).astype(np.int32)
        return renumbered
    return numbers.astype(np.int32)


def to_class_map(pixels: NDArray[Any], path: Path | str) -> NDArray[np.int32]:
    """(H, W) or (H, W, 1..4) whole numbers of any dtype to (H, W) int32 as they are; errors as `to_label_map`."""
    numbers = _whole_numbers(pixels, path)
    if numbers.size and numbers.max() > _INT32:
        raise HemalumError(f"{path}: class ids up to {int(numbers.max())}; they must be 0 to 255")
    return numbers.astype(np.int32)


def _whole_numbers(pixels: NDArray[Any], path: Path | str) -> NDArray[Any]:
    """(H, W) numbers from 0, in their own dtype."""
    if pixels.ndim == 3:
        pixels = _one_channel(pixels, path)
    if pixels.dtype == np.bool_:
        return pixels.astype(np.int32)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise HemalumError(f"{path}: label map holds NaN or infinite values; ids must be whole numbers")
    if pixels.dtype.kind == "f" and not (pixels == np.floor(pixels)).all():
        raise HemalumError(f"{path}: label map holds fractions; ids must be whole numbers")
    if pixels.dtype.kind not in "uif":
        raise HemalumError(f"{path}: label map has pixels of type {pixels.dtype}; ids must be whole numbers")
    if pixels.size and pixels.min() < 0:
        ids = f"label ids run from {pixels.min():g} to {pixels.max():g}"
        if pixels.dtype.kind == "i" and pixels.min() == np.iinfo(pixels.dtype).min:
            raise HemalumError(
                f"{path}: {ids}: those that {pixels.dtype} cannot hold became negative; save more bits"
            )
        raise HemalumError(f"{path}: {ids}; background is 0, and ids are positive")
    return pixels


def _one_channel(pixels: NDArray[Any], path: Path | str) -> NDArray[Any]:
    """The channel with the ids of (H, W, 1..4)."""
    channels = pixels.shape[2]
    colors = pixels[..., :3] if channels in (3, 4) else pixels[..., :1]
    if not (colors == colors[..., :1]).all():
        raise HemalumError(f"{path}: a label map has one channel, this one has colors; save ids as gray")
    ids = colors[..., 0]
    if channels in (2, 4) and (ids == ids.flat[0]).all() and np.ptp(pixels[..., -1]) > 0:
        raise HemalumError(f"{path}: its shapes are in the transparency alone; save ids as gray, without alpha")
    return ids


def read_stored(path: Path) -> NDArray[Any]:
    """The numbers of an image file as they are stored, (H, W) or (H, W, channels) of the file's own dtype.

    WhiteIsZero, palettes and lookup tables are for looking at; it is turned as its orientation says. Raises
    HemalumError for a file that is missing, not an image, truncated, empty, too large or of a lossy format.
    """
    head = read_head(path)
    with named_faults(path):
        pixels = _read_tiff(path) if is_tiff(path) else _read_plain(path, head)
    if pixels.size == 0:
        raise HemalumError(f"{path}: image has no pixels (shape {pixels.shape})")
    return turn(pixels, orientation_of(path))


def _read_plain(path: Path, head: bytes) -> NDArray[Any]:
    """PNG or BMP."""
    depth, color = (head[24], head[25]) if head[:8] == _PNG and len(head) >= 26 else (8, _GRAY)
    with open_plain(path) as image:
        check_size(path, image.height, image.width, MAX_PIXELS)
        if image.format in LOSSY:
            raise HemalumError(
                f"{path}: a label map cannot be a {LOSSY[image.format]} (it changes ids); use PNG or TIFF"
            )
        if depth == 16 and color not in (_GRAY, _PALETTE):  # of which Pillow keeps 8 bits, without a word
            import imagecodecs  # kept out of the import of the package, as is tifffile

            decoded: NDArray[Any] = imagecodecs.png_decode(path.read_bytes())
            return decoded
        pixels = np.asarray(image)
    return pixels // _STEPS[depth] if color == _GRAY and depth in _STEPS else pixels


def _read_tiff(path: Path) -> NDArray[Any]:
    """The first page of a TIFF; three or four pages that are the channels of one image are taken together."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        if not tiff.pages:
            raise HemalumError(f"{path}: TIFF holds no image")
        page: Any = tiff.pages[0]
        # four channels count as one pixel: a file may claim thousands
        check_size(path, int(page.imagelength) * -(-int(page.samplesperpixel) // 4), int(page.imagewidth), MAX_PIXELS)
        series: Any = tiff.series[0]
        pixels: NDArray[Any] = page.asarray()
        axes = str(page.axes)
        if page.ndim == 2 and series.axes in ("CYX", "SYX") and series.shape[0] in (3, 4):
            pixels, axes = series.asarray(), "SYX"
        elif len(series.shape) > len(page.shape):
            remark(path, f"a stack of {len(tiff.pages)} pages; the first is taken", "stack")
        return np.moveaxis(pixels, 0, -1) if axes in ("SYX", "CYX") else pixels
