"""A small picture of a large overlay, unpacked by bands: memory does not grow with its height."""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.nuclei.io.overlay import PNG_SIGNATURE, RGB_LINES

WHOLE = 1 << 23  # px: up to here a picture is unpacked whole
BAND = 1 << 21  # px that are unpacked at once
UP = 2  # the filter of every line that `write_overlay` writes: the difference to the line above


def small_picture(path: Path, side: int) -> tuple[Image.Image, tuple[int, int]]:
    """A picture whose longer side has `side` px or fewer, and the width and height of the file.

    Raises OSError, ValueError and Pillow's own errors for a file that is no picture.
    """
    with Image.open(path) as image:
        full = image.size
        shrink = min(1.0, side / max(full))
        size = max(1, round(full[0] * shrink)), max(1, round(full[1] * shrink))
        if full[0] * full[1] > WHOLE and shrink < 1:
            with suppress(_OtherProgramError):
                return _shrink(path, full, size), full
        # draft and thumbnail decode and shrink in one go where the format can
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        return image.convert("RGB"), full


class _OtherProgramError(ValueError):
    """A PNG that `write_overlay` did not write."""


def _shrink(path: Path, full: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """The mean of what lies under each pixel. Raises ValueError for a file that ends too early."""
    width, height = full
    total: NDArray[np.float32] = np.zeros((size[1], size[0], 3), np.float32)
    weight = np.zeros(size[1], np.float32)
    top = 0
    with path.open("rb") as stream:
        for band in _read_lines(stream, width):
            narrow = np.asarray(Image.fromarray(band).resize((size[0], len(band)), Image.Resampling.BOX), np.float32)
            # a line lies under one row of the small picture, or under two
            edges = np.arange(top, top + len(band) + 1) * (size[1] / height)
            first = np.minimum(edges[:-1].astype(np.int64), size[1] - 1)
            beyond = np.clip(edges[1:] - (first + 1), 0, None)
            for row, share in ((first, np.diff(edges) - beyond), (np.minimum(first + 1, size[1] - 1), beyond)):
                np.add.at(total, row, narrow * share[:, None, None].astype(np.float32))
                np.add.at(weight, row, share.astype(np.float32))
            top += len(band)
    if top != height:
        raise ValueError(f"it ends after {top} of {height} lines")
    return Image.fromarray(np.rint(total / weight[:, None, None]).astype(np.uint8))


def _read_lines(stream: IO[bytes], width: int) -> Iterator[NDArray[np.uint8]]:
    """Bands (rows, width, 3) of a PNG that `write_overlay` wrote."""
    if stream.read(8) != PNG_SIGNATURE or stream.read(25)[16:21] != RGB_LINES:
        raise _OtherProgramError("pixels of another kind")
    unpacker = zlib.decompressobj()
    length = 3 * width + 1
    above: NDArray[np.uint8] = np.zeros((1, length - 1), np.uint8)
    rest, most = b"", max(1, BAND // width) * length
    packed = _packed(stream)
    data = next(packed, None)
    while data is not None:
        rest += unpacker.decompress(data, most)
        count = len(rest) // length
        if count:
            lines = np.frombuffer(rest, np.uint8, count * length).reshape(count, length)
            if (lines[:, 0] != UP).any():
                raise _OtherProgramError("lines with another filter")
            rows = np.add.accumulate(np.concatenate([above, lines[:, 1:]]), axis=0, dtype=np.uint8)[1:]
            above, rest = rows[-1:], rest[count * length :]
            yield rows.reshape(count, width, 3)
        data = unpacker.unconsumed_tail or next(packed, None)


def _packed(stream: IO[bytes]) -> Iterator[bytes]:
    """The contents of the IDAT chunks of a PNG, behind its header."""
    while head := stream.read(8):
        data = stream.read(int.from_bytes(head[:4]) + 4)[:-4]
        if head[4:] == b"IDAT":
            yield data
