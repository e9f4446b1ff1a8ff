"""Tables and log lines on terminals of every kind."""

import io
import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hemalum import cli
from hemalum.cli.console import (
    comparison_progress,
    counter,
    file_progress,
    print_notes,
    print_pairs,
    print_table,
    set_up,
    steps_progress,
    training_progress,
)
from hemalum.errors import duration_text, printable

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


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which half a minute passes each time that somebody looks."""
    moments = iter(range(0, 100_000, 30))
    monkeypatch.setattr("time.monotonic", lambda: float(next(moments)))


@pytest.mark.usefixtures("ticking")
def test_a_training_says_once_a_minute_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with training_progress() as show:
        for step in range(10, 50, 10):
            show(step, 100, {})
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 4
    assert all(re.fullmatch(r"step \d0/100  [\d.]+ steps/s, (\d+ min )?\d+ s left", line) for line in lines), lines


@pytest.mark.usefixtures("ticking")
def test_images_are_counted_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    with file_progress(4) as progress:
        for name in "abcd":
            for share in (0.25, 0.5):
                progress.update(Path(f"in/{name}.png"), share)
            progress.finish()
    lines = capsys.readouterr().err.splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-d]\.png, [1-4] of 4: (25|50) %(, (\d+ min )?\d+ s left)?", line)


@pytest.mark.usefixtures("ticking")
def test_steps_and_runs_say_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with steps_progress() as show:
        for done in range(4):
            show("scoring", done, 8)
    assert re.search(r"^scoring: \d/8  (\d+ min )?\d+ s left$", capsys.readouterr().err, re.MULTILINE)
    with comparison_progress() as show_run:
        for step in (0, 10, 20, 30):
            show_run(SimpleNamespace(done=1, total=6, name="unet on tnbc", step=step, steps=60))
    printed = capsys.readouterr().err
    assert "run 2/6  unet on tnbc\n" in printed
    assert re.search(
        r"^run 2/6  unet on tnbc: step \d0/60  [\d.]+ steps/s, .* left of this run$", printed, re.MULTILINE
    )


@pytest.mark.usefixtures("ticking")
def test_quiet_says_nothing_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with training_progress(quiet=True) as show, file_progress(3, quiet=True) as files:
        for step in range(6):
            show(step, 9, {"pq": 0.5})
            files.update(Path("a.png"), 0.1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(6.6, "7 s"), (60, "1 min 00 s"), (200, "3 min 20 s"), (7501, "2 h 05 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


NASTY = ["\x1b]0;gone\x07a", "a\u202egpj.exe", "a\x00b", "\udcff.png", "a\x9b31m"]


@pytest.mark.fault
@pytest.mark.parametrize("name", NASTY)
def test_names_cannot_steer_a_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up()
    logging.getLogger("hemalum.room").warning("%s: odd", name)
    print_table(["file"], [[name]], title=name)
    print_pairs([(name, name)])
    print_notes([name])
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text)
    assert printable(name) in printed.out
    assert cli.main(["info", f"{name}.safetensors".replace("\x00", "")]) == 2
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", capsys.readouterr().err)


def test_what_is_printable_stays() -> None:
    text = "µm² ä 細胞 naïve\ttab\nline — “quoted” 🔬"
    assert printable(text) == text
