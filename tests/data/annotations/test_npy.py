"""Rows of .npy files: what is read, and that nothing is ever unpickled."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from hemalum.data.annotations.arrays import NpyRows, read_npy


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">i4", "<f8"])
def test_rows_are_those_of_the_array(tmp_path: Path, order: Literal["C", "F"], dtype: str) -> None:
    array = np.asarray(np.arange(4 * 3 * 5).reshape(4, 3, 5), dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    rows = NpyRows(tmp_path / "a.npy", (None, 3, 5), "uif")
    assert len(rows) == 4
    for index in range(4):
        assert np.array_equal(rows[index], array[index])
    assert not isinstance(rows[0], np.memmap)


def test_text(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array(["Breast", "Bile-duct"]))
    assert read_npy(tmp_path / "t.npy", (None,), "U").tolist() == ["Breast", "Bile-duct"]
    assert str(NpyRows(tmp_path / "t.npy", (None,), "U")[1]) == "Bile-duct"


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code from the file has run",))


@pytest.mark.fault
def test_objects_are_never_unpickled(
    tmp_path: Path, error_line: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.npy"
    np.save(file, np.array({"inst_map": Bomb()}, dtype=object), allow_pickle=True)
    line = error_line(lambda: NpyRows(file, (None,), "iu"))
    assert line == (
        f"{file}: holds Python objects, and reading those would run code from the file; "
        "save it again as a plain array of numbers"
    )
    file.write_bytes(pickle.dumps(Bomb()))
    assert error_line(lambda: NpyRows(file, (None,), "iu")).startswith(f"{file}: not a .npy file, or a damaged one")
    assert "has run" not in capsys.readouterr().out


@pytest.mark.fault
def test_faults(tmp_path: Path, error_line: Callable[..., str]) -> None:
    file = tmp_path / "a.npy"
    array = np.zeros((4, 3, 5), np.uint8)
    np.save(file, array)
    content = file.read_bytes()
    assert error_line(lambda: NpyRows(file, (None, 3, 6), "u")) == f"{file}: shape is (4, 3, 5), want (N, 3, 6)"
    assert error_line(lambda: NpyRows(file, (None,), "u")) == f"{file}: shape is (4, 3, 5), want (N,)"
    assert error_line(lambda: NpyRows(file, (None, 3, 5), "fi")) == f"{file}: holds uint8, want numbers (float, int)"
    file.write_bytes(content[:-1])
    assert error_line(lambda: NpyRows(file, (None, 3, 5), "u")) == (
        f"{file}: truncated: 187 bytes, its header promises 188; get it again"
    )
    file.write_bytes(content[:40])
    assert "not a .npy file, or a damaged one" in error_line(lambda: NpyRows(file, (None, 3, 5), "u"))
    file.unlink()
    assert error_line(lambda: NpyRows(file, (None, 3, 5), "u")) == f"{file}: no such file"
    file.mkdir()
    assert error_line(lambda: NpyRows(file, (None, 3, 5), "u")) == f"{file}: cannot be read (Is a directory)"


@pytest.mark.fault
@pytest.mark.parametrize("shape", [(4, 0, 5), (-4, 3, 5), (4, -3, -5)])
def test_shapes_that_hold_nothing(tmp_path: Path, error_line: Callable[..., str], shape: tuple[int, ...]) -> None:
    file = tmp_path / "a.npy"
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    assert error_line(lambda: NpyRows(file, (None, None, None), "u")) == (
        f"{file}: shape is {shape}; nothing can be in it"
    )


@pytest.mark.fault
@pytest.mark.parametrize("header", [b"{'descr': (", b"    x\n  y", b"{[]: 1}", b"{'descr': '''", b"\0\0"])
def test_headers_that_are_no_dictionary(tmp_path: Path, error_line: Callable[..., str], header: bytes) -> None:
    file = tmp_path / "a.npy"
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    assert "not a .npy file, or a damaged one" in error_line(lambda: NpyRows(file, (None,), "u"))


@pytest.mark.fault
def test_an_archive_of_arrays_is_not_one_array(tmp_path: Path, error_line: Callable[..., str]) -> None:
    np.savez(tmp_path / "a.npz", np.zeros(3))
    assert "not a .npy file" in error_line(lambda: NpyRows(tmp_path / "a.npz", (None,), "f"))


@pytest.mark.fault
def test_a_header_that_promises_more_than_there_is(tmp_path: Path, error_line: Callable[..., str]) -> None:
    file = tmp_path / "a.npy"
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 256, 256)}
        )
    assert "truncated: 128 bytes, its header promises 524,288,000,000,128" in error_line(
        lambda: NpyRows(file, (None, 256, 256), "f")
    )
