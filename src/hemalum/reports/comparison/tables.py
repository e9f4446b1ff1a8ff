"""The tables of scores and costs of a comparison."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import groupby
from operator import getitem
from typing import Any

import numpy as np

from hemalum.errors import counted
from hemalum.metrics.statistics import mean_sd
from hemalum.reports.comparison.metrics import (
    BY_THRESHOLD,
    HEADLINE,
    HEADLINE_BY_CLASS,
    KIND_TITLES,
    METRICS,
    PER_IMAGE,
    Metric,
)
from hemalum.reports.comparison.results import DatasetResults
from hemalum.reports.grid import Grid, Row
from hemalum.reports.numbers import mean_text, number

MEANS_NOTE = (
    "Mean ± standard deviation (n − 1) over the runs named in the heading; one run has none. Bold: the best mean, "
    "whether or not the difference is more than chance; see the paired tests."
)


def main_results(results: DatasetResults) -> Grid:
    """A handful of metrics, one method per line."""
    headline = HEADLINE
    if any("semantic" in run.summary for run in results.runs):
        headline += HEADLINE_BY_CLASS
    columns = [[results.mean_sd(method, metric) for method in results.scored] for metric in headline]
    best = [best_of([mean for mean, _ in column], metric) for column, metric in zip(columns, headline, strict=True)]
    rows = tuple(
        Row(
            method.name,
            (
                results.describe_runs(method),
                *(metric.text(*column[i]) for column, metric in zip(columns, headline, strict=True)),
            ),
            frozenset(k + 1 for k, methods in enumerate(best) if i in methods),
        )
        for i, method in enumerate(results.scored)
    )
    return Grid(
        caption=f"{results.name}: main results",
        corner="Method",
        columns=("Runs", *(metric.title for metric in headline)),
        rows=rows,
        notes=(
            MEANS_NOTE.replace("in the heading", "beside the method"),
            *images_note(results),
            *left_out_note(results),
        ),
        words=frozenset({0}),
    )


def images_note(results: DatasetResults) -> tuple[str, ...]:
    """Names the methods that were not scored on all images: their means speak of other images."""
    partly = [
        f"{method.name} on {results.n_images(method)}"
        for method in results.scored
        if results.n_images(method) < len(results.images)
    ]
    if not partly:
        return ()
    return (
        f"Not every method has been scored on all {counted(len(results.images), 'image')}: {', '.join(partly)}. "
        "These means are not of the same images; the paired tests are.",
    )


def left_out_note(results: DatasetResults) -> tuple[str, ...]:
    """Says of each metric of the main table how many images a method's mean leaves out, where it leaves out any."""
    metrics: dict[str, list[str]] = {}  # by how many images each method leaves out
    for metric in HEADLINE:
        if metric.averaging == "per_image":
            counts = {method.name: results.n_undefined(method, metric.key) for method in results.scored}
            if any(counts.values()):
                words = ", ".join(f"{name} {count:,}" for name, count in counts.items())
                metrics.setdefault(words, []).append(metric.name)
    if not metrics:
        return ()
    each = "; ".join(f"{', '.join(names)}: {words}" for words, names in metrics.items())
    return (
        f"Images left out of means over images, because the metric is undefined in at least one run: {each} of "
        f"{len(results.images):,}. Where the numbers differ, so do the images that the means speak of. The mean of a "
        "run leaves out the images that are undefined in that run.",
    )


def every_metric(results: DatasetResults) -> Grid:
    """Every metric under every averaging, one per line."""
    return _by_metric(results, METRICS, f"{results.name}: every metric under every averaging")


def by_threshold(results: DatasetResults) -> Grid:
    """F1 and AP at each IoU threshold."""
    return _by_metric(results, BY_THRESHOLD, f"{results.name}: F1 and AP of nuclei by IoU threshold")


def _by_metric(results: DatasetResults, metrics: Sequence[Metric], caption: str) -> Grid:
    rows: list[Row] = []
    kind = ""
    for metric in metrics:
        values = [[metric.of(run.summary) for run in results.runs_of(method)] for method in results.scored]
        if all(math.isnan(value) for by_run in values for value in by_run):
            continue
        if metric.kind != kind and metrics is METRICS:
            kind = metric.kind
            rows.append(Row(KIND_TITLES[kind], heading=True))
        rows.append(mean_row(metric.title, values, metric))
    return Grid(caption, "Metric", method_columns(results), tuple(rows), notes=(MEANS_NOTE,), folded=True)


def mean_row(head: str, values: Sequence[Sequence[float]], metric: Metric | None = None, *, bold: bool = True) -> Row:
    """Mean ± sd over the runs of each method, the best in bold."""
    pairs = [mean_sd(by_run) for by_run in values]
    texts = tuple((metric.text if metric is not None else mean_text)(*pair) for pair in pairs)
    return Row(head, texts, best_of([mean for mean, _ in pairs], metric) if bold else frozenset())


def method_columns(results: DatasetResults) -> tuple[str, ...]:
    return tuple(f"{method.name} ({results.describe_runs(method)})" for method in results.scored)


def best_of(means: Sequence[float], metric: Metric | None = None) -> frozenset[int]:
    """Where the best mean stands, ties included; nowhere for a single method."""
    defined = [mean for mean in means if not math.isnan(mean)]
    if len(defined) < 2:
        return frozenset()
    top = min(defined) if metric is not None and metric.distance else max(defined)
    return frozenset(i for i, mean in enumerate(means) if mean == top)


def by_part(results: DatasetResults, kind: str) -> Grid | None:
    """Mean over the images of each group or organ (`kind`); None where that says nothing new."""
    labels = [getattr(image, kind) for image in results.images]
    names = sorted({label for label in labels if label is not None})
    pairs = {(image.group, image.organ) for image in results.images}
    organs_again = kind == "group" and len(names) == len(pairs) == len({organ for _, organ in pairs})
    if len(names) < 2 or organs_again or (kind == "group" and len(names) >= len(labels)):
        return None
    shown = {column: PER_IMAGE[column] for column in ("dice", "aji", "pq")}
    values = {
        (column, method.name): results.image_values(method, column) for column in shown for method in results.scored
    }
    rows = []
    for name in names:
        inside = np.array([label == name for label in labels])
        nuclei = sum(image.nuclei for image, belongs in zip(results.images, inside, strict=True) if belongs)
        texts: list[str] = [f"{inside.sum():,}", f"{nuclei:,}"]
        best: set[int] = set()
        for column in shown:
            means = [mean_sd(values[column, method.name][inside])[0] for method in results.scored]
            best |= {len(texts) + i for i in best_of(means)}
            texts += map(mean_text, means)
        rows.append(Row(str(name), tuple(texts), frozenset(best)))
    return Grid(
        caption=f"{results.name}: by {kind}, mean over images",
        corner=kind.capitalize(),
        columns=("Images", "Nuclei", *(method.name for _ in shown for method in results.scored)),
        rows=tuple(rows),
        spans=(("", 2), *((name, len(results.scored)) for name in shown.values())),
        notes=(
            "Values are averaged over seeds first; an image undefined with one seed is left out. Bold: the best mean "
            "of the row, not a test.",
        ),
        folded=len(rows) > 12,
    )


def by_class(results: DatasetResults) -> Grid | None:
    """Recall of each true class; where a method gives classes, mPQ, mPQ+, bPQ and PQ of each. None without."""
    with_truth = [run.summary for run in results.runs if "found_by_class" in run.summary]
    if not with_truth:
        return None
    names = with_truth[0].get("class_names") or {}
    counts = with_truth[0]["found_by_class"]["nuclei"]
    numbered = [f"class {n + 1}" for n in range(len(counts))]
    class_names = list(names.values()) if len(names) == len(counts) else numbered

    def line(head: str, *keys: str | int) -> Row:
        """The value under `keys` of a run's summary, over the runs that have the first two of them."""
        summaries: list[list[Any]] = [[run.summary for run in results.runs_of(m)] for m in results.scored]
        return mean_row(
            head,
            [
                [number(reduce(getitem, keys, one)) for one in by_run if keys[1] in one.get(keys[0], ())]
                for by_run in summaries
            ],
        )

    rows = [
        line(
            f"Recall of {name} ({counted(count, 'nucleus')}), whatever class they are given",
            "found_by_class",
            "recall",
            k,
        )
        for k, (name, count) in enumerate(zip(class_names, counts, strict=True))
    ]
    if any("classes" in run.summary for run in results.runs):
        rows += [
            line("mPQ by tissue: mean over classes, images and tissues", "classes", "mpq_tissue"),
            line("mPQ by image: mean over the classes of an image, then over images", "classes", "mpq_image"),
            line("mPQ+: counts of each class pooled, then mean over classes", "classes", "mpq_plus"),
            line("bPQ by tissue: mean over images with nuclei, then over tissues", "binary", "bpq_tissue"),
            line("bPQ by image: mean over images with nuclei", "binary", "bpq_image"),
            *(line(f"PQ, pooled, {name}", "classes", "pq_pooled", k) for k, name in enumerate(class_names)),
        ]
    absent: list[str] = []
    if any("semantic_by_class" in run.summary for run in results.runs):
        rows += [
            line(f"{title} of pixels, {words}, {name}", "semantic_by_class", name, averaging, metric)
            for metric, title in {"f1": "F1", "iou": "IoU"}.items()
            for averaging, words in {"pooled": "pooled", "per_image": "mean over images"}.items()
            for name in class_names
        ]
        absent = next(c.summary["classes_absent"] for c in results.runs if "semantic_by_class" in c.summary)
    notes = [MEANS_NOTE, "Recall: share of the true nuclei of a class that are matched at IoU > 0.5, pooled."]
    if absent:
        notes.append(f"No true pixel is of class {', '.join(absent)}: in no mean over classes of pixels.")
    return Grid(
        caption=f"{results.name}: by class of nucleus",
        corner="Metric",
        columns=method_columns(results),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _three(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _counted(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


COSTS: dict[str, tuple[str, str, Callable[[float], str]]] = {
    "parameters": ("Network", "Parameters", _counted),
    "mpp": ("Network", "µm per pixel", "{:.3g}".format),
    "macs": ("Network", "MACs", _counted),
    "macs_at_outputs": ("Network", "MACs at outputs", _counted),
    "macs_side_px": ("Network", "of an input of (px)", "{0:,.0f} × {0:,.0f}".format),
    "latency_ms": ("Network", "Latency (ms)", _three),
    "images_per_second": ("Network", "Images per second", _three),
    "test_images_per_second": ("Whole", "Test images per second", _three),
    "steps": ("Training", "Steps", "{:,.0f}".format),
    "steps_per_second": ("Training", "Steps per second", _three),
    "train_seconds": ("Training", "Time", _duration),
    "peak_memory_mb": ("Training", "Peak memory (MB)", "{:,.0f}".format),
}


def costs(results: DatasetResults) -> Grid | None:
    """What each method costs, averaged over its runs; None where no run says."""
    table = {
        method.name: {key: mean_sd([number(c.cost.get(key)) for c in results.runs_of(method)])[0] for key in COSTS}
        for method in results.scored
    }
    kept = [key for key in COSTS if any(not math.isnan(row[key]) for row in table.values())]
    if not kept:
        return None
    side_lengths = {row["macs_side_px"] for row in table.values() if not math.isnan(row["macs_side_px"])}
    if len(side_lengths) == 1:  # said once, below the table
        kept.remove("macs_side_px")
    rows = [
        Row(name, tuple("–" if math.isnan(row[key]) else COSTS[key][2](row[key]) for key in kept))
        for name, row in table.items()
    ]
    return Grid(
        caption=f"{results.name}: cost, mean over runs",
        corner="Method",
        columns=tuple(COSTS[key][1] for key in kept),
        rows=tuple(rows),
        spans=tuple((over, len(list(under))) for over, under in groupby(COSTS[key][0] for key in kept)),
        notes=_cost_notes(results, kept, side_lengths),
    )


def _cost_notes(results: DatasetResults, kept: list[str], side_lengths: set[float]) -> tuple[str, ...]:
    notes = []
    for key, name in (("macs_rule", "MACs"), ("macs_at_outputs_rule", "MACs at outputs")):
        rules = sorted({str(run.cost[key]) for run in results.runs if run.cost.get(key)})
        notes += [f"{name}: {rule}." for rule in rules]
    if "latency_ms" in kept and len(side_lengths) == 1:
        side = f"{side_lengths.copy().pop():,.0f}"
        notes.append(
            f"Latency: one input of {side} × {side} px through the network alone; images per second: the same inputs "
            "in batches. At other µm per pixel such an input is another area of tissue."
        )
    if "test_images_per_second" in kept:
        notes.append("Whole: from a test image to its nuclei.")
    notes.append(
        "Times and memory are of the machine that ran them: compare them within one machine only. A dash: not "
        "measured, or there is no such thing."
    )
    return tuple(notes)
