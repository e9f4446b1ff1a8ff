"""Arrays from .mat files, and each way in which such a file can be wrong."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from hemalum.data.annotations.arrays import read_mat

MAP = {"inst_map": (None, None)}


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    file = tmp_path / "a.mat"
    savemat(file, {"inst_map": np.arange(12, dtype=np.int32).reshape(3, 4), "id": np.arange(5)[:, None]})
    return file


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "int32", "uint16", "bool"])
def test_arrays_are_as_written(tmp_path: Path, dtype: str, compressed: bool) -> None:
    array = (np.arange(12).reshape(3, 4) % 7).astype(dtype)
    savemat(tmp_path / "a.mat", {"inst_map": array, "other": {"a": 1}}, do_compression=compressed)
    content = read_mat(tmp_path / "a.mat", MAP)
    assert list(content) == ["inst_map"]
    assert np.array_equal(content["inst_map"], array)


@pytest.mark.fault
def test_missing_variable(mat: Path, error_line: Callable[..., str]) -> None:
    wanted = MAP | {"class": (None, None)}
    assert error_line(lambda: read_mat(mat, wanted)) == f"{mat}: no variable 'class'; there are id, inst_map"


@pytest.mark.fault
def test_wrong_shape(mat: Path, error_line: Callable[..., str]) -> None:
    assert error_line(lambda: read_mat(mat, {"id": (None, 4)})) == f"{mat}: id has shape (5, 1), want (N, 4)"
    assert error_line(lambda: read_mat(mat, {"id": (None,)})) == f"{mat}: id has shape (5, 1), want (N)"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.array([[{"a": 1}, 2]], dtype=object), "cell"),
        ({"a": np.zeros((3, 4))}, "struct"),
        ("text", "char"),
    ],
)
def test_what_is_no_array_of_numbers(
    tmp_path: Path, error_line: Callable[..., str], value: object, kind: str
) -> None:
    file = tmp_path / "a.mat"
    savemat(file, {"inst_map": value})
    assert error_line(lambda: read_mat(file, MAP)) == (
        f"{file}: inst_map is of MATLAB class {kind}, want an array of numbers"
    )


@pytest.mark.fault
def test_matlab_7_3(mat: Path, error_line: Callable[..., str]) -> None:
    head = bytearray(mat.read_bytes()[:128])
    head[:19] = b"MATLAB 7.3 MAT-file"
    head[124:128] = b"\x00\x02IM"
    mat.write_bytes(bytes(head).ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(64))
    assert error_line(lambda: read_mat(mat, MAP)) == (
        f"{mat}: a MATLAB 7.3 file (HDF5), which the published ones are not; save it with -v7 in MATLAB"
    )


@pytest.mark.fault
@pytest.mark.parametrize("keep", [0, 60, 128, 140, 200])
def test_truncated(mat: Path, error_line: Callable[..., str], keep: int) -> None:
    mat.write_bytes(mat.read_bytes()[:keep])
    line = error_line(lambda: read_mat(mat, MAP))
    assert line.startswith(f"{mat}: ")
    assert "truncated" in line or line.endswith("no variable 'inst_map'; there are none")


@pytest.mark.fault
def test_truncated_when_compressed(tmp_path: Path, error_line: Callable[..., str]) -> None:
    file = tmp_path / "a.mat"
    savemat(file, {"inst_map": np.random.default_rng(0).integers(0, 99, (200, 200))}, do_compression=True)
    file.write_bytes(file.read_bytes()[:-500])
    assert "not a .mat file, or a damaged or truncated one" in error_line(lambda: read_mat(file, MAP))


@pytest.mark.fault
def test_not_a_mat_file(tmp_path: Path, error_line: Callable[..., str]) -> None:
    file = tmp_path / "a.mat"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + zlib.compress(bytes(4000)) * 4)
    assert "not a .mat file, or a damaged or truncated one" in error_line(lambda: read_mat(file, MAP))
    assert error_line(lambda: read_mat(tmp_path / "b.mat", MAP)) == f"{tmp_path / 'b.mat'}: no such file"
