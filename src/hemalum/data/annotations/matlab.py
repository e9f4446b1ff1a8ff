"""Arrays of numbers from MATLAB `.mat` files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.image import MAX_PIXELS
from hemalum.errors import HemalumError

NUMBERS = ("double", "single", "logical", "int", "uint")


def read_mat(path: Path, wanted: Mapping[str, tuple[int | None, ...]]) -> dict[str, NDArray[Any]]:
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
            _check(path, name, shape, listed)
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
        text = " ".join(str(error).split())[:100] or type(error).__name__
        raise HemalumError(f"{path}: not a .mat file, or a damaged or truncated one ({text})") from error
    lost = [name for name in wanted if name not in content]
    if lost:
        raise HemalumError(f"{path}: {lost[0]} cannot be read; the file is damaged, get it again")
    return {name: np.asarray(content[name]) for name in wanted}


def _check(
    path: Path, name: str, wanted: tuple[int | None, ...], listed: Mapping[str, tuple[tuple[int, ...], str]]
) -> None:
    if name not in listed:
        raise HemalumError(f"{path}: no variable {name!r}; there are {', '.join(sorted(listed)) or 'none'}")
    shape, kind = listed[name]
    if not kind.startswith(NUMBERS):
        raise HemalumError(f"{path}: {name} is of MATLAB class {kind}, want an array of numbers")
    if len(shape) != len(wanted) or any(
        want is not None and want != have for want, have in zip(wanted, shape, strict=True)
    ):
        lengths = ", ".join("N" if length is None else str(length) for length in wanted)
        raise HemalumError(f"{path}: {name} has shape {shape}, want ({lengths})")
    if int(np.prod(shape, dtype=np.int64)) > MAX_PIXELS:
        raise HemalumError(f"{path}: {name} has shape {shape}, more than {MAX_PIXELS:,} values")
