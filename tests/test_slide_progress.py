"""Progress over slides: rate and time left, on terminals and without one."""

from pathlib import Path

import pytest

from hemalum.cli.slide_progress import describe_pace, slide_progress
from hemalum.inference.slide_batch import SlideProgress


@pytest.mark.parametrize(
    ("share", "seconds", "area", "text"),
    [
        (0.0, 10.0, 5.0, ""),
        (0.5, 0.0, 5.0, ""),
        (0.25, 10.0, None, "30 s left"),
        (0.25, 10.0, 8.0, "0.2 mm²/s, 30 s left"),
        (0.1, 20.0, 100.0, "0.5 mm²/s, 3 min 00 s left"),
        (0.01, 72.0, 100.0, "0.0139 mm²/s, 1 h 58 min left"),
        (1.0, 10.0, 0.0, "0 s left"),
    ],
)
def test_pace(share: float, seconds: float, area: float | None, text: str) -> None:
    assert describe_pace(share, seconds, area) == text


def test_a_line_a_minute_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with slide_progress(2) as progress:
        progress.minutes.clock = lambda: now
        for second in range(0, 301, 10):
            now = float(second)
            progress.update(SlideProgress(Path("in/a.svs"), "segment", second / 400, 40.0))
        now = 330.0
        progress.update(SlideProgress(Path("in/a.svs"), "geojson", 0.0))
        now = 370.0
        progress.update(SlideProgress(Path("in/a.svs"), "geojson", 0.5))
        progress.finish()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "a.svs: 15 %, 0.1 mm²/s, 5 min 40 s left",
        "a.svs: 30 %, 0.1 mm²/s, 4 min 40 s left",
        "a.svs: 45 %, 0.1 mm²/s, 3 min 40 s left",
        "a.svs: 60 %, 0.1 mm²/s, 2 min 40 s left",
        "a.svs: 75 %, 0.1 mm²/s, 1 min 40 s left",
        "a.svs, geojson: 50 %, 40 s left",
    ]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    moments = iter(range(1, 1000, 100))
    with slide_progress(1, quiet=True) as progress:
        progress.minutes.clock = lambda: next(moments)
        for _ in range(2):
            progress.update(SlideProgress(Path("a.svs"), "segment", 0.5, 1.0))
    assert capsys.readouterr().err == ""
