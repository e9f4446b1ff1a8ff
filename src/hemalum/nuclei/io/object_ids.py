"""Ids of objects in GeoJSON: UUIDs that follow from the image and from where in it a nucleus lies.

So a nucleus has one id in every file of one image, with a filter or a region of interest as without.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.compiled import njit
from hemalum.nuclei.polygons import Polygons


def make_uuids(image: bytes, numbers: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """16 bytes for each of the numbers (N,), one after the other: two numbers of one image never share them.

    `image` says which it is. Each half is a bijection of 64 bits (the finalizer of SplitMix64: Steele, Lea & Flood,
    OOPSLA 2014).
    """
    seed = np.frombuffer(hashlib.sha256(image).digest()[:16], np.uint64)
    halves = np.empty((len(numbers), 2), np.uint64)
    for half in range(2):
        z = (numbers.astype(np.uint64) ^ seed[half]) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        halves[:, half] = z ^ (z >> np.uint64(31))
    return halves.astype(">u8").view(np.uint8).ravel()


def number_outlines(outlines: Polygons) -> NDArray[np.uint64]:
    """A number (N,) for each outline that follows from its points alone; of the same outline twice, two numbers."""
    words = np.ascontiguousarray(outlines.coords + np.float32(0), np.float32).view(np.uint32)  # no -0
    numbers: NDArray[np.uint64] = _hash_rings(words, outlines.offsets)
    order = np.argsort(numbers, kind="stable")
    position = np.arange(len(order))
    repeated = np.concatenate([[False], numbers[order][1:] == numbers[order][:-1]])[: len(order)]
    numbers[order] += (position - np.maximum.accumulate(np.where(repeated, 0, position))).astype(np.uint64)
    return numbers


@njit(nogil=True)
def _hash_rings(words: Any, offsets: Any) -> Any:
    numbers = np.empty(offsets.size - 1, np.uint64)
    for i in range(numbers.size):
        z = np.uint64(0)
        for j in range(offsets[i], offsets[i + 1]):
            for axis in range(2):
                z = (z ^ np.uint64(words[j, axis])) * np.uint64(0xBF58476D1CE4E5B9)
                z ^= z >> np.uint64(29)
        numbers[i] = z
    return numbers
