"""What a run's folder says about its training: the log, line by line, and the recipe."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import yaml

from hemalum.errors import HemalumError

LOG, RECIPE, PHASES = "log.jsonl", "recipe.yaml", "phases.json"
_PLAIN = {"step", "phase", "optimizer", "switch_step", "loss", "lr", "steps_per_second"}
_PLAIN |= {"score", "dice", "f1", "miou", "val_loss"}
_MONITORS = {"pq": "score", "dice": "dice", "miou": "miou", "loss": "val_loss"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log, written at a validation; what is not a finite number is not there."""

    step: int
    phase: str
    optimizer: str
    figures: Mapping[str, float]

    def of(self, name: str) -> float:
        """A figure by its name, NaN where the line has none."""
        return self.figures.get(name, math.nan)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Lines of one phase: those from after step `start` up to step `end`."""

    phase: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RunLog:
    """A run's log, never empty, and its recipe as it was read ({} where there is none)."""

    folder: Path
    lines: tuple[Line, ...]
    recipe: Mapping[str, Any]
    delivered: tuple[str, int] | None = None  # phase and step of the model file, where several phases have ended

    def values(self, name: str) -> list[float]:
        """A figure of every line, NaN where a line has none."""
        return [line.of(name) for line in self.lines]

    @property
    def parts(self) -> list[str]:
        """Names of the losses' parts."""
        return [name for name in self._names() if name.startswith("loss_")]

    @property
    def datasets(self) -> list[str]:
        """The datasets that were validated on."""
        return [name.removesuffix("_pq") for name in self._names() if name.endswith("_pq")]

    @property
    def factors(self) -> list[str]:
        """What else was logged: scheduled weights, shares of pixels, and what a loss says about itself."""
        scores = {f"{dataset}_{score}" for dataset in self.datasets for score in ("pq", "dice", "f1", "miou")}
        return [name for name in self._names() if name not in _PLAIN | scores and not name.startswith("loss_")]

    @property
    def stretches(self) -> list[Stretch]:
        """The phases, in the order they ran."""
        stretches: list[Stretch] = []
        for phase, lines in groupby(self.lines, key=lambda line: line.phase):
            *_, last = lines
            stretches.append(Stretch(phase, stretches[-1].end if stretches else 0, last.step))
        return stretches

    @property
    def switches(self) -> list[tuple[int, str, str]]:
        """(step, optimizer before, optimizer after) of each switch."""
        switches = []
        for before, after in pairwise(self.lines):
            if before.optimizer != after.optimizer and before.optimizer and after.optimizer:
                step = after.figures.get("switch_step", before.step)
                switches.append((int(step), before.optimizer, after.optimizer))
        return switches

    @property
    def monitor(self) -> str:
        """The figure that tells which weights are kept: that of the last phase."""
        try:
            return _MONITORS[self.recipe["phases"][-1]["until"]["monitor"]]
        except (KeyError, IndexError, TypeError):  # a recipe of before there was a choice
            return "score"

    @property
    def best(self) -> Line | None:
        """The line whose weights are kept: those delivered, or the best so far of the phase that trains.

        None where there is no score.
        """
        if self.delivered is not None:
            return next((line for line in self.lines if (line.phase, line.step) == self.delivered), None)
        last = [line for line in self.lines if line.phase == self.lines[-1].phase and self.monitor in line.figures]
        sign = -1 if self.monitor == "val_loss" else 1
        return max(last, key=lambda line: sign * line.of(self.monitor), default=None)

    @property
    def result(self) -> str:
        """The score that the model was kept by, in a line: `best on validation: PQ 0.431, Dice 0.812, step 200`."""
        best = self.best
        if best is None:
            return "no validation gave a score"
        titles = {"score": "PQ", "dice": "Dice", "miou": "mIoU", "val_loss": "loss"}
        names = dict.fromkeys([self.monitor, "score", "dice"])
        figures = ", ".join(f"{titles[name]} {best.of(name):.4g}" for name in names if name in best.figures)
        return f"best on validation: {figures}, step {best.step:,} of {self.lines[-1].step:,}"

    @property
    def steps(self) -> int | None:
        """Steps that the recipe allows at most, where it says so."""
        total = 0
        try:
            for phase in self.recipe["phases"]:
                most, until = int(phase["until"]["steps"]), phase["until"].get("total")
                total += most if until is None else max(0, min(most, int(until) - total))
        except (KeyError, TypeError, ValueError):
            return None
        return total or None

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for line in self.lines for name in line.figures))


def read_run(folder: Path | str) -> RunLog:
    """Read a run's folder. A line that a killed run left unfinished is passed over.

    Raises HemalumError when it is not the folder of a run, nothing is in its log yet, or a line is no line of a log.
    """
    folder = Path(folder)
    log = folder / LOG
    if not log.is_file():
        raise HemalumError(
            f"{folder} is not the folder of a run: it has no {LOG} (hemalum train … -o RUN writes one)"
        )
    try:
        texts = log.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise HemalumError(f"{log} cannot be read: {error}") from error
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            row = json.loads(text)
            if "optimiser" in row:
                raise HemalumError(f"{log} was written by version 0.1 of hemalum, whose logs have other keys")
            lines.append(_line(row))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if number == len(texts):
                break
            raise HemalumError(f"{log}, line {number}: not a line of a training's log") from error
    if not lines:
        raise HemalumError(f"{log} is empty: a run writes its first line at its first validation")
    return RunLog(folder, tuple(lines), _recipe(folder / RECIPE), _delivered(folder / PHASES))


def _line(row: dict[str, Any]) -> Line:
    figures = {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and name != "step" and math.isfinite(value)
    }
    return Line(int(row["step"]), str(row["phase"]), str(row.get("optimizer", "")), figures)


def _delivered(path: Path) -> tuple[str, int] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return str(content["delivered"]), int(content["step"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HemalumError(f"{path} does not say which phase was delivered: {error}") from error


def _recipe(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HemalumError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from error
    return content if isinstance(content, dict) else {}
