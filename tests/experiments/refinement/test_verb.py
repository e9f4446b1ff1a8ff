"""hemalum refine."""

from pathlib import Path

import pytest

from hemalum import cli


def test_the_verb(tiny: Path, organs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["refine", str(tiny), str(organs), "-o", str(out), "--top", "2", "--epochs", "1", "--draws", "1"]
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert "needs the review server, which is not there yet: give --offline" in error
    assert not out.exists()
    assert cli.main([*words, "--offline", "--engine", "torch", "--accelerator", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "Recall by organ" in printed
    assert str(out / "model.safetensors") in printed
    assert {path.name for path in out.iterdir()} >= {"report.html", "report.md", "report.json", "uncertainty.csv"}
    assert "hemalum refine" in (out / "report.md").read_text()
