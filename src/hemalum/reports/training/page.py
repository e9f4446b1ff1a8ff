"""The report of one training: a page that works offline, made from the run's log."""

import logging
import math
import statistics
from pathlib import Path

from markupsafe import Markup

from hemalum import __version__
from hemalum.errors import HemalumError
from hemalum.files import write_text
from hemalum.reports.files import render
from hemalum.reports.grid import Grid, Row
from hemalum.reports.numbers import number_text
from hemalum.reports.style import has_matplotlib, inline, require_report
from hemalum.reports.tables import input_text
from hemalum.reports.training.figures import training_curves
from hemalum.reports.training.log import RunLog, read_run

log = logging.getLogger(__name__)

_TITLES = {
    "loss": "Loss",
    "lr": "Learning rate",
    "score": "PQ, mean",
    "dice": "Dice, mean",
    "val_loss": "Loss, val",
}


def write_run_report(folder: Path | str) -> Path:
    """Write `folder`/report.html from the run's log and give its path; a run that goes on may be looked at too.

    Raises HemalumError when it is not the folder of a run, its log is empty or damaged, matplotlib is not installed,
    or the page cannot be written.
    """
    run = read_run(folder)
    require_report()
    figure = training_curves(run)
    page = render(
        "training/page.html.j2",
        title=f"Training: {run.recipe.get('name') or run.folder.resolve().name}",
        lead=" ".join(str(run.recipe.get("description") or "").split()),
        version=__version__,
        unfinished=_unfinished(run),
        summary=_summary(run),
        caption=figure.caption,
        figure=Markup(inline(figure, "training")),
        phases=_phases(run),
        lines=_lines(run),
    )
    return write_text(run.folder / "report.html", page)


def try_run_report(folder: Path | str) -> None:
    """Write the report; where that fails, or matplotlib (an extra) is not there, one log line says so."""
    if not has_matplotlib():
        log.info("no report.html was written, since matplotlib is not installed: pip install 'hemalum[report]'")
        return
    try:
        write_run_report(folder)
    except HemalumError as error:
        log.warning("no report of the training: %s", error)


def _unfinished(run: RunLog) -> str:
    """What the page says of a run that has not written its model yet."""
    if (run.folder / "model.safetensors").is_file():
        return ""
    most = f" of at most {run.steps:,}" if run.steps else ""
    return f"This training is not finished: its log goes to step {run.lines[-1].step:,}{most}."


def _summary(run: RunLog) -> list[tuple[str, str]]:
    best, last, network = run.best, run.lines[-1], run.recipe.get("network")
    summary = []
    if isinstance(network, dict):
        summary.append(("Network", str(network.get("name"))))
    if run.recipe.get("input_range"):
        channels, input_range = str(run.recipe.get("input", "RGB")), str(run.recipe["input_range"])
        summary.append(("Input", input_text(channels, input_range)))
    if run.datasets:
        summary.append(("Validated on", ", ".join(run.datasets)))
    summary.append(("Steps", f"{last.step:,}" + (f" of at most {run.steps:,}" if run.steps else "")))
    if best is not None:
        named = {"score": "PQ", "dice": "Dice", "miou": "mIoU", "val_loss": "loss"}[run.monitor]
        of_phase = f", phase {best.phase}" if len(run.stretches) > 1 else ""
        kept = f"{number_text(best.of(run.monitor))}, step {best.step:,}{of_phase}"
        summary.append((f"Kept: best validation by {named}", kept))
        if run.monitor != "dice" and "dice" in best.figures:
            summary.append(("Its Dice", f"{best.of('dice'):.4g}"))
    for step, before, after in run.switches:
        summary.append(("Optimizer", f"{before}, from step {step:,} on {after}"))
    if not run.switches and last.optimizer:
        summary.append(("Optimizer", last.optimizer))
    speeds = [line.of("steps_per_second") for line in run.lines if "steps_per_second" in line.figures]
    if speeds:
        summary.append(("Steps per second, median", f"{statistics.median(speeds):.3g}"))
    return summary


def _phases(run: RunLog) -> Grid:
    named = {phase.get("name"): phase for phase in run.recipe.get("phases", []) if isinstance(phase, dict)}
    rows = []
    for stretch in run.stretches:
        within = [line for line in run.lines if stretch.start < line.step <= stretch.end]
        loss = named.get(stretch.phase, {}).get("loss")
        optimizers = dict.fromkeys(line.optimizer for line in within if line.optimizer)
        best = (
            max((line.of(name) for line in within if name in line.figures), default=math.nan)
            for name in ("score", "dice")
        )
        values = (
            f"{stretch.start + 1:,} to {stretch.end:,}",
            str(loss.get("name", "–") if isinstance(loss, dict) else loss or "–"),
            ", ".join(optimizers) or "–",
            *map(_text, (within[-1].of("loss"), *best)),
        )
        rows.append(Row(stretch.phase, values))
    columns = ("Steps", "Loss", "Optimizer", "Training loss at the end", "Best PQ", "Best Dice")
    return Grid("Phases", "Phase", columns, tuple(rows), words=frozenset({1, 2}))


def _lines(run: RunLog) -> Grid:
    """Every line of the log; the one whose weights are kept is bold."""
    scores = [f"{dataset}_{score}" for dataset in run.datasets for score in ("pq", "dice")]
    means = [name for name in ("score", "dice") if len(run.datasets) > 1] + ["val_loss"]
    names = ["loss", *(run.parts if len(run.parts) > 1 else []), "lr", *run.factors, *scores, *means]
    names = [name for name in names if any(name in line.figures for line in run.lines)]
    columns = ("Phase", "Optimizer", *(_title(name) for name in names))
    rows = tuple(
        Row(
            f"{line.step:,}",
            (line.phase, line.optimizer or "–", *(_text(line.of(name)) for name in names)),
            frozenset(range(len(columns))) if line is run.best else frozenset(),
        )
        for line in run.lines
    )
    notes = (
        "One line for each validation; losses are means since the line before. Bold: the weights that are kept.",
    )
    return Grid("Every validation", "Step", columns, rows, notes=notes, folded=True, words=frozenset({0, 1}))


def _title(name: str) -> str:
    if name in _TITLES:
        return _TITLES[name]
    if name.endswith("_pq"):
        return f"PQ {name.removesuffix('_pq')}"
    if name.endswith("_dice"):
        return f"Dice {name.removesuffix('_dice')}"
    words = name.removeprefix("loss_").replace("_", " ")
    return f"Loss: {words}" if name.startswith("loss_") else words[:1].upper() + words[1:]


def _text(value: float) -> str:
    return number_text(value).replace("-", "−")
