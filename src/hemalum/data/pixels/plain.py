"""Samples and orientation of PNG, JPEG, WebP, JPEG 2000 and what else Pillow opens; the size of a JPEG XR."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.pixels.orientation import AS_STORED, ORIENTATION, known_orientation
from hemalum.errors import HemalumError
from hemalum.remarks import remark

PNG = b"\x89PNG\r\n\x1a\n"
JPEG_XR = b"II\xbc"
WIDTH, HEIGHT, OFFSET, COUNT = 0xBC80, 0xBC81, 0xBCC0, 0xBCC1  # tags of JPEG XR
MOST_CHUNKS = 100_000
GRAY_MODES = ("I;16", "I;16B", "I;16L", "I", "F")


def plain_orientation(image: Image.Image, path: Path) -> int:
    """The orientation of an image that Pillow has opened; EXIF that cannot be read has none, which is said.

    Raises what Pillow raises of damaged pixels.
    """
    # Pillow decodes a PNG to look for EXIF behind its pixels: only where there is some
    if image.format == "PNG" and "exif" not in image.info:
        if not _png_has_exif(path):
            return AS_STORED
        image.load()
    try:
        return known_orientation(image.getexif().get(ORIENTATION, AS_STORED))
    except Exception:  # of Pillow's parsers, each its own
        remark(path, "its EXIF is damaged; the picture is taken as it is stored, not turned")
        return AS_STORED


def has_many_bits(image: Image.Image, path: Path) -> bool:
    """Whether these are colors of more than 8 bits, of which Pillow gives 8 without a word."""
    return image.mode not in GRAY_MODES and stored_bits(path, image.format) > 8


def plain_samples(image: Image.Image, path: Path) -> NDArray[Any]:
    """(H, W) or (H, W, S) samples of an image that Pillow has opened, without palette; frames left out are said.

    Raises HemalumError for modes that are not read; and what Pillow raises.
    """
    # a camera's JPEG has a preview or a depth map behind the picture
    frames = 1 if image.format in ("MPO", "JPEG") else int(getattr(image, "n_frames", 1))
    if frames > 1:
        remark(path, f"{frames} pictures in one file; the first is taken")
    if has_many_bits(image, path):
        return many_bits(image, path)
    mode = image.mode
    if mode in ("P", "PA", "La", "RGBa") or (mode in ("1", "L", "RGB") and "transparency" in image.info):
        clear = image.has_transparency_data
        image = image.convert("RGBA" if clear else "RGB")
    elif mode in ("RGBX", "YCbCr", "HSV"):
        image = image.convert("RGB")
    elif mode not in ("1", "L", "LA", "RGB", "RGBA", "CMYK", *GRAY_MODES):
        raise HemalumError(f"{path}: {mode} pixels are not supported; save the image as 8-bit RGB or gray")
    pixels = np.asarray(image)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def many_bits(image: Image.Image, path: Path) -> NDArray[Any]:
    """Colors of more than 8 bits of a PNG or JPEG 2000. Raises HemalumError for one that is cut off."""
    import imagecodecs  # kept out of the import of the package

    data = path.read_bytes()
    if image.format != "PNG":
        _check_jpeg_2000(path, data)
    decode = imagecodecs.png_decode if image.format == "PNG" else imagecodecs.jpeg2k_decode
    pixels: NDArray[Any] = decode(data)
    return pixels


def stored_bits(path: Path, form: str | None) -> int:
    """Bits of each sample of a PNG or JPEG 2000 file that has more than 8; else 8 at most."""
    if form not in ("PNG", "JPEG2000"):
        return 0
    with path.open("rb") as stream:
        head = stream.read(1 << 16)
    if form == "PNG":
        return 16 if head[24:25] == b"\x10" else 0  # PNG, section 11.2.2
    size = head.find(b"\xff\x4f\xff\x51")  # SOC and SIZ; bits of the first component stand 38 bytes on
    return (head[size + 42] & 0x7F) + 1 if 0 <= size < len(head) - 42 and (head[size + 42] & 0x7F) >= 8 else 0


def _png_has_exif(path: Path) -> bool:
    """Whether a PNG has EXIF or XMP somewhere, also behind its pixels; without decoding them."""
    with path.open("rb") as stream:
        if stream.read(8) != PNG:
            return False
        for _ in range(MOST_CHUNKS):
            head = stream.read(8)
            if len(head) < 8 or head[4:] == b"IEND":
                return False
            if head[4:] == b"eXIf":
                return True
            if head[4:] in (b"iTXt", b"zTXt", b"tEXt"):
                name = stream.read(min(int.from_bytes(head[:4], "big"), 22))
                if name.startswith((b"XML:com.adobe.xmp", b"Raw profile type exif")):
                    return True
                stream.seek(-len(name), 1)
            stream.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def is_jpeg_xr(path: Path | str) -> bool:
    """Whether the file begins as a JPEG XR; False for a file that cannot be read."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(3) == JPEG_XR
    except OSError:
        return False


def jpeg_xr_size(path: Path) -> tuple[int, int]:
    """Height and width that a JPEG XR states, px. Raises HemalumError where it states none, or is cut off."""
    with path.open("rb") as stream:
        stream.seek(int.from_bytes(stream.read(8)[4:], "little"))
        count = int.from_bytes(stream.read(2), "little")
        sizes = {}
        for _ in range(count):
            entry = stream.read(12)
            short = entry[2:4] == b"\x03\x00"
            sizes[int.from_bytes(entry[:2], "little")] = int.from_bytes(entry[8 : 10 if short else 12], "little")
        end = stream.seek(0, 2)
    if sizes.get(OFFSET, 0) + sizes.get(COUNT, 0) > end:  # its decoder goes on with what it has
        raise HemalumError(f"{path}: image is damaged or truncated (it ends before its pixels do)")
    if not sizes.get(WIDTH) or not sizes.get(HEIGHT):
        raise HemalumError(f"{path}: image is damaged or truncated (a JPEG XR without its size)")
    return sizes[HEIGHT], sizes[WIDTH]


def _check_jpeg_2000(path: Path, data: bytes) -> None:
    """Raise HemalumError for a JPEG 2000 without an end mark: its decoder goes on with what it has."""
    # no coded data holds FF90 or more
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\x90"):
        raise HemalumError(f"{path}: image is damaged or truncated (it ends before its pixels do)")
