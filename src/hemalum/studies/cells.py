"""The finished cells of a comparison, read back from its folder.

OUT/comparison.yaml                                the plan (hemalum.studies.plan)
OUT/costs/<method>.json                            what the method costs (hemalum.studies.cost)
OUT/cells/<dataset>/<method>/fold<k>-seed<s>/
    run/                                           the training, where the method is trained
    summary.json, per_image.csv                    as `hemalum evaluate` writes them
    curves.json                                    counts by probability, where the method gives any
    predictions/<image>.png                        label maps, uint16
    failed.json                                    why the last attempt failed
    cell.json                                      written last: the cell is finished
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.studies.plan import PLAN_FILE, read_plan

CELL_FILE = "cell.json"
FAILED_FILE = "failed.json"  # why the last attempt at a cell failed
Kind = Literal["recipe", "model", "classical", "labels"]

_WORDS = {"id", "group", "organ"}


@dataclass(frozen=True)
class Method:
    """What is compared. `title` is a line for people; `recipe` is the recipe as trained, for kind "recipe"."""

    name: str
    kind: Kind
    title: str
    recipe: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Cell:
    """One method on one dataset, fold and seed; `fold` is 0 where there are no folds.

    `per_image` and `summary` are those of `hemalum.evaluate` with None where undefined. `cost` holds parameters,
    macs (of an image of macs_side_px), peak_memory_mb, train_seconds, steps, steps_per_second, images_per_second
    and latency_ms, None where there is no such thing. `curves` holds counts of pixels by probability, and the
    probability of each predicted nucleus with whether it matches; None for a method without probabilities.
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
    cells: tuple[Cell, ...]
    budget: str
    description: dict[str, Any]

    def dataset(self, name: str) -> Dataset:
        """Open one of the datasets. Raises HemalumError when it has moved."""
        return Dataset.open(self.datasets[name])


def cell_folder(out: Path, dataset: str, method: str, fold: int, seed: int) -> Path:
    """Where a cell lies."""
    return out / "cells" / dataset / method / f"fold{fold}-seed{seed}"


def load_comparison(out: Path | str, datasets: Mapping[str, Path] | None = None) -> Comparison:
    """Read the plan and the finished cells in `out`; `datasets` says where they lie on this machine.

    Raises HemalumError when `out` is not the folder of a comparison or a file in it cannot be read.
    """
    out = Path(out)
    if not (out / PLAN_FILE).is_file():
        raise HemalumError(f"{out}: holds no comparison ({PLAN_FILE} is missing)")
    plan = read_plan(out / PLAN_FILE)
    cells, missing = [], []
    for dataset, method, fold, seed in plan.places():
        folder = cell_folder(out, dataset, method, fold, seed)
        if (folder / CELL_FILE).is_file():
            cells.append(_read_cell(out, folder, dataset, method, fold, seed))
        else:
            place = {"dataset": dataset, "method": method, "fold": fold, "seed": seed}
            failed = folder / FAILED_FILE
            missing.append(place | ({"reason": read_json(failed)["reason"]} if failed.is_file() else {}))
    description = plan.model_dump(mode="json") | {"missing": missing}
    return Comparison(
        out=out,
        methods=tuple(Method(m.name, m.kind, m.title, m.recipe) for m in plan.methods),
        datasets={name: Path(data.path) for name, data in plan.datasets.items()} | dict(datasets or {}),
        cells=tuple(cells),
        budget=plan.budget,
        description=description,
    )


def _read_cell(out: Path, folder: Path, dataset: str, method: str, fold: int, seed: int) -> Cell:
    curves = folder / "curves.json"
    costs = out / "costs" / f"{method}.json"
    cost = read_json(costs) if costs.is_file() else {}
    return Cell(
        dataset=dataset,
        method=method,
        fold=fold,
        seed=seed,
        folder=folder,
        per_image=read_rows(folder / "per_image.csv"),
        summary=read_json(folder / "summary.json"),
        cost=cost | read_json(folder / CELL_FILE)["cost"],
        curves=read_json(curves) if curves.is_file() else None,
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises HemalumError when the file is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HemalumError(f"{path}: cannot be read ({error}); remove its cell's folder and run again") from error
    if not isinstance(content, dict):
        raise HemalumError(f"{path}: is not a JSON object; remove its cell's folder and run again")
    return content


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a table of scores; numbers as float, None where a field is empty. Raises HemalumError when unreadable."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [
                {key: (value or None) if key in _WORDS else _number(value) for key, value in row.items()}
                for row in csv.DictReader(stream)
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise HemalumError(f"{path}: cannot be read ({error}); remove its cell's folder and run again") from error


def _number(text: str) -> float | None:
    return float(text) if text else None
