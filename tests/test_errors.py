"""Parts of lines: what was probably meant, and how many there are."""

from pathlib import Path

import pytest

from hemalum.cli import main
from hemalum.data.importing import import_dataset
from hemalum.errors import HemalumError, counted, nearest, speaking_of_options


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (["fast", "accurate"], ", did you mean 'fast'?"),
        (["typed", "accurate"], "; known: accurate, typed"),
        ([], "; there are none"),
    ],
)
def test_the_nearest_name_or_all_of_them(known: list[str], expected: str) -> None:
    assert nearest("fats", known) == expected


def test_one_thing_and_many() -> None:
    assert [counted(n, "warning") for n in (0, 1, 2000)] == ["0 warnings", "1 warning", "2,000 warnings"]
    assert counted(1, "nucleus") == "1 nucleus"
    assert counted(2, "validation image") == "2 validation images"
    assert counted(3, "nucleus") == "3 nuclei"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("give --mpp NUMBER", "give `mpp` NUMBER"),
        ("--no-tissue-mask looks everywhere", "`tissue_mask=False` looks everywhere"),
        ("(--leave-out-ambiguous)", "(`leave_out_ambiguous`)"),
        ("cellpose --save_tif", "cellpose --save_tif"),  # another program's
        ("a--b, a -- b, ---c", "a--b, a -- b, ---c"),
        ("--option names=A,B", "`option` names=A,B"),
    ],
)
def test_in_python_an_error_names_parameters(line: str, expected: str) -> None:
    assert str(HemalumError(line)) == expected
    with speaking_of_options("hemalum"):
        assert str(HemalumError(line)) == line
    assert str(HemalumError(line)) == expected


@pytest.mark.fault
def test_the_command_line_names_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    (tmp_path / "src" / "images").mkdir(parents=True)
    assert main(["import", "folder", str(tmp_path / "src"), str(tmp_path / "full")]) == 2
    assert "choose another folder, or give --overwrite" in capsys.readouterr().err
    with pytest.raises(HemalumError, match=r"choose another folder, or give `overwrite`$"):
        import_dataset("folder", tmp_path / "src", tmp_path / "full")
