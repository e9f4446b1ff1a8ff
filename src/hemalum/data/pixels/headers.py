"""What the headers of PNG, JPEG 2000 and JPEG XR say that Pillow does not."""

from pathlib import Path

from hemalum.errors import HemalumError

PNG = b"\x89PNG\r\n\x1a\n"
JPEG_XR = b"II\xbc"
WIDTH, HEIGHT, OFFSET, COUNT = 0xBC80, 0xBC81, 0xBCC0, 0xBCC1  # tags of JPEG XR
MOST_CHUNKS = 100_000


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


def png_has_exif(path: Path) -> bool:
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


def check_jpeg_2000(path: Path, data: bytes) -> None:
    """Raise HemalumError for a JPEG 2000 without an end mark: its decoder goes on with what it has."""
    # no coded data holds FF90 or more
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\x90"):
        raise HemalumError(f"{path}: image is damaged or truncated (it ends before its pixels do)")
