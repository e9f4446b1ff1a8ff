"""Images that show the same thing though their pixels differ: re-encoded, resized, flipped or turned copies."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 16
# Correlation of thumbnails. Among the tiles of TNBC, NuInsSeg, CoNSeP and DSB2018 no two that differ reach 0.9
# (tests/data/test_near_duplicates.py); two fields of DSB2018 that are one come to 0.984, JPEG copies to 0.999.
ALIKE = 0.98
FLAT = 1.0  # gray levels (standard deviation): nearly blank images are alike without being the same
ROWS = 512  # compared at a time


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(16, 16) float32 gray of an (H, W, 3) uint8 image, each value the mean of a block."""
    gray = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(gray, np.float32)


def same_content(thumbnails: Sequence[NDArray[np.float32]]) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, of thumbnails that correlate at 0.98 or more, as they are, flipped or turned.

    Nearly blank ones are passed over.
    """
    if not thumbnails:
        return
    stack = np.stack(thumbnails)
    structured = np.flatnonzero(stack.std(axis=(1, 2)) >= FLAT)
    stack = stack[structured]
    plain = _unit(stack)
    variants = [
        _unit(np.rot90(flipped, turn, axes=(1, 2))) for flipped in (stack, stack[..., ::-1]) for turn in range(4)
    ]
    for start in range(0, len(stack), ROWS):
        block = plain[start : start + ROWS]
        alike = np.zeros((len(block), len(stack)), np.bool_)
        for variant in variants:
            alike |= block @ variant.T >= ALIKE
        for row, column in np.argwhere(alike):
            if start + row < column:
                yield int(structured[start + row]), int(structured[column])


def _unit(stack: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = stack.reshape(len(stack), SIDE * SIDE)
    flat = flat - flat.mean(axis=1, keepdims=True)
    unit: NDArray[np.float32] = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    return unit
