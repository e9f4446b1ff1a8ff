"""Tables and log lines on terminals of every kind."""

import io
import logging
import re
import sys
from pathlib import Path

import pytest

from hemalum.cli.console import (
    counter,
    file_progress,
    print_pairs,
    print_table,
    set_up,
    training_progress,
)

HEADERS = ["file", "nuclei", "scale from"]
ROWS = [["a_file_with_quite_a_long_name_[1].png", "1,234", "estimate"], ["b.png", "5", "file"]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue())


def on_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def test_piped_tables_are_never_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    print_table(HEADERS, ROWS, title="t")
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "a_file" in line]
    assert line.split() == ["a_file_with_quite_a_long_name_[1].png", "1,234", "estimate"]
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize("width", [20, 40, 50, 54, 60, 80, 200])
def test_terminals_show_every_cell_whole(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    terminal = on_terminal(monkeypatch, width)
    print_table(HEADERS, ROWS)
    shown = terminal.text
    squeezed = "".join(shown.split())
    for row in ROWS:
        for cell in row:
            assert "".join(cell.split()) in squeezed
    if width >= 40:
        assert max(len(line.rstrip()) for line in shown.splitlines()) <= width


def test_a_narrow_terminal_gets_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch, 40)
    print_table(HEADERS, ROWS)
    assert "  nuclei: 1,234\n" in terminal.text


def test_an_empty_table_prints_its_headers(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(HEADERS, [])
    assert "nuclei" in capsys.readouterr().out


def test_pairs_with_brackets_and_long_values(capsys: pytest.CaptureFixture[str]) -> None:
    print_pairs([("command", "hemalum [x] " + "y" * 300)])
    assert "hemalum [x] " + "y" * 300 in capsys.readouterr().out


def test_pairs_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch, 30)
    print_pairs([("data", "one two three four five six seven eight"), ("x", "y" * 60)])
    lines = [line.rstrip() for line in terminal.text.splitlines()]
    assert max(map(len, lines)) <= 30
    assert "".join("".join(line for line in lines).split()) == "dataonetwothreefourfivesixseveneightx" + "y" * 60


@pytest.mark.parametrize(
    ("options", "heard"),
    [
        ({}, {"info", "warning"}),
        ({"quiet": True}, {"warning"}),
        ({"debug": True}, {"debug", "info", "warning"}),
    ],
)
def test_what_is_logged(capsys: pytest.CaptureFixture[str], options: dict[str, bool], heard: set[str]) -> None:
    set_up(**options)
    log = logging.getLogger("hemalum.room")
    for level in ("debug", "info", "warning"):
        getattr(log, level)("a line of %s [x]", level)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert {level for level in ("debug", "info", "warning") if f"a line of {level} [x]" in printed.err} == heard


def test_a_log_line_is_one_line_whatever_its_length(capsys: pytest.CaptureFixture[str]) -> None:
    set_up()
    logging.getLogger("hemalum.room").warning("%s", "x" * 300)
    assert capsys.readouterr().err == f"warning: {'x' * 300}\n"


def test_a_terminal_without_greek_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    set_up()
    print_table(["file", "µm²"], [["ä.png", "3"]])
    sys.stdout.flush()
    assert b".png" in raw.getvalue()


def test_progress_is_silent_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with file_progress(2) as progress:
        progress.update(Path("a"), 0.5)
        progress.finish()
    with counter("importing") as advance:
        advance()
    with training_progress(quiet=True) as on_progress:
        on_progress(1, 10, {"loss": 1.0})
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_training_figures_are_lines_in_a_log_file(capsys: pytest.CaptureFixture[str]) -> None:
    with training_progress() as on_progress:
        on_progress(1, 10, {})
        on_progress(2, 10, {"loss": 0.5})
    assert capsys.readouterr().err.split() == ["step", "2/10", "loss", "0.5"]
