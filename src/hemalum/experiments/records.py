"""The finished runs of a comparison, read back from its folder.

OUT/comparison.yaml                                the plan (hemalum.experiments.plan)
OUT/costs/<method>.json                            what the method costs (hemalum.experiments.cost)
OUT/runs/<dataset>/<method>/fold<k>-seed<s>/
    training/                                      the training, where the method is trained
    summary.json, per_image.csv                    as `hemalum evaluate` writes them
    curves.json                                    counts by probability, where the method gives any
    predictions/<image>.png                        label maps, uint16
    failed.json                                    why the last attempt failed
    run.json                                       written last: the run is finished
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError, one_line
from hemalum.experiments.plan import Method, RunKey, read_plan
from hemalum.files import write_text

RUN_FILE = "run.json"
FAILED_FILE = "failed.json"
TRAINING = "training"  # the folder of a run's training
PREDICTIONS = "predictions"

_TEXT_COLUMNS = {"id", "group", "organ", "stain", "mpp_source"}


@dataclass(frozen=True)
class Run:
    """One method on one dataset, fold and seed; `fold` is 0 where there are no folds.

    `per_image` and `summary` are those of `hemalum.evaluate` with None where undefined. `cost` holds parameters,
    macs and macs_at_outputs (of an image of macs_side_px), peak_memory_mb, train_seconds, steps, steps_per_second,
    images_per_second and latency_ms, None where there is no such thing. `curves` holds counts of pixels by
    probability, and the probability of each predicted nucleus with whether it matches; None for a method without
    probabilities.
    """

    dataset: str
    method: str
    fold: int
    seed: int
    folder: Path
    per_image: list[dict[str, Any]]
    summary: dict[str, Any]
    cost: dict[str, Any]
    curves: dict[str, Any] | None


@dataclass(frozen=True)
class Comparison:
    """A comparison as far as it has come. The first method is the one that the others are tested against."""

    out: Path
    methods: tuple[Method, ...]
    datasets: dict[str, Path]
    runs: tuple[Run, ...]
    budget: str
    description: dict[str, Any]

    def dataset(self, name: str) -> Dataset:
        """Open one of the datasets. Raises HemalumError when it has moved."""
        return Dataset.open(self.datasets[name])


def cost_file(out: Path, method: str) -> Path:
    """Where a comparison keeps what a method costs."""
    return out / "costs" / f"{method}.json"


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` is finished."""
    return (folder / RUN_FILE).is_file()


def load_comparison(out: Path | str, datasets: Mapping[str, Path] | None = None) -> Comparison:
    """Read the plan and the finished runs in `out`; `datasets` says where they lie on this machine.

    Raises HemalumError when `out` is not the folder of a comparison or a file in it cannot be read.
    """
    out = Path(out)
    plan = read_plan(out)
    runs, missing = [], []
    for key in plan.run_keys:
        folder = key.folder(out)
        if is_finished(folder):
            runs.append(_read_run(out, key))
        else:
            failed = folder / FAILED_FILE
            missing.append(
                key._asdict() | ({"reason": read_json(failed).get("reason", "unknown")} if failed.is_file() else {})
            )
    description = plan.model_dump(mode="json") | {"missing": missing}
    return Comparison(
        out=out,
        methods=tuple(plan.methods),
        datasets={name: Path(data.path) for name, data in plan.datasets.items()} | dict(datasets or {}),
        runs=tuple(runs),
        budget=plan.budget,
        description=description,
    )


def _read_run(out: Path, key: RunKey) -> Run:
    folder = key.folder(out)
    curves = folder / "curves.json"
    costs = cost_file(out, key.method)
    cost = read_json(costs) if costs.is_file() else {}
    finished = folder / RUN_FILE
    trained = read_json(finished).get("cost")
    if not isinstance(trained, dict):
        raise HemalumError(f"{finished}: says no cost; remove its run's folder and run again")
    return Run(
        **key._asdict(),
        folder=folder,
        per_image=read_rows(folder / "per_image.csv"),
        summary=read_json(folder / "summary.json"),
        cost=cost | trained,
        curves=read_json(curves) if curves.is_file() else None,
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    write_text(path, json.dumps(content) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises HemalumError when the file is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise HemalumError(
            f"{path}: cannot be read ({one_line(error)}); remove its run's folder and run again"
        ) from error
    if not isinstance(content, dict):
        raise HemalumError(f"{path}: is not a JSON object; remove its run's folder and run again")
    return content


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a table of scores; numbers as float, None where a field is empty. Raises HemalumError when unreadable."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [
                {
                    key: None if not value else value if key in _TEXT_COLUMNS else float(value)
                    for key, value in row.items()
                }
                for row in csv.DictReader(stream)
            ]
    except (OSError, ValueError, TypeError, csv.Error) as error:  # TypeError: of a row with too many fields
        raise HemalumError(
            f"{path}: cannot be read ({one_line(error)}); remove its run's folder and run again"
        ) from error
