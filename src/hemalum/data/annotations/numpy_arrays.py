"""Rows of a `.npy` file, one at a time: memory-mapped, never unpickled."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError

_npy: Any = np.lib.format  # public, but its functions carry no types
KIND_NAMES = {"u": "whole numbers", "i": "whole numbers", "b": "whole numbers", "f": "numbers", "U": "text"}


class NpyRows:
    """The entries along the first axis of a `.npy` file, read when asked for.

    `shape` is what is wanted, None where any length will do; `dtype_kinds` are the wanted kinds of dtype (numpy's
    letters: u, i, b, f, U). `remedy` ends the message for arrays of Python objects.

    Raises HemalumError for a file that is missing, not .npy, truncated, of another shape or dtype, or that
    holds Python objects: those are never read, since unpickling runs code from the file.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int | None, ...],
        dtype_kinds: str,
        remedy: str = "save it again as a plain array of numbers",
    ) -> None:
        self.path = path
        self.shape, self.dtype, self._fortran, self._start = _header(path)
        if self.dtype.hasobject:
            raise HemalumError(
                f"{path}: holds Python objects, and reading those would run code from the file; {remedy}"
            )
        if len(self.shape) != len(shape) or any(
            want is not None and want != have for want, have in zip(shape, self.shape, strict=True)
        ):
            raise HemalumError(f"{path}: shape is {_shown(self.shape)}, want {_shown(shape)}")
        if self.dtype.kind not in dtype_kinds:
            raise HemalumError(
                f"{path}: holds {self.dtype}, want {KIND_NAMES[dtype_kinds[0]]} ({_dtypes(dtype_kinds)})"
            )
        if min(self.shape[1:], default=1) < 1 or self.shape[0] < 0:
            raise HemalumError(f"{path}: shape is {_shown(self.shape)}; nothing can be in it")
        self._entry = math.prod(self.shape[1:]) * self.dtype.itemsize  # bytes
        size = self._start + self.shape[0] * self._entry
        there = path.stat().st_size
        if there < size:
            raise HemalumError(f"{path}: truncated: {there:,} bytes, its header promises {size:,}; get it again")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> NDArray[Any]:
        """A copy of entry `index`."""
        # a mapping of its own for each entry: pages of a long-lived one stay with the process once touched
        if self._fortran:
            mapped = np.memmap(self.path, self.dtype, "r", self._start, self.shape, order="F")
            return np.array(mapped[index])
        start = self._start + index * self._entry
        return np.array(np.memmap(self.path, self.dtype, "r", start, (1, *self.shape[1:])))[0, ...]


def read_npy(path: Path, shape: tuple[int | None, ...], dtype_kinds: str, remedy: str = "") -> NDArray[Any]:
    """A whole small `.npy` file; arguments and errors as for NpyRows."""
    rows = NpyRows(path, shape, dtype_kinds, **({"remedy": remedy} if remedy else {}))
    loaded: NDArray[Any] = np.load(rows.path, allow_pickle=False)
    return loaded


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], bool, int]:
    """Shape, dtype, whether in Fortran order, and where the numbers start."""
    try:
        with path.open("rb") as stream:
            version = _npy.read_magic(stream)
            read = {(1, 0): _npy.read_array_header_1_0, (2, 0): _npy.read_array_header_2_0}.get(version)
            if read is None:
                raise HemalumError(f"{path}: .npy version {version[0]}.{version[1]}; save it again with numpy.save")
            shape, fortran, dtype = read(stream)
            return shape, dtype, fortran, stream.tell()
    except FileNotFoundError:
        raise HemalumError(f"{path}: no such file") from None
    except OSError as error:
        raise HemalumError(f"{path}: cannot be read ({error.strerror or error})") from error
    except HemalumError:
        raise
    except Exception as error:  # NumPy's parser lets TokenError, IndentationError and TypeError through as well
        text = " ".join(str(error).split())[:120]
        raise HemalumError(f"{path}: not a .npy file, or a damaged one ({text})") from error


def _shown(shape: tuple[int | None, ...]) -> str:
    lengths = ", ".join("N" if length is None else str(length) for length in shape)
    return f"({lengths},)" if len(shape) == 1 else f"({lengths})"


def _dtypes(dtype_kinds: str) -> str:
    names = {"u": "uint", "i": "int", "b": "bool", "f": "float", "U": "unicode"}
    return ", ".join(names[kind] for kind in dtype_kinds)
