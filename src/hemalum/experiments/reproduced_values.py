"""The value of our own runs beside a printed figure, out of the runs of a comparison."""

import math
import statistics
from dataclasses import dataclass

from hemalum.experiments.papers import Column, Row
from hemalum.experiments.records import Comparison, Run


@dataclass(frozen=True)
class ReproducedValue:
    """A figure in the printed unit: mean over runs, and their sd (nan for a single one)."""

    mean: float
    sd: float
    runs: int


def method_name(recipe: str) -> str:
    """What a row's recipe, or its variant, is called as a method of the comparison."""
    return recipe.replace(":", ".")


def reproduced_value(
    comparison: Comparison, dataset: str, row: Row, column: Column, averaging: str
) -> ReproducedValue | None:
    """The figure of the first recipe; less that of the second run by run, where there are two."""
    kind = str(column.metric).partition(".")[0]
    by_recipe = [_by_run(comparison, dataset, recipe, row, column, averaging) for recipe in row.recipes_of(column)]
    first, *subtracted = by_recipe
    shared = [key for key in first if all(key in other for other in subtracted)]
    values = [first[key] - sum(other[key] for other in subtracted) for key in shared]
    if not values:
        return None
    if kind == "cost":  # the same network each time
        return ReproducedValue(values[0], math.nan, 1)
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return ReproducedValue(statistics.fmean(values), sd, len(values))


def _by_run(
    comparison: Comparison, dataset: str, recipe: str, row: Row, column: Column, averaging: str
) -> dict[tuple[int, int], float]:
    """A recipe's figures by fold and seed."""
    kind, _, metric = str(column.metric).partition(".")
    values = {}
    for run in comparison.runs:
        if run.dataset == dataset and run.method == method_name(recipe):
            value = _value_of(run, kind, metric, row.organs, averaging)
            if value is not None:
                values[run.fold, run.seed] = float(value) * column.scale
    return values


def _value_of(run: Run, kind: str, metric: str, organs: list[str], averaging: str) -> float | None:
    """A figure of one run; of one organ's images, where the row is of an organ."""
    value: float | None
    if kind == "cost":
        value = run.cost.get(metric)
    elif organs:
        rows = [row for row in run.summary.get("by_organ", []) if _bare(row["name"]) in map(_bare, organs)]
        value = rows[0].get(metric if averaging == "per_image" else f"{metric}_{averaging}") if rows else None
    else:
        value = run.summary.get(kind, {}).get(averaging, {}).get(metric)
    return value


def _bare(organ: str) -> str:
    """An organ's name without what some readers put before it."""
    return organ.casefold().removeprefix("human ").strip()
