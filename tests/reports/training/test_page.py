"""The report of a training, from logs that are written out."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml

from hemalum.cli import main
from hemalum.errors import HemalumError
from hemalum.reports.training.figures import training_curves
from hemalum.reports.training.log import read_run
from hemalum.reports.training.page import write_run_report


def row(step: int, phase: str, optimizer: str, lr: float, dice: float, **more: float) -> dict[str, Any]:
    scores = {"set_pq": dice - 0.2, "set_dice": dice, "score": dice - 0.2, "dice": dice}
    losses = {"loss": 0.3 + more.get("loss_boundary", 0.0), "loss_dice": 0.3}
    return (
        {"step": step, "phase": phase, "optimizer": optimizer, "steps_per_second": 2.0, "lr": lr}
        | losses
        | scores
        | more
    )


ROWS = [
    row(100, "region", "lion", 1e-4, 0.80),
    row(200, "region", "lion", 1e-4, 0.95),
    row(300, "boundary", "adamw", 3e-4, 0.85, loss_boundary=-0.1, ramp=0.5, switch_step=250),
    row(400, "boundary", "adamw", 2e-4, 0.90, loss_boundary=-0.2, ramp=1.0, switch_step=250),
    row(500, "boundary", "adamw", 0.0, 0.88, loss_boundary=-0.2, ramp=1.0, switch_step=250),
]
RECIPE = {
    "name": "<my> run",
    "description": "what it is",
    "network": {"name": "al_net"},
    "phases": [
        {"name": "region", "loss": {"name": "dice"}, "until": {"steps": 350}},
        {"name": "boundary", "loss": {"name": "al_net"}, "until": {"steps": 500, "total": 500, "monitor": "dice"}},
    ],
}


def folder(tmp_path: Path, rows: list[dict[str, Any]] | None = None, recipe: dict[str, Any] | None = None) -> Path:
    text = "".join(json.dumps(one) + "\n" for one in (ROWS if rows is None else rows))
    (tmp_path / "log.jsonl").write_text(text, encoding="utf-8")
    if recipe is not None:
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return tmp_path


def test_what_the_log_says(tmp_path: Path) -> None:
    run = read_run(folder(tmp_path, recipe=RECIPE))
    assert [(one.phase, one.start, one.end) for one in run.stretches] == [("region", 0, 200), ("boundary", 200, 500)]
    assert run.switches == [(250, "lion", "adamw")]
    assert run.parts == ["loss_dice", "loss_boundary"]
    assert run.datasets == ["set"]
    assert run.factors == ["ramp"]
    assert run.steps == 500
    # the best of the phase that ran last, not the 0.95 of the first
    assert run.best is not None
    assert (run.monitor, run.best.step) == ("dice", 400)


@pytest.mark.fault
def test_the_phase_that_was_delivered_is_the_one_that_is_marked(tmp_path: Path) -> None:
    start = {key: value for key, value in row(200, "boundary", "lion", 1e-4, 0.95).items() if "loss" not in key}
    run = folder(tmp_path, [*ROWS[:2], start, *ROWS[2:]], RECIPE)
    (run / "phases.json").write_text(json.dumps({"delivered": "region", "step": 200}))
    best = read_run(run).best
    assert best is not None
    assert (best.phase, best.step) == ("region", 200)
    page = write_run_report(run).read_text(encoding="utf-8")
    assert "0.95, step 200, phase region" in page
    assert "NaN" not in page
    (run / "phases.json").write_text("{}")
    with pytest.raises(HemalumError, match=r"phases\.json does not say which phase was delivered"):
        read_run(run)


def test_the_least_loss_is_best_where_the_recipe_says_so(tmp_path: Path) -> None:
    recipe = {"phases": [{"name": "p", "until": {"steps": 9, "monitor": "loss"}}]}
    rows = [row(n, "p", "adam", 1e-3, 0.5, val_loss=loss) for n, loss in ((1, 0.9), (2, 0.4), (3, 0.6))]
    run = read_run(folder(tmp_path, rows, recipe))
    assert run.best is not None
    assert run.best.step == 2
    assert write_run_report(tmp_path).is_file()


def test_the_page_holds_everything_and_needs_nothing(tmp_path: Path) -> None:
    path = write_run_report(folder(tmp_path, recipe=RECIPE))
    page = path.read_text(encoding="utf-8")
    assert path == tmp_path / "report.html"
    assert "Training: &lt;my&gt; run" in page
    assert "lion, from step 250 on adamw" in page
    assert "0.9, step 400" in page
    assert "500 of at most 500" in page
    assert "This training is not finished" in page  # there is no model file
    assert "<strong>0.9</strong>" in page
    assert "<strong>0.95</strong>" not in page
    assert "−0.2" in page
    assert page.count("<svg") == 1
    assert not re.search(r"(src|href)=\"(?!#)|url\((?!#)|@import|<script", page)
    (tmp_path / "model.safetensors").touch()
    assert "not finished" not in write_run_report(tmp_path).read_text(encoding="utf-8")


def test_the_curves_have_their_names(tmp_path: Path) -> None:
    drawn = training_curves(read_run(folder(tmp_path, recipe=RECIPE)))
    texts = "".join(ElementTree.fromstring(drawn.svg).itertext())
    for name in ("PQ", "Dice", "boundary", "region", "lion", "adamw", "ramp", "learning rate", "Training step"):
        assert name in texts, name
    assert "At step 250 adamw takes over from lion." in drawn.alt_text
    plain = training_curves(read_run(folder(tmp_path, [row(5, "main", "adam", 1e-3, 0.5)])))
    assert "ramp" not in plain.svg


def test_a_log_of_before_there_were_names_of_optimizers(tmp_path: Path) -> None:
    old = [{"step": n, "phase": "main", "loss": 0.5, "distance": 0.2, "foreground": 0.3, "steps_per_second": 1.0,
            "lr": 0.001, "a_pq": 0.1 * n, "b_pq": 0.5, "a_dice": 0.5, "b_dice": 0.6, "score": 0.1 * n}
           for n in range(1, 4)]  # fmt: skip
    page = write_run_report(folder(tmp_path, old)).read_text(encoding="utf-8")
    assert f"Training: {tmp_path.name}" in page
    assert "0.3, step 3" in page


def test_figures_that_are_not_numbers_are_left_out(tmp_path: Path) -> None:
    rows = [row(1, "main", "adam", 1e-3, 0.5), row(2, "main", "adam", 1e-3, 0.6, set_pq=float("nan"))]
    run = read_run(folder(tmp_path, rows))
    assert "set_pq" not in run.lines[1].figures
    assert write_run_report(tmp_path).is_file()


def test_a_line_that_a_killed_run_left_unfinished_is_passed_over(tmp_path: Path) -> None:
    log = folder(tmp_path) / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 600, "pha')
    assert read_run(tmp_path).lines[-1].step == 500


@pytest.mark.fault
def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"is not the folder of a run: it has no log\.jsonl"):
        read_run(tmp_path)
    with pytest.raises(HemalumError, match="is not the folder of a run"):
        read_run(tmp_path / "none")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"log\.jsonl is empty: a run writes its first line at its first validation"),
        ('{"step": 1', "is empty"),
        ('[1, 2]\n{"step": 1, "phase": "p"}\n', r"log\.jsonl, line 1: not a line of a training's log"),
        ('{"phase": "p"}\n{"step": 1, "phase": "p"}\n', "line 1: not a line"),
        ('{"step": 1, "phase": "p", "optimiser": "adamw"}\n', "was written by version 0.1 of hemalum"),
    ],
)
def test_a_log_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(HemalumError, match=message):
        read_run(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.fault
def test_a_log_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HemalumError, match="cannot be read"):
        read_run(tmp_path)


@pytest.mark.fault
def test_a_recipe_that_is_no_yaml(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "recipe.yaml").write_text("a: [")
    with pytest.raises(HemalumError, match=r"recipe\.yaml is not readable YAML"):
        read_run(tmp_path)


def test_the_verb_says_where_the_page_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder(tmp_path, recipe=RECIPE))]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"


def test_the_end_of_a_training_draws_and_survives_what_cannot_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import hemalum.training.train

    monkeypatch.setattr(hemalum.training.train, "train", lambda *_, **__: tmp_path / "model.safetensors")
    words = ["--quiet", "train", "unet", "--data", "x", "-o", str(tmp_path)]
    assert main(words) == 0
    assert "no report of the training" in capsys.readouterr().err
    folder(tmp_path)
    assert main(words) == 0
    page = tmp_path / "report.html"
    assert page.is_file()
    page.unlink()
    monkeypatch.setattr("hemalum.reports.training.page.has_matplotlib", lambda: False)
    assert main(words[1:]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "report.html" in line]
    assert lines == ["no report.html was written, since matplotlib is not installed: pip install 'hemalum[report]'"]
    assert not page.exists()
