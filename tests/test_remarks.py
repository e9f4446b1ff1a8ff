"""A warning about a file is printed once, and of a batch once for all files of a kind."""

import logging
from pathlib import Path

import pytest

from hemalum.remarks import gather_remarks, remark


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    names = [tmp_path / f"f{number}" for number in range(3)]
    for name in names:
        name.touch()
    return names


def test_once_for_a_file_until_it_changes(files: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        remark(files[0], "has no scale")
        remark(files[1], "has no scale")
    assert caplog.messages == [f"{files[0]}: has no scale", f"{files[1]}: has no scale"]
    files[0].write_text("other")
    remark(files[0], "has no scale")
    assert len(caplog.messages) == 3


def test_arrays_have_no_file_and_are_remarked_each_time(caplog: pytest.LogCaptureFixture) -> None:
    remark("an array", "is gray")
    remark("an array", "is gray")
    with gather_remarks():
        remark("an array", "is gray")
        remark("an array", "is gray")
    assert caplog.messages == ["an array: is gray"] * 2 + ["an array: is gray (and so 1 other file)"]


def test_a_batch_counts_files_of_a_kind(files: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):  # each verb by itself
        with gather_remarks():
            for number, file in enumerate([*files, *files]):
                remark(file, f"{number} lines are open", "open lines")
            remark(files[1], "has no scale")
            assert not caplog.messages
        assert caplog.messages == [
            f"{files[0]}: 0 lines are open (and so 2 other files)",
            f"{files[1]}: has no scale",
        ]
        caplog.clear()


def test_a_batch_within_a_batch_is_one(files: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    with gather_remarks():
        remark(files[0], "has no scale")
        with gather_remarks():
            remark(files[1], "has no scale")
    assert caplog.messages == [f"{files[0]}: has no scale (and so 1 other file)"]


def test_nothing_counts_as_printed_while_the_log_is_silent(
    files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "hemalum"):
        remark(files[0], "has no scale")
    remark(files[0], "has no scale")
    assert caplog.messages == [f"{files[0]}: has no scale"]


def test_remarks_are_printed_when_a_verb_fails(files: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        with gather_remarks():
            remark(files[0], "has no scale")
            raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        fail()
    assert caplog.messages == [f"{files[0]}: has no scale"]
