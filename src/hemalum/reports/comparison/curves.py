"""Precision–recall curves of a comparison: what each method could do at every threshold, and at equal precision."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hemalum.metrics.calibration import calibration_error
from hemalum.metrics.curves import (
    PrecisionRecall,
    ProbabilityCounts,
    area_under,
    detection_curve,
    precision_recall,
    recall_at_precision,
)
from hemalum.metrics.statistics import mean_sd
from hemalum.reports.comparison.results import DatasetResults
from hemalum.reports.comparison.tables import mean_row, method_columns
from hemalum.reports.grid import Grid, Row
from hemalum.reports.numbers import number

if TYPE_CHECKING:
    from hemalum.experiments.plan import Method

PRECISIONS = (0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class MethodCurves:
    """One method's curves: one per run, all runs pooled, and where each run works (precision, recall)."""

    runs: tuple[PrecisionRecall, ...]
    pooled: PrecisionRecall | None
    points: tuple[tuple[float, float], ...]


def pooled_counts(results: DatasetResults, method: "Method") -> ProbabilityCounts | None:
    """Pixels by probability of all runs of a method together, None where it has no probabilities."""
    by_run = _counts_by_run(results, method)
    return sum(by_run, ProbabilityCounts.none()) if by_run else None


def _counts_by_run(results: DatasetResults, method: "Method") -> list[ProbabilityCounts]:
    by_run = [(run.curves or {}).get("pixel") for run in results.runs_of(method)]
    return [
        ProbabilityCounts(*(np.asarray(pixels[key]) for key in ("positive", "negative")))
        for pixels in by_run
        if pixels
    ]


def pixel_curves(results: DatasetResults, method: "Method") -> MethodCurves:
    """Curves over pixels. The working point is that of the evaluation's pooled pixels."""
    pooled = pooled_counts(results, method)
    points = [
        (number(scores.get("precision")), number(scores.get("recall")))
        for run in results.runs_of(method)
        if (scores := run.summary.get("pixel", {}).get("pooled", {}))
    ]
    return MethodCurves(
        tuple(map(precision_recall, _counts_by_run(results, method))),
        precision_recall(pooled) if pooled is not None else None,
        tuple(points),
    )


def nucleus_curves(results: DatasetResults, method: "Method") -> MethodCurves:
    """Curves over predicted nuclei, matched at IoU > 0.5."""
    by_run = [nuclei for run in results.runs_of(method) if (nuclei := (run.curves or {}).get("nuclei"))]
    return MethodCurves(
        tuple(_detection_curve([nuclei]) for nuclei in by_run),
        _detection_curve(by_run) if by_run else None,
        tuple(_nucleus_point(run.summary) for run in results.runs_of(method)),
    )


def _detection_curve(by_run: Sequence[Mapping[str, Any]]) -> PrecisionRecall:
    """The curve of the nuclei of several runs together."""
    probability = np.concatenate([np.asarray(nuclei["probability"], np.float64) for nuclei in by_run])
    matched = np.concatenate([np.asarray(nuclei["matched"], np.bool_) for nuclei in by_run])
    return detection_curve(probability, matched, sum(int(nuclei["truth"]) for nuclei in by_run))


def _nucleus_point(summary: dict[str, Any]) -> tuple[float, float]:
    """Precision and recall of nuclei, from the pooled DQ = 2 TP / (true + predicted)."""
    true, predicted = summary.get("nuclei_truth") or 0, summary.get("nuclei_predicted") or 0
    matched = number(summary.get("instance", {}).get("pooled", {}).get("dq")) * (true + predicted) / 2
    nan = float("nan")
    return (matched / predicted if predicted else nan, matched / true if true else nan)


UNITS: dict[str, Callable[[DatasetResults, "Method"], MethodCurves]] = {
    "Pixels": pixel_curves,
    "Nuclei, matched at IoU > 0.5": nucleus_curves,
}


def recall_table(results: DatasetResults) -> Grid | None:
    """Recall at equal precision, so that a moved threshold is not taken for a better model; None without curves."""
    if not any(run.curves for run in results.runs):
        return None
    rows: list[Row] = []
    for title, curves_of in UNITS.items():
        curves = [curves_of(results, method) for method in results.scored]
        if not any(curve.runs for curve in curves):
            continue
        rows.append(Row(title, heading=True))
        for name, which in (("Precision", 0), ("Recall", 1)):
            values = [[point[which] for point in curve.points] for curve in curves]
            rows.append(mean_row(f"{name} where the method works", values, bold=False))
        for precision, level in _precisions(curves[0]):
            values = [[recall_at_precision(run, precision) for run in curve.runs] for curve in curves]
            rows.append(mean_row(f"Recall at precision {level}", values))
        areas = [[area_under(run) for run in curve.runs] for curve in curves]
        rows.append(mean_row("Area under the curve (average precision)", areas, bold=title == "Pixels"))
    errors = [[calibration_error(counts) for counts in _counts_by_run(results, m)] for m in results.scored]
    if any(errors):
        rows.append(Row("Calibration of pixels", heading=True))
        rows.append(mean_row("Expected calibration error, 15 bins (0 is best)", errors, bold=False))
    without = [m.name for m in results.scored if not any(run.curves for run in results.runs_of(m))]
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
    working = round(mean_sd([precision for precision, _ in reference.points])[0], 3)
    if 0 < working <= 1 and working not in PRECISIONS:
        levels.append((working, f"{working:.3f}, the reference's"))
    return sorted(levels)
