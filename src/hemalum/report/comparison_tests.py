"""Paired tests of a comparison, image by image, and what may be said of them in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from hemalum.metrics.statistics import Paired, compare_paired, holm
from hemalum.report.comparison_metrics import PER_IMAGE, mean_text
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
    """Every other method against the first, on each metric of `PER_IMAGE`: one family."""
    reference, others = results.methods[0], results.methods[1:]
    return _family(results, [(method, reference) for method in others], "against the reference")


def pair_all(results: DatasetResults) -> list[PairedTest]:
    """Every pair of methods: one family of its own, so its adjusted p values are larger."""
    pairs = [(second, first) for first, second in combinations(results.methods, 2)]
    return _family(results, pairs, "all pairs")


def _family(results: DatasetResults, pairs: Sequence[tuple["Method", "Method"]], family: str) -> list[PairedTest]:
    scored = [(a, b) for a, b in pairs if results.runs(a) and results.runs(b)]
    wanted = [(a, b, column) for a, b in scored for column in PER_IMAGE]
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


def verdict(tested: PairedTest, by_groups: bool) -> str:
    """What the test of one metric says, and no more.

    A difference is claimed where the interval leaves out 0 and the adjusted p is below 0.05; where images
    come in groups (`by_groups`), only if the test over groups says so too.
    """
    paired, name = tested.paired, PER_IMAGE[tested.column]
    method, against = tested.method, tested.against
    if paired.n == 0:
        return f"{method} and {against} have no image with a {name} in common."
    decimals = decimals_of(tested.column)
    difference = mean_text(paired.mean_difference, decimals=decimals, sign="+")
    start = f"{method}: {name} {difference} against {against}"
    if math.isnan(paired.low):
        return f"{start}; {_no_interval(paired, by_groups)}."
    start += f" (95 % interval {interval_text(paired, decimals)})"
    if not (paired.low <= 0 <= paired.high) and tested.adjusted < ALPHA:
        word = "better" if tested.better > 0 else "worse"
        if not by_groups or tested.adjusted_groups < ALPHA:
            return f"{start}: {word} by more than chance (adjusted p {_p_said(tested.adjusted)})."
        return (
            f"{start}: {word} on these images (adjusted p {_p_said(tested.adjusted)}), but "
            f"{counted(paired.n_groups, 'group')} are too few, or differ too much, to say that of others."
        )
    power = paired.detectable_groups if by_groups else paired.detectable
    seen = (
        f"; {counted(paired.n_groups, 'group') if by_groups else counted(paired.n, 'image')} like these show a "
        f"difference of {mean_text(power, decimals=decimals)} with 80 % power"
        if math.isfinite(power)
        else ""
    )
    return f"{start}: no difference shown, which is not the same as none{seen}."


def _no_interval(paired: Paired, by_groups: bool) -> str:
    return f"one {'group' if by_groups else 'image'} is too few for an interval or a test"


def _p_said(p: float) -> str:
    return p_text(p) if p < 0.001 else f"= {p_text(p)}"


def interval_text(paired: Paired, decimals: int) -> str:
    """`−0.012 to +0.034`; a dash where there is none."""
    if math.isnan(paired.low):
        return "–"
    low, high = (mean_text(end, decimals=decimals, sign="+") for end in (paired.low, paired.high))
    return f"{low} to {high}"
