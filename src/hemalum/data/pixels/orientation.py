"""Orientation: how a picture lies in its file and how it is meant to be seen (EXIF and TIFF tag 274, 1 to 8)."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

ORIENTATION = 274  # the tag's number in EXIF and TIFF alike
AS_STORED = 1

# orientation: rows and columns change places, then rows, then columns run the other way
TURNS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

Window = tuple[int, int, int, int]  # y, x, height, width, px
Pixels = TypeVar("Pixels", bound=NDArray[Any])


def known_orientation(value: object) -> int:
    """The orientation that a tag holds; whatever is none, such as 0, is as stored."""
    return value if isinstance(value, int) and value in TURNS else AS_STORED


def is_transposed(orientation: int) -> bool:
    """Whether height and width change places."""
    return TURNS[orientation][0]


def turn(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels (H, W) or (H, W, …) as stored, in the frame in which they are meant to be seen."""
    transposed, rows, columns = TURNS[orientation]
    seen: Any = pixels.swapaxes(0, 1) if transposed else pixels
    seen = seen[:: -1 if rows else 1, :: -1 if columns else 1]
    return seen if orientation == AS_STORED else np.ascontiguousarray(seen)  # type: ignore[return-value]


def seen_shape(shape: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(H, W) in which a picture of `shape` (H, W) as stored is meant to be seen; and the other way round."""
    return (shape[1], shape[0]) if is_transposed(orientation) else shape


def stored_window(window: Window, shape: tuple[int, int], orientation: int) -> Window:
    """Where a window of the picture as seen lies in the picture as stored, whose shape is `shape` (H, W)."""
    y, x, height, width = window
    transposed, rows, columns = TURNS[orientation]
    seen = seen_shape(shape, orientation)
    y = seen[0] - y - height if rows else y
    x = seen[1] - x - width if columns else x
    return (x, y, width, height) if transposed else (y, x, height, width)


def seen_window(window: Window, shape: tuple[int, int], orientation: int) -> Window:
    """Where a window of the picture as stored, whose shape is `shape` (H, W), lies in the picture as seen."""
    y, x, height, width = window
    transposed, rows, columns = TURNS[orientation]
    if transposed:
        y, x, height, width = x, y, width, height
    seen = seen_shape(shape, orientation)
    return (seen[0] - y - height if rows else y, seen[1] - x - width if columns else x, height, width)


EXCHANGED = "; with height and width exchanged it fits: was the image turned as its orientation tag says?"


def turned_words(orientation: int) -> str:
    """What is said of an image that its file asks to be turned."""
    return (
        f"turned as its orientation tag ({orientation}) says; labels are expected, and nuclei and overlay given, "
        "in the turned frame"
    )
