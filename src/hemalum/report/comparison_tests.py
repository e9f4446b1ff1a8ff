"""Paired tests of a comparison, image by image, and what may be said of them in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from hemalum.metrics.statistics import Paired, compare_paired, holm
from hemalum.report.comparison_metrics import PER_IMAGE, PER_IMAGE_BY_CLASS, mean_text
from hemalum.report.comparison_results import DatasetResults, counted

if TYPE_CHECKING:
    from hemalum.studies.cells import Method

FEWEST_GROUPS = 10  # below, a bootstrap over groups is known to give intervals that are too narrow
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class PairedTest:
    """One pair of methods on one metric; differences are `method` − `against`.

    `adjusted` and `adjusted_groups` are the p values over images and over groups after Holm, within the
    family that they were tested in.
    """

    dataset: str
    method: str
    against: str
    column: str
    paired: Paired
    adjusted: float
    adjusted_groups: float
    family: str

    @property
    def better(self) -> int:
        """1 where the method is better than the other on average, -1 where it is worse, 0 where equal."""
        difference = self.paired.mean_difference
        if math.isnan(difference) or difference == 0:
            return 0
        return -1 if (difference > 0) == self.column.startswith("hd95") else 1


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
    scored = [(a, b) for a, b in pairs if results.runs(a) and results.runs(b)]
    with_classes = {cell.method for cell in results.cells if "semantic" in cell.summary}
    wanted = [
        (a, b, column)
        for a, b in scored
        for column in (*PER_IMAGE, *(PER_IMAGE_BY_CLASS if {a.name, b.name} <= with_classes else ()))
    ]
    groups = results.groups if results.n_groups < len(results.images) else None
    compared = [
        compare_paired(results.image_values(a, column), results.image_values(b, column), groups=groups)
        for a, b, column in wanted
    ]
    adjusted = holm([paired.p for paired in compared]).tolist()
    adjusted_groups = holm([paired.p_groups for paired in compared]).tolist()
    return [
        PairedTest(results.name, a.name, b.name, column, paired, over_images, over_groups, family)
        for (a, b, column), paired, over_images, over_groups in zip(
            wanted, compared, adjusted, adjusted_groups, strict=True
        )
    ]


def p_text(p: float) -> str:
    """Three decimals, `< 0.001` below, a dash where there is no test."""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def decimals_of(column: str) -> int:
    """Digits that a column of `PER_IMAGE` is given with."""
    return 2 if column.startswith("hd95") else 3


def findings(results: DatasetResults, tests: Sequence[PairedTest]) -> list[str]:
    """What the tests against the reference say of PQ and Dice, one sentence per method, and no more."""
    sentences = []
    for method in dict.fromkeys(tested.method for tested in tests):
        own = {tested.column: tested for tested in tests if tested.method == method}
        said = "; ".join(_finding(own[column]) for column in ("pq", "dice"))
        sentences.append(f"{method} against {own['pq'].against}: {said}.")
    return sentences


def _finding(tested: PairedTest) -> str:
    """A difference is called one where the interval leaves out 0 and the adjusted p is below 0.05."""
    paired, name = tested.paired, PER_IMAGE[tested.column]
    if paired.n == 0:
        return f"{name}: no image in common"
    decimals = decimals_of(tested.column)
    start = f"{name} {mean_text(paired.mean_difference, decimals=decimals, sign='+')}"
    if math.isnan(paired.low):
        return f"{start}, one image is too few for an interval"
    start += f" ({interval_text(paired, decimals)})"
    if paired.low <= 0 <= paired.high or not tested.adjusted < ALPHA:
        return f"{start}, no difference shown"
    return f"{start}, {'better' if tested.better > 0 else 'worse'}"


def caution(results: DatasetResults, tests: Sequence[PairedTest]) -> str:
    """How far the findings on a dataset carry; empty where there is nothing to warn of."""
    if not tests:
        return ""
    said = []
    detectable = next((t.paired.detectable for t in tests if t.column == "pq"), math.nan)
    if math.isfinite(detectable) and any("no difference" in _finding(tested) for tested in tests):
        said.append(
            "No difference shown is not the same as none: see the detectable differences in the table of tests."
        )
    if results.one_group:
        said.append(results.one_group)
    elif results.grouped:
        shown = [t for t in tests if t.column in ("pq", "dice") and not math.isnan(t.adjusted) and t.adjusted < ALPHA]
        carried = [t for t in shown if t.adjusted_groups < ALPHA]
        if results.n_groups < FEWEST_GROUPS:
            said.append(
                f"The images come from only {counted(results.n_groups, 'group')}: what holds for these may not hold "
                "for others."
            )
        if shown and all(math.isnan(t.adjusted_groups) for t in shown):
            said.append("They are too few for a test over groups instead of images.")
        elif shown and not carried:
            said.append("The same tests over groups instead of images show none of the differences.")
        elif len(carried) < len(shown):
            said.append(f"Tested over groups, {len(carried)} of {len(shown)} differences are left.")
    elif results.n_groups < FEWEST_GROUPS:
        said.append(f"Only {counted(len(results.images), 'image')}: too few to speak of others.")
    return " ".join(said)


def interval_text(paired: Paired, decimals: int) -> str:
    """`−0.012 to +0.034`; a dash where there is none."""
    if math.isnan(paired.low):
        return "–"
    low, high = (mean_text(end, decimals=decimals, sign="+") for end in (paired.low, paired.high))
    return f"{low} to {high}"
