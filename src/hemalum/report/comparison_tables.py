"""The tables of a comparison, as plain text in rows; the page and the Markdown file draw the same ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hemalum.metrics.statistics import FEWEST_PAIRS
from hemalum.report.comparison_metrics import (
    BY_THRESHOLD,
    HEADLINE,
    HEADLINE_BY_CLASS,
    KINDS,
    METRICS,
    PER_IMAGE,
    PER_IMAGE_BY_CLASS,
    Metric,
    mean_text,
)
from hemalum.report.comparison_results import DatasetResults, counted
from hemalum.report.comparison_tests import (
    FEWEST_GROUPS,
    PairedTest,
    decimals_of,
    interval_text,
    p_text,
)

MEANS_NOTE = (
    "Mean ± standard deviation (n − 1) over the runs named in the heading; one run has none. Bold: the best mean, "
    "whether or not the difference is more than chance; see the paired tests."
)


@dataclass(frozen=True)
class Row:
    """One line; `best` are the columns in bold. A `heading` has no values and spans the table."""

    head: str
    values: tuple[str, ...] = ()
    best: frozenset[int] = frozenset()
    heading: bool = False


@dataclass(frozen=True)
class Grid:
    """A table. `spans` are headings above the columns, with how many they stand over; `folded` starts closed."""

    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    spans: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    folded: bool = False
    words: frozenset[int] = field(default=frozenset())  # columns of prose, set flush left


def main_results(results: DatasetResults) -> Grid:
    """A handful of metrics, one method per line."""
    headline = HEADLINE
    if any("semantic" in cell.summary for cell in results.cells):
        headline += HEADLINE_BY_CLASS
    columns = [[results.mean_sd(method, metric) for method in results.scored] for metric in headline]
    best = [best_of([mean for mean, _ in column], metric) for column, metric in zip(columns, headline, strict=True)]
    rows = tuple(
        Row(
            method.name,
            (
                results.runs_said(method),
                *(metric.text(*column[i]) for column, metric in zip(columns, headline, strict=True)),
            ),
            frozenset(k + 1 for k, found in enumerate(best) if i in found),
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
    said: dict[str, list[str]] = {}
    for metric in HEADLINE:
        if metric.averaging == "per_image":
            counts = {method.name: results.n_undefined(method, metric.key) for method in results.scored}
            if any(counts.values()):
                words = ", ".join(f"{name} {count:,}" for name, count in counts.items())
                said.setdefault(words, []).append(metric.name)
    if not said:
        return ()
    each = "; ".join(f"{', '.join(names)}: {words}" for words, names in said.items())
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
        values = [results.mean_sd(method, metric) for method in results.scored]
        if all(math.isnan(mean) for mean, _ in values):
            continue
        if metric.kind != kind and metrics is METRICS:
            kind = metric.kind
            rows.append(Row(KINDS[kind], heading=True))
        texts = tuple(metric.text(mean, sd) for mean, sd in values)
        rows.append(Row(metric.title, texts, best_of([mean for mean, _ in values], metric)))
    return Grid(caption, "Metric", method_columns(results), tuple(rows), notes=(MEANS_NOTE,), folded=True)


def method_columns(results: DatasetResults) -> tuple[str, ...]:
    return tuple(f"{method.name} ({results.runs_said(method)})" for method in results.scored)


def best_of(means: Sequence[float], metric: Metric | None = None) -> frozenset[int]:
    """Where the best mean stands, ties included; nowhere for a single method."""
    defined = [mean for mean in means if not math.isnan(mean)]
    if len(defined) < 2:
        return frozenset()
    top = min(defined) if metric is not None and metric.distance else max(defined)
    return frozenset(i for i, mean in enumerate(means) if mean == top)


def paired_tests(results: DatasetResults, tests: Sequence[PairedTest], *, folded: bool = False) -> Grid:
    """The paired tests of one family."""
    grouped = results.grouped
    rows: list[Row] = []
    pair = ("", "")
    for tested in tests:
        paired, decimals = tested.paired, decimals_of(tested.column)
        if (tested.method, tested.against) != pair:
            pair = (tested.method, tested.against)
            rows.append(Row(f"{pair[0]} − {pair[1]}", heading=True))
        values = [
            f"{paired.n:,} ({paired.n_groups:,})" if grouped else f"{paired.n:,}",
            mean_text(paired.mean_difference, decimals=decimals, sign="+"),
            interval_text(paired, decimals),
            mean_text(paired.effect_size, decimals=2, sign="+"),
            p_text(paired.p),
            p_text(tested.adjusted),
            *([p_text(paired.p_groups), p_text(tested.adjusted_groups)] if grouped else []),
            mean_text(paired.detectable, decimals=decimals),
            *([mean_text(paired.detectable_groups, decimals=decimals)] if grouped else []),
        ]
        rows.append(Row((PER_IMAGE | PER_IMAGE_BY_CLASS)[tested.column], tuple(values)))
    by = ("by image", "by group") if grouped else ("",)
    spans = [("", 4), *((f"Wilcoxon test {unit}".strip(), 2) for unit in by), ("Detectable difference", len(by))]
    columns = ["Images (groups)" if grouped else "Images", "Mean difference", "95 % interval", "Effect size"]
    columns += ["p", "p, Holm"] * len(by) + [unit or "80 % power" for unit in by]
    family = tests[0].family if tests else ""
    return Grid(
        caption=f"{results.name}: paired tests per image, {family}",
        corner="Metric",
        columns=tuple(columns),
        rows=tuple(rows),
        spans=tuple(spans),
        notes=_test_notes(results, tests, grouped),
        folded=folded,
    )


def _test_notes(results: DatasetResults, tests: Sequence[PairedTest], grouped: bool) -> tuple[str, ...]:
    defined = sum(not math.isnan(tested.paired.p) for tested in tests)
    notes = [
        "The unit is the image: its value is first averaged over seeds; undefined with one seed, it is left out. "
        "Difference: first method − second. For HD95, "
        "smaller is better.",
        "Interval: bootstrap of the mean difference, drawing "
        + ("whole groups (images of one group are not independent)" if grouped else "images")
        + ". Test: two-sided Wilcoxon signed-rank"
        + (", over images and over the mean differences of groups" if grouped else "")
        + f". Holm's correction is over the {counted(defined, 'test')} of this table that could be made"
        + (", for images and for groups apart." if grouped else "."),
        "Effect size: matched-pairs rank-biserial correlation, from −1 to +1; +1 says that the first method has "
        "the larger value on every "
        "image. Detectable difference: the smallest mean difference that so many "
        + ("images or groups" if grouped else "images")
        + ", spread as these are, would show with 80 % power at p < 0.05 before correction.",
    ]
    if grouped:
        notes.append(
            "The test by image takes images as independent, which those of one group are not: trust it less."
        )
    if results.one_group:
        notes.append(results.one_group)
    elif results.n_groups < FEWEST_GROUPS:
        notes.append(
            f"Only {counted(results.n_groups, 'group')}: too few to speak of groups that are not among them. "
            f"With fewer than {FEWEST_GROUPS} the bootstrap interval is too narrow."
        )
    alone = sorted({t.paired.only_group for t in tests if t.paired.only_group is not None}) if grouped else []
    if alone:
        notes.append(
            f"Where a metric is defined in one group only ({', '.join(alone)}), images are drawn as if independent: "
            "that interval is too narrow."
        )
    found = {r for t in tests for r in (t.paired.reason, t.paired.reason_groups if grouped else None) if r}
    needs = f"; the test needs {FEWEST_PAIRS}"  # said once, however many numbers of groups are too few
    short = any(reason.endswith(needs) for reason in found)
    reasons = {reason.removesuffix(needs) for reason in found}
    if reasons:
        notes.append(f"A dash under p: no test. {'; '.join(sorted(reasons)).capitalize()}{needs if short else ''}.")
    left_out = sum(tested.paired.left_out for tested in tests)
    if left_out:
        notes.append(
            "Images on which a metric is undefined (for either method, with any seed), or that only one "
            "of the two methods was scored on, are left out."
        )
    return tuple(notes)
