"""Precision–recall curves of a comparison: what each method could do at every threshold, and at equal precision."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hemalum.metrics.curves import (
    PrecisionRecall,
    ProbabilityCounts,
    area_under,
    calibration_error,
    detection_curve,
    precision_recall,
    recall_at_precision,
)
from hemalum.metrics.statistics import mean_sd
from hemalum.report.comparison_metrics import mean_text, number
from hemalum.report.comparison_results import DatasetResults
from hemalum.report.comparison_tables import Grid, Row, best_of, method_columns

if TYPE_CHECKING:
    from hemalum.studies.cells import Cell, Method

PRECISIONS = (0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class MethodCurves:
    """One method's curves: one per run, all runs pooled, and where each run works (precision, recall)."""

    runs: tuple[PrecisionRecall, ...]
    pooled: PrecisionRecall | None
    points: tuple[tuple[float, float], ...]


def pixel_counts(cell: "Cell") -> ProbabilityCounts | None:
    """Pixels by probability, None where the method has no probabilities."""
    found = (cell.curves or {}).get("pixel")
    return ProbabilityCounts(np.asarray(found["positive"]), np.asarray(found["negative"])) if found else None


def pooled_counts(results: DatasetResults, method: "Method") -> ProbabilityCounts | None:
    """Pixels by probability of all runs of a method together."""
    found = [counts for cell in results.runs(method) if (counts := pixel_counts(cell)) is not None]
    return sum(found, ProbabilityCounts.none()) if found else None


def pixel_curves(results: DatasetResults, method: "Method") -> MethodCurves:
    """Curves over pixels. The working point is what the evaluation's pooled pixels say."""
    runs = [counts for cell in results.runs(method) if (counts := pixel_counts(cell)) is not None]
    pooled = pooled_counts(results, method)
    points = [
        (number(scores.get("precision")), number(scores.get("recall")))
        for cell in results.runs(method)
        if (scores := cell.summary.get("pixel", {}).get("pooled", {}))
    ]
    return MethodCurves(
        tuple(precision_recall(counts) for counts in runs),
        precision_recall(pooled) if pooled is not None else None,
        tuple(points),
    )


def nucleus_curves(results: DatasetResults, method: "Method") -> MethodCurves:
    """Curves over predicted nuclei, matched at IoU > 0.5."""
    found = [nuclei for cell in results.runs(method) if (nuclei := (cell.curves or {}).get("nuclei"))]
    runs = tuple(
        detection_curve(_floats(nuclei["probability"]), _bools(nuclei["matched"]), int(nuclei["truth"]))
        for nuclei in found
    )
    pooled = (
        detection_curve(
            np.concatenate([_floats(nuclei["probability"]) for nuclei in found]),
            np.concatenate([_bools(nuclei["matched"]) for nuclei in found]),
            sum(int(nuclei["truth"]) for nuclei in found),
        )
        if found
        else None
    )
    return MethodCurves(runs, pooled, tuple(_nucleus_point(cell.summary) for cell in results.runs(method)))


def _floats(values: Any) -> Any:
    return np.asarray(values, dtype=np.float64)


def _bools(values: Any) -> Any:
    return np.asarray(values).astype(np.bool_)


def _nucleus_point(summary: dict[str, Any]) -> tuple[float, float]:
    """Precision and recall of nuclei, from the pooled DQ = 2 TP / (true + predicted)."""
    true, predicted = summary.get("nuclei_truth") or 0, summary.get("nuclei_predicted") or 0
    matched = number(summary.get("instance", {}).get("pooled", {}).get("dq")) * (true + predicted) / 2
    nan = float("nan")
    return (matched / predicted if predicted else nan, matched / true if true else nan)


def recall_table(results: DatasetResults) -> Grid | None:
    """Recall at equal precision, so that a moved threshold is not taken for a better model; None without curves."""
    if not any(cell.curves for cell in results.cells):
        return None
    rows: list[Row] = []
    kinds: tuple[tuple[str, Callable[[DatasetResults, Method], MethodCurves]], ...] = (
        ("Pixels", pixel_curves),
        ("Nuclei, matched at IoU > 0.5", nucleus_curves),
    )
    for title, curves_of in kinds:
        curves = [curves_of(results, method) for method in results.scored]
        if not any(own.runs for own in curves):
            continue
        rows.append(Row(title, heading=True))
        rows.append(_line("Precision where the method works", [[p for p, _ in own.points] for own in curves]))
        rows.append(_line("Recall where the method works", [[r for _, r in own.points] for own in curves]))
        for precision, level in _precisions(curves[0]):
            values = [[recall_at_precision(run, precision) for run in own.runs] for own in curves]
            rows.append(_line(f"Recall at precision {level}", values, best=True))
        areas = [[area_under(run) for run in own.runs] for own in curves]
        rows.append(_line("Area under the curve (average precision)", areas, best=title == "Pixels"))
    errors = [
        [calibration_error(counts) for cell in results.runs(method) if (counts := pixel_counts(cell)) is not None]
        for method in results.scored
    ]
    if any(errors):
        rows.append(Row("Calibration of pixels", heading=True))
        rows.append(_line("Expected calibration error, 15 bins (0 is best)", errors))
    without = [m.name for m in results.scored if not any(cell.curves for cell in results.runs(m))]
    notes = [
        "Mean ± standard deviation over runs. Read along a line: at one precision for all, which method finds more? "
        "A dash: no threshold reaches the precision. Bold: the highest mean."
    ]
    if without:
        notes.append(f"No probabilities, hence one point and no curve: {', '.join(without)}.")
    return Grid(
        caption=f"{results.name}: recall at equal precision",
        corner="",
        columns=method_columns(results),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _precisions(reference: MethodCurves) -> list[tuple[float, str]]:
    """The fixed precisions, and the one that the reference works at."""
    levels = [(level, f"{level:.2f}") for level in PRECISIONS]
    own = round(mean_sd([precision for precision, _ in reference.points])[0], 3)
    if 0 < own <= 1 and own not in PRECISIONS:
        levels.append((own, f"{own:.3f}, the reference's"))
    return sorted(levels)


def _line(head: str, values: list[list[float]], *, best: bool = False) -> Row:
    pairs = [mean_sd(own) for own in values]
    marked = best_of([mean for mean, _ in pairs]) if best else frozenset()
    return Row(head, tuple(mean_text(*pair) for pair in pairs), marked)
