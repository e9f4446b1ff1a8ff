"""Our own figure beside a printed one, out of the cells of a comparison."""

import math
import statistics
from dataclasses import dataclass
from typing import Any

from hemalum.studies.cells import Comparison
from hemalum.studies.published import Column, Row


@dataclass(frozen=True)
class Ours:
    """A figure of ours in the printed unit: mean over runs, and their sd (nan for a single one)."""

    mean: float
    sd: float
    runs: int


def method_name(recipe: str) -> str:
    """What a row's recipe, or its variant, is called as a method of the comparison."""
    return recipe.replace(":", ".")


def own_figure(run: Comparison, dataset: str, row: Row, column: Column, averaging: str) -> Ours | None:
    """The figure of the first recipe; less that of the second run by run, where there are two."""
    kind = str(column.metric).partition(".")[0]
    found = [_by_run(run, dataset, recipe, row, column, averaging) for recipe in row.recipes_of(column)]
    shared = [key for key in found[0] if all(key in other for other in found)]
    values = [found[0][key] - sum(other[key] for other in found[1:]) for key in shared]
    if not values:
        return None
    if kind == "cost":  # the same network each time
        return Ours(values[0], math.nan, 1)
    return Ours(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan, len(values))


def _by_run(
    run: Comparison, dataset: str, recipe: str, row: Row, column: Column, averaging: str
) -> dict[tuple[int, int], float]:
    """A recipe's figures by fold and seed."""
    kind, _, metric = str(column.metric).partition(".")
    values = {}
    for cell in run.cells:
        if cell.dataset == dataset and cell.method == method_name(recipe):
            found = _of_cell(cell.cost, cell.summary, kind, metric, row.organs, averaging)
            if found is not None:
                values[cell.fold, cell.seed] = float(found) * column.scale
    return values


def _of_cell(
    cost: dict[str, Any], summary: dict[str, Any], kind: str, metric: str, organs: list[str], averaging: str
) -> float | None:
    """A figure of one run; of one organ's images, where the row is of an organ."""
    found: float | None
    if kind == "cost":
        found = cost.get(metric)
    elif organs:
        rows = [row for row in summary.get("by_organ", []) if _plain(row["name"]) in map(_plain, organs)]
        found = rows[0].get(metric if averaging == "per_image" else f"{metric}_{averaging}") if rows else None
    else:
        found = summary.get(kind, {}).get(averaging, {}).get(metric)
    return found


def _plain(organ: str) -> str:
    """An organ's name without what some readers put before it."""
    return organ.casefold().removeprefix("human ").strip()
