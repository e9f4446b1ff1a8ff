"""Test-time augmentation: maps averaged over the eight turns and mirror images of what the network sees.

No network is quite the same for an image and its mirror image; the mean over all eight is. It is done window by
window, before separation, so everything that takes an engine takes this one.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.inference.maps import run_engine
from hemalum.inference.shifts import ShiftedEngine
from hemalum.models.engines.engine import Engine
from hemalum.targets.representations import Representation

Maps = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)

TTA = "mean of 8 turns and mirror images"


class SymmetricEngine:
    """An engine whose maps are the mean over the eight symmetries of the square of those of `engine`, turned back.

    Probabilities and distances turn with the image. The two channels of a tanh head are taken for a direction, along
    x and along y, whose sign and order change as well. Raises HemalumError for maps of which that is not known.
    """

    def __init__(self, engine: Engine, representation: Representation) -> None:
        self.engine = engine
        self.name, self.precision = engine.name, engine.precision
        self.parallel, self.batch = engine.parallel, engine.batch
        self.directions: list[tuple[int, int]] = []  # channels along x and y
        start = 0
        for head in representation.heads:
            if head.kind == "tanh" and len(head.channels) == 2:
                self.directions.append((start, start + 1))
            elif head.kind not in ("softmax", "sigmoid"):
                raise HemalumError(
                    f"tta: nobody has said how maps {', '.join(head.channels)} of representation "
                    f"'{representation.name}' turn with the image: leave --tta out"
                )
            start += len(head.channels)

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> Maps:
        """See `Engine.maps`."""
        total: Maps = np.zeros((), np.float32)
        for turns, mirrored in symmetries():
            seen = np.ascontiguousarray(turn(images, turns, mirrored, (1, 2)))
            total = total + self._back(run_engine(self.engine, seen, organ), turns, mirrored)
        return total / np.float32(8)

    def _back(self, maps: Maps, turns: int, mirrored: bool) -> Maps:
        """Maps (N, C, H, W) of an image that was turned, as those of the image itself."""
        result = turn_back(maps, turns, mirrored, (2, 3))
        if self.directions and (turns or mirrored):
            result = result.copy()
        for along_x, along_y in self.directions:
            for _ in range(turns):  # a quarter turn has taken (x, y) to (y, -x)
                x, y = result[:, along_x].copy(), result[:, along_y].copy()
                result[:, along_x], result[:, along_y] = -y, x
            if mirrored:
                result[:, along_x] *= -1
        return result


def symmetries() -> Iterator[tuple[int, bool]]:
    """The eight: quarter turns, and whether the image was mirrored before."""
    for mirrored in (False, True):
        for turns in range(4):
            yield turns, mirrored


def turn(array: NDArray[T], turns: int, mirrored: bool, axes: tuple[int, int]) -> NDArray[T]:
    """Mirror left and right where `mirrored`, then turn counter-clockwise; `axes` are those of y and x."""
    return np.rot90(np.flip(array, axes[1]) if mirrored else array, turns, axes)


def turn_back(array: NDArray[T], turns: int, mirrored: bool, axes: tuple[int, int]) -> NDArray[T]:
    """What `turn` was given."""
    array = np.rot90(array, -turns, axes)
    return np.flip(array, axes[1]) if mirrored else array


def with_looks(engine: Engine, representation: Representation, tta: bool, shifts: int) -> Engine:
    """The engine with so many shifts, and turned and mirrored with `tta`; what it does already is not done twice."""
    done, shifted = looks_of(engine)
    tta, shifts, engine = tta or done, shifted if shifts == 1 else shifts, without_tta(engine)
    if shifts != 1:
        engine = ShiftedEngine(engine, shifts)
    return SymmetricEngine(engine, representation) if tta else engine


def looks_of(engine: Engine) -> tuple[bool, int]:
    """Whether an engine turns and mirrors what it sees, and the number of its shifts."""
    tta = isinstance(engine, SymmetricEngine)
    inner = engine.engine if isinstance(engine, SymmetricEngine) else engine
    return tta, inner.count if isinstance(inner, ShiftedEngine) else 1


def without_tta(engine: Engine) -> Engine:
    """The engine itself: for what needs no more than one look, such as an estimate of the scale."""
    while isinstance(engine, SymmetricEngine | ShiftedEngine):
        engine = engine.engine
    return engine


def describe_tta(engine: Engine) -> dict[str, Any]:
    """What the result says of it, `tta` and `shifts`; nothing without."""
    tta, shifts = looks_of(engine)
    return ({"tta": TTA} if tta else {}) | ({"shifts": shifts} if shifts != 1 else {})
