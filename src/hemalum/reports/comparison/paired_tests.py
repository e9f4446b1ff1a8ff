"""Paired tests of a comparison, image by image, and what may be said of them in words.

A verdict rests on several trainings of each method that is trained here, and on groups where images come in groups;
where one of the two is missing, nothing is decided.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from hemalum.errors import counted
from hemalum.metrics.statistics import FEWEST_PAIRS, PairedComparison, compare_paired, holm
from hemalum.reports.comparison.metrics import PER_IMAGE, PER_IMAGE_BY_CLASS
from hemalum.reports.comparison.results import DatasetResults
from hemalum.reports.grid import Grid, Row
from hemalum.reports.numbers import mean_text, p_text

if TYPE_CHECKING:
    from hemalum.experiments.plan import Method

FEWEST_GROUPS = 10  # below, a bootstrap over groups is known to give intervals that are too narrow
FEWEST_TRAININGS = 2  # one says nothing of what another seed would have given
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class PairedTest:
    """One pair of methods on one metric; differences are `method` − `against`.

    `adjusted` and `adjusted_groups` are the p values over images and over groups after Holm, within the
    family that they were tested in. `grouped` says that the images come in several groups, `one_training` which of
    the two methods has been trained only once.
    """

    dataset: str
    method: str
    against: str
    column: str
    paired: PairedComparison
    adjusted: float
    adjusted_groups: float
    family: str
    grouped: bool
    one_training: tuple[str, ...]

    @property
    def decimals(self) -> int:
        """Digits that values of the metric have."""
        return 2 if self.column.startswith("hd95") else 3

    @property
    def interval(self) -> str:
        """`−0.012 to +0.034`; a dash where there is none."""
        if math.isnan(self.paired.low):
            return "–"
        ends = (mean_text(end, decimals=self.decimals, sign="+") for end in (self.paired.low, self.paired.high))
        return " to ".join(ends)

    @property
    def better(self) -> int:
        """1 where the method is better than the other on average, -1 where it is worse, 0 where equal."""
        difference = self.paired.mean_difference
        if math.isnan(difference) or difference == 0:
            return 0
        return -1 if (difference > 0) == self.column.startswith("hd95") else 1

    @property
    def undecided(self) -> str:
        """Why nothing is decided, whatever the numbers are; empty where something is."""
        reasons = []
        if self.one_training:
            reasons.append(f"one training of {' and of '.join(self.one_training)}")
        if self.paired.n < 2:
            reasons.append("one image" if self.paired.n else "no image in common")
        elif math.isnan(self._deciding):
            reasons.append(str(self.paired.reason_groups if self.grouped else self.paired.reason))
        return "; ".join(reasons)

    @property
    def _deciding(self) -> float:
        """The adjusted p that a verdict rests on: over groups where there are groups."""
        return self.adjusted_groups if self.grouped else self.adjusted

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `no difference shown` or `not decided`.

        A difference is called one where the interval leaves out 0 and the adjusted p is below 0.05.
        """
        if self.undecided:
            return "not decided"
        if self.paired.low <= 0 <= self.paired.high or not self._deciding < ALPHA:
            return "no difference shown"
        return "better" if self.better > 0 else "worse"


def pair_with_reference(results: DatasetResults) -> list[PairedTest]:
    """Every other method against the first, on each metric of `PER_IMAGE`: one family.

    Where two methods or more tell classes of nuclei apart, on those of `PER_IMAGE_BY_CLASS` as well.
    """
    reference, others = results.methods[0], results.methods[1:]
    return _family(results, [(method, reference) for method in others], "against the reference")


def pair_all(results: DatasetResults) -> list[PairedTest]:
    """Every pair of methods: one family of its own, so its adjusted p values are larger."""
    pairs = [(second, first) for first, second in combinations(results.methods, 2)]
    return _family(results, pairs, "all pairs")


def _family(results: DatasetResults, pairs: Sequence[tuple["Method", "Method"]], family: str) -> list[PairedTest]:
    scored = [(a, b) for a, b in pairs if results.runs_of(a) and results.runs_of(b)]
    with_classes = {run.method for run in results.runs if "semantic" in run.summary}
    wanted = [
        (a, b, column)
        for a, b in scored
        for column in (*PER_IMAGE, *(PER_IMAGE_BY_CLASS if {a.name, b.name} <= with_classes else ()))
    ]
    groups = results.groups if results.n_groups < len(results.images) else None
    compared = [
        compare_paired(results.training_values(a, column), results.training_values(b, column), groups=groups)
        for a, b, column in wanted
    ]
    adjusted = holm([paired.p for paired in compared]).tolist()
    adjusted_groups = holm([paired.p_groups for paired in compared]).tolist()
    return [
        PairedTest(
            results.name, a.name, b.name, column, paired, p, p_groups, family, results.grouped,
            tuple(
                method.name
                for method, trainings in ((a, paired.trainings_a), (b, paired.trainings_b))
                if method.trained and trainings < FEWEST_TRAININGS
            ),
        )
        for (a, b, column), paired, p, p_groups in zip(wanted, compared, adjusted, adjusted_groups, strict=True)
    ]  # fmt: skip


def findings(tests: Sequence[PairedTest]) -> list[str]:
    """What the tests against the reference say of PQ and Dice, one sentence per method, and no more."""
    sentences = []
    for method in dict.fromkeys(tested.method for tested in tests):
        by_column = {tested.column: tested for tested in tests if tested.method == method}
        differences = "; ".join(_finding(by_column[column]) for column in ("pq", "dice"))
        sentences.append(f"{method} against {by_column['pq'].against}: {differences}.")
    return sentences


def _finding(tested: PairedTest) -> str:
    paired, name = tested.paired, PER_IMAGE[tested.column]
    if paired.n == 0:
        return f"{name}: no image in common"
    start = f"{name} {mean_text(paired.mean_difference, decimals=tested.decimals, sign='+')}"
    if not math.isnan(paired.low):
        start += f" ({tested.interval})"
    return f"{start}, {tested.verdict}" + (f" ({tested.undecided})" if tested.undecided else "")


def caution(results: DatasetResults, tests: Sequence[PairedTest]) -> str:
    """How far the findings on a dataset carry; empty where there is nothing to warn of."""
    if not tests:
        return ""
    cautions = []
    shown = [tested for tested in tests if tested.column in ("pq", "dice")]
    detectable = next((t.paired.detectable for t in tests if t.column == "pq"), math.nan)
    if math.isfinite(detectable) and any(tested.verdict == "no difference shown" for tested in shown):
        cautions.append(
            "No difference shown is not the same as none: see the detectable differences in the table of tests."
        )
    if any(tested.one_training for tested in shown):
        cautions.append(
            "Of a method that was trained once nobody knows what another seed gives: --seeds 3 says more."
        )
    if results.one_group:
        cautions.append(results.one_group)
    elif results.grouped and results.n_groups < FEWEST_GROUPS:
        cautions.append(
            f"The images come from only {counted(results.n_groups, 'group')}: what holds for these may not hold "
            "for others; --folds tests on every group of a dataset."
        )
    elif results.n_groups < FEWEST_GROUPS:
        cautions.append(f"Only {counted(len(results.images), 'image')}: too few to speak of others.")
    return " ".join(cautions)


def paired_grid(results: DatasetResults, tests: Sequence[PairedTest], *, folded: bool = False) -> Grid | None:
    """The paired tests of one family; None without any."""
    if not tests:
        return None
    grouped = results.grouped
    rows: list[Row] = []
    pair = ("", "")
    for tested in tests:
        paired, decimals = tested.paired, tested.decimals
        if (tested.method, tested.against) != pair:
            pair = (tested.method, tested.against)
            rows.append(Row(f"{pair[0]} − {pair[1]}", heading=True))
        values = [
            f"{paired.n:,} ({paired.n_groups:,})" if grouped else f"{paired.n:,}",
            mean_text(paired.mean_difference, decimals=decimals, sign="+"),
            tested.interval,
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
    return Grid(
        caption=f"{results.name}: paired tests per image, {tests[0].family}",
        corner="Metric",
        columns=tuple(columns),
        rows=tuple(rows),
        spans=tuple(spans),
        notes=_test_notes(results, tests),
        folded=folded,
    )


def _test_notes(results: DatasetResults, tests: Sequence[PairedTest]) -> tuple[str, ...]:
    grouped = results.grouped
    defined = sum(not math.isnan(tested.paired.p) for tested in tests)
    trainings = any(max(tested.paired.trainings_a, tested.paired.trainings_b) > 1 for tested in tests)
    notes = [
        "The unit is the image: its value is first averaged over seeds; undefined with one seed, it is left out. "
        "Difference: first method − second. For HD95, smaller is better.",
        "Interval: bootstrap of the mean difference, drawing "
        + ("the trainings of each method (seeds) and " if trainings else "")
        + ("whole groups (images of one group are not independent)" if grouped else "images")
        + ". Test: two-sided Wilcoxon signed-rank"
        + (", over images and over the mean differences of groups" if grouped else "")
        + f". Holm's correction is over the {counted(defined, 'test')} of this table that could be made"
        + (", for images and for groups apart." if grouped else "."),
        "Effect size: matched-pairs rank-biserial correlation, from −1 to +1; +1 says that the first method has "
        "the larger value on every image. Detectable difference: the smallest mean difference that so many "
        + ("images or groups" if grouped else "images")
        + ", spread as these are, would show with 80 % power at p < 0.05 before correction.",
    ]
    if grouped:
        notes.append(
            "The test by image takes images as independent, which those of one group are not: no verdict rests on it."
        )
    if results.one_group:
        notes.append(results.one_group)
    elif results.n_groups < FEWEST_GROUPS:
        notes.append(
            f"Only {counted(results.n_groups, 'group')}: too few to speak of groups that are not among them. "
            f"With fewer than {FEWEST_GROUPS} the bootstrap interval is too narrow."
        )
    single = sorted({t.paired.only_group for t in tests if t.paired.only_group is not None}) if grouped else []
    if single:
        notes.append(
            f"Where a metric is defined in one group only ({', '.join(single)}), images are drawn as if independent: "
            "that interval is too narrow."
        )
    all_reasons = {r for t in tests for r in (t.paired.reason, t.paired.reason_groups if grouped else None) if r}
    needs = f"; the test needs {FEWEST_PAIRS}"  # said once, however many numbers of groups are too few
    short = any(reason.endswith(needs) for reason in all_reasons)
    reasons = {reason.removesuffix(needs) for reason in all_reasons}
    if reasons:
        notes.append(f"A dash under p: no test. {'; '.join(sorted(reasons)).capitalize()}{needs if short else ''}.")
    left_out = sum(tested.paired.left_out for tested in tests)
    if left_out:
        notes.append(
            "Images on which a metric is undefined (for either method, with any seed), or that only one "
            "of the two methods was scored on, are left out."
        )
    return tuple(notes)
