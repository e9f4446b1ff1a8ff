"""The figures of a comparison: scores by image, curves, reliability, IoU thresholds, training."""

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hemalum.errors import counted
from hemalum.metrics import THRESHOLDS
from hemalum.metrics.calibration import reliability
from hemalum.metrics.statistics import mean_sd
from hemalum.reports.comparison.curves import UNITS, pooled_counts
from hemalum.reports.comparison.metrics import BY_THRESHOLD, PER_IMAGE
from hemalum.reports.comparison.results import DatasetResults
from hemalum.reports.numbers import mean_text, number
from hemalum.reports.style import INK, LINE, SOFT, SvgFigure, color_of, dash_of, draw, marker_of, short, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST_FOR_VIOLIN = 15
SQUARE = (4.4, 4.3)
BINS_SHOWN_FROM = 100  # a share of fewer pixels than this says little


def spread_figure(results: DatasetResults, column: str) -> SvgFigure | None:
    """The spread of a score over the test images, one method below the other; None where none has it."""
    titles, position = _titles(results)
    values = [(method.name, results.image_values(method, column)) for method in results.scored]
    shown = [(name, scores[np.isfinite(scores)]) for name, scores in values if np.isfinite(scores).any()]
    if not shown:
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for line, (name, scores) in enumerate(shown):
            _strip(axes, -line, scores, color_of(position[name]))
            axes.text(0, 0.36 - line, titles[name], transform=axes.get_yaxis_transform(), va="bottom", fontsize=9)
        low = min(scores.min() for _, scores in shown)
        axes.set_xlim(max(math.floor(low * 10 - 0.5) / 10, 0) if low > 0.3 else -0.02, 1.005)
        axes.set_ylim(-len(shown) + 0.45, 0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{PER_IMAGE[column]} of an image (no unit)")
        axes.set_title(PER_IMAGE[column])

    counts = {scores.size for _, scores in shown}
    n = f"{min(counts)}–{max(counts)} images" if len(counts) > 1 else counted(min(counts), "image")
    shape = "outline: density; " if max(counts) >= FEWEST_FOR_VIOLIN else ""
    medians = "; ".join(f"{titles[name]} {mean_text(float(np.median(scores)))}" for name, scores in shown)
    return SvgFigure(
        name=f"per-image-{column}",
        caption=f"{PER_IMAGE[column]} by image ({n}, averaged over seeds). Points: images; {shape}bar: middle half; "
        "white line: median.",
        alt_text=f"{PER_IMAGE[column]} by image on {results.name}. Medians: {medians}.",
        svg=draw((3.7, 0.85 + 0.78 * len(shown)), paint),
    )


def _strip(axes: "Axes", height: float, values: Any, color: str) -> None:
    from matplotlib.patches import Rectangle

    if values.size >= FEWEST_FOR_VIOLIN and np.ptp(values) > 1e-9:
        body = axes.violinplot([values], positions=[height], orientation="horizontal", widths=0.62, showextrema=False)
        for part in body["bodies"]:  # type: ignore[attr-defined]  # a list here, whatever the annotation says
            part.set(facecolor=color, edgecolor=color, alpha=0.28, linewidth=0.8)
    low, median, high = np.percentile(values, [25, 50, 75])
    axes.scatter(
        np.sort(values),
        [height + offset for offset in spread(values.size, 0.30)],
        s=11 if values.size <= 100 else 5,
        color=color,
        alpha=0.75 if values.size <= 100 else 0.4,
        linewidths=0,
    )
    if values.size > 2:
        axes.add_patch(Rectangle((low, height - 0.075), max(high - low, 1e-4), 0.15, color=color, zorder=3))
        axes.plot([median, median], [height - 0.075, height + 0.075], color="white", linewidth=2, zorder=4)


def precision_recall_figure(results: DatasetResults, title: str) -> SvgFigure | None:
    """Curves over pixels or nuclei (`title` in `UNITS`), with the points at which the methods work; None without."""
    titles, position = _titles(results)
    name, score = ("pixels", "Dice") if title == "Pixels" else ("nuclei", "F1")
    curves = [UNITS[title](results, method) for method in results.scored]
    if not any(curve.runs for curve in curves):
        return None
    points = [(p, r) for curve in curves for p, r in curve.points if math.isfinite(p) and math.isfinite(r)]
    low = min((value for point in points for value in point), default=0.0)
    low = max(math.floor((low - 0.15) * 10) / 10, 0.0)

    def paint(axes: "Axes") -> None:
        _equal_scores(axes, low, score)
        for method, curve in zip(results.scored, curves, strict=True):
            k = position[method.name]
            for run in curve.runs if len(curve.runs) > 1 else ():
                axes.plot(run.recall, run.precision, color=color_of(k), linewidth=0.6, alpha=0.4)
            if curve.pooled is not None:
                axes.plot(curve.pooled.recall, curve.pooled.precision, color=color_of(k), linestyle=dash_of(k))
            for precision, recall in curve.points:
                axes.plot(
                    [recall], [precision], marker_of(k), color=color_of(k), markeredgecolor="white", markersize=7
                )
        axes.set(xlim=(low, 1.005), ylim=(low, 1.005), aspect="equal")

    working = "; ".join(
        f"{titles[method.name]} works at precision {mean_text(mean_sd([p for p, _ in curve.points])[0])}, "
        f"recall {mean_text(mean_sd([r for _, r in curve.points])[0])}"
        for method, curve in zip(results.scored, curves, strict=True)
    )
    return _square(
        results,
        [method.name for method in results.scored],
        paint,
        ("Recall (no unit)", "Precision (no unit)", title),
        name=f"precision-recall-{name}",
        caption=f"{title}: precision and recall at every threshold, runs pooled (thick) and each run (thin). Marks: "
        f"where each run works. Gray: equal {score}." + (f" Axes begin at {low:.1f}." if low else ""),
        alt_text=f"Precision-recall curves on {results.name}, {title.lower()}. {working}.",
    )


def _equal_scores(axes: "Axes", low: float, score: str) -> None:
    """Faint lines of equal F1 (which over pixels is Dice)."""
    for level in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9):
        recall = np.linspace(level / (2 - level), 1, 60)
        precision = level * recall / (2 * recall - level)
        inside = (recall >= low) & (precision >= low)
        # a label at the right edge, where there is room for it
        if precision[-1] < low + 0.02:
            continue
        axes.plot(recall[inside], precision[inside], color=SOFT, linewidth=0.5, alpha=0.5, zorder=1)
        axes.annotate(
            f"{score} {level:.1f}" if level == 0.9 else f"{level:.1f}",
            (1.005, precision[-1]),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=7.5,
            color=SOFT,
            va="center",
            annotation_clip=False,
        )


def reliability_figure(results: DatasetResults) -> SvgFigure | None:
    """How often pixels of a probability are nucleus; None where no method gives probabilities."""
    titles, position = _titles(results)
    counts = {method.name: pooled for method in results.scored if (pooled := pooled_counts(results, method))}
    if not counts:
        return None

    def paint(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8)
        for name, pooled in counts.items():
            curve = reliability(pooled)
            shown = curve.count >= BINS_SHOWN_FROM
            axes.plot(curve.predicted[shown], curve.observed[shown], markersize=4.5, **_look(position[name]))
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")

    return _square(
        results,
        [*counts],
        paint,
        ("Predicted probability of nucleus (no unit)", "Share of pixels that are nucleus (no unit)", "Reliability"),
        name="reliability",
        caption="Pixels in 15 bins of predicted probability against the share that truly is nucleus, runs pooled. "
        f"On the diagonal: calibrated; below: too sure. Bins with fewer than {BINS_SHOWN_FROM} pixels are left out.",
        alt_text=f"Reliability curves on {results.name} of {', '.join(titles[name] for name in counts)}.",
    )


def threshold_figure(results: DatasetResults) -> SvgFigure | None:
    """F1 of nuclei against the IoU that a match needs."""
    titles, position = _titles(results)
    metrics = [metric for metric in BY_THRESHOLD if metric.key.startswith("f1_") and metric.averaging == "pooled"]
    lines = {m.name: [results.mean_sd(m, metric)[0] for metric in metrics] for m in results.scored}
    lines = {name: values for name, values in lines.items() if not all(map(math.isnan, values))}
    if not lines:
        return None

    def paint(axes: "Axes") -> None:
        for name, values in lines.items():
            axes.plot(THRESHOLDS, values, markersize=4.5, **_look(position[name]))
        axes.set(ylim=(0, 1))

    at_half = "; ".join(f"{titles[name]} {mean_text(values[0])}" for name, values in lines.items())
    return _square(
        results,
        [*lines],
        paint,
        (
            "IoU above which a nucleus counts as found (no unit)",
            "F1 of nuclei, pooled (no unit)",
            "F1 by IoU threshold",
        ),
        name="f1-by-iou",
        caption="F1 of nuclei, pooled over images, by the IoU that a match needs; mean over runs.",
        alt_text=f"F1 of nuclei by IoU threshold on {results.name}. At 0.50: {at_half}.",
    )


def training_figure(results: DatasetResults) -> SvgFigure | None:
    """The validation score by training step, one line per run; None where no run has a log."""
    titles, position = _titles(results)
    logs = [
        (method.name, log)
        for method in results.scored
        for run in results.runs_of(method)
        if (log := _scores(run.folder / "training" / "log.jsonl"))
    ]
    if not logs:
        return None

    def paint(axes: "Axes") -> None:
        for name, log in logs:
            look = _look(position[name]) | ({} if len(log) == 1 else {"marker": None})
            axes.plot(*zip(*log, strict=True), linewidth=1.1, alpha=0.8, **look)
        axes.set_xlim(left=0)

    best = "; ".join(f"{titles[name]} {mean_text(max(score for _, score in log))}" for name, log in logs)
    return _square(
        results,
        [*dict.fromkeys(name for name, _ in logs)],
        paint,
        ("Training step", "Score on the validation images (no unit)", "Training"),
        name="training",
        caption="The score on the validation images by training step, one line per run. The best step is evaluated.",
        alt_text=f"Validation score by training step on {results.name}. Best of each run: {best}.",
        marker=False,
    )


def _scores(path: Path) -> list[tuple[int, float]]:
    """(step, score) from a run's log; a line that a killed run left unfinished is passed over."""
    if not path.is_file():
        return []
    scores: list[tuple[int, float]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and math.isfinite(number(row.get("score"))):
            scores.append((int(row["step"]), float(row["score"])))
    # phases may count from 0 again: keep what goes forward
    return [scores[0], *(later for earlier, later in pairwise(scores) if later[0] > earlier[0])] if scores else []


def _titles(results: DatasetResults) -> tuple[dict[str, str], dict[str, int]]:
    titles = {method.name: short(method.name) for method in results.methods}
    return titles, {method.name: k for k, method in enumerate(results.methods)}


def _look(position: int) -> dict[str, Any]:
    return {"color": color_of(position), "linestyle": dash_of(position), "marker": marker_of(position)}


def _square(
    results: DatasetResults,
    methods: Sequence[str],
    paint: Callable[["Axes"], None],
    labels: tuple[str, str, str],
    *,
    name: str,
    caption: str,
    alt_text: str,
    marker: bool = True,
) -> SvgFigure:
    """A plot that `paint` draws, with `labels` at x, at y and above, and a legend of `methods`."""
    from matplotlib.lines import Line2D

    titles, position = _titles(results)

    def paint_all(figure: "Figure") -> None:
        axes = figure.subplots()
        paint(axes)
        looks = {method: _look(position[method]) | ({} if marker else {"marker": ""}) for method in methods}
        handles = [Line2D([], [], markersize=5, label=titles[method], **look) for method, look in looks.items()]
        # above the plot, where no curve can run through it
        columns = 1 if len(methods) <= 3 else 2
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, labelcolor=INK, handlelength=3)
        axes.grid(visible=True, color=LINE)
        axes.set(xlabel=labels[0], ylabel=labels[1], title=labels[2])

    return SvgFigure(name, caption, alt_text, draw(SQUARE, paint_all))
