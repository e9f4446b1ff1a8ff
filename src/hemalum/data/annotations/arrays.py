"""Arrays of numbers from NumPy's `.npy` files, whole or by row, and MATLAB's `.mat` files; nothing is unpickled."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.image import MAX_PIXELS
from hemalum.errors import HemalumError, one_line

_npy: Any = np.lib.format  # public, but its functions carry no types
DTYPE_NAMES = {"u": "uint", "i": "int", "b": "bool", "f": "float", "U": "unicode"}
MATLAB_NUMBERS = ("double", "single", "logical", "int", "uint")
SAVE_NUMBERS = "save it again as a plain array of numbers"

Shape = tuple[int | None, ...]  # None where any length will do


class NpyRows:
    """The entries along the first axis of a `.npy` file, read when asked for.

    `shape` is what is wanted, None where any length will do; `dtype_kinds` are the wanted kinds of dtype (numpy's
    letters: u, i, b, f, U). `remedy` ends the message for arrays of Python objects.

    Raises HemalumError for a file that is missing, not .npy, truncated, of another shape or dtype, or that
    holds Python objects: those are never read, since unpickling runs code from the file.
    """

    def __init__(self, path: Path, shape: Shape, dtype_kinds: str, remedy: str = SAVE_NUMBERS) -> None:
        self.path = path
        self.shape, self.dtype, self._fortran, self._start = _header(path)
        if self.dtype.hasobject:
            raise HemalumError(
                f"{path}: holds Python objects, and reading those would run code from the file; {remedy}"
            )
        if not _fits(self.shape, shape):
            raise HemalumError(f"{path}: shape is {_shape_text(self.shape)}, want {_shape_text(shape)}")
        if self.dtype.kind not in dtype_kinds:
            wanted = {"f": "numbers", "U": "text"}.get(dtype_kinds[0], "whole numbers")
            names = ", ".join(DTYPE_NAMES[kind] for kind in dtype_kinds)
            raise HemalumError(f"{path}: holds {self.dtype}, want {wanted} ({names})")
        if min(self.shape[1:], default=1) < 1 or self.shape[0] < 0:
            raise HemalumError(f"{path}: shape is {_shape_text(self.shape)}; nothing can be in it")
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


def read_npy(path: Path, shape: Shape, dtype_kinds: str, remedy: str = SAVE_NUMBERS) -> NDArray[Any]:
    """A whole small `.npy` file; arguments and errors as for NpyRows."""
    NpyRows(path, shape, dtype_kinds, remedy)
    loaded: NDArray[Any] = np.load(path, allow_pickle=False)
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
        raise HemalumError(f"{path}: not a .npy file, or a damaged one ({one_line(error)})") from error


def read_mat(path: Path, wanted: Mapping[str, Shape]) -> dict[str, NDArray[Any]]:
    """The variables `wanted` of a `.mat` file (MATLAB 5 to 7.2), each of the shape given (None: any length).

    A variable is looked at in the file's directory before it is read, so that nothing but arrays of numbers of
    a sane size is ever decoded.

    Raises HemalumError for a file that is missing, no .mat, of MATLAB 7.3 (HDF5), truncated or damaged, and for
    variables that are missing, cells, structs or text, or of another shape.
    """
    from scipy.io import loadmat, whosmat  # kept out of the import of the package: it costs 0.1 s

    try:
        listed = {name: (shape, kind) for name, shape, kind in whosmat(str(path), appendmat=False)}
        for name, shape in wanted.items():
            if name not in listed:
                raise HemalumError(f"{path}: no variable {name!r}; there are {', '.join(sorted(listed)) or 'none'}")
            _check_variable(f"{path}: {name}", *listed[name], shape)
        content = loadmat(str(path), appendmat=False, variable_names=list(wanted))
    except HemalumError:
        raise
    except FileNotFoundError:
        raise HemalumError(f"{path}: no such file") from None
    except NotImplementedError:
        raise HemalumError(
            f"{path}: a MATLAB 7.3 file (HDF5), which the published ones are not; save it with -v7 in MATLAB"
        ) from None
    except Exception as error:  # scipy raises ValueError, TypeError, zlib.error and its own MatReadError
        raise HemalumError(
            f"{path}: not a .mat file, or a damaged or truncated one ({one_line(error, 100)})"
        ) from error
    lost = [name for name in wanted if name not in content]
    if lost:
        raise HemalumError(f"{path}: {lost[0]} cannot be read; the file is damaged, get it again")
    return {name: np.asarray(content[name]) for name in wanted}


def _check_variable(where: str, shape: tuple[int, ...], kind: str, wanted: Shape) -> None:
    if not kind.startswith(MATLAB_NUMBERS):
        raise HemalumError(f"{where} is of MATLAB class {kind}, want an array of numbers")
    if not _fits(shape, wanted):
        raise HemalumError(f"{where} has shape {shape}, want ({_lengths(wanted)})")
    if math.prod(shape) > MAX_PIXELS:
        raise HemalumError(f"{where} has shape {shape}, more than {MAX_PIXELS:,} values")


def _fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(want in (None, have) for want, have in zip(wanted, shape, strict=True))


def _shape_text(shape: Shape) -> str:
    return f"({_lengths(shape)},)" if len(shape) == 1 else f"({_lengths(shape)})"


def _lengths(shape: Shape) -> str:
    return ", ".join("N" if length is None else str(length) for length in shape)
