"""Two models on the same images: is one better, by how much, and could so few images have shown it?

The unit is a pair of values of one image. Images of one patient or organ are not independent, so the
interval resamples groups, and the test is made a second time on groups. Another training of the same method
gives other values, so where several are at hand the interval resamples trainings as well.
See docs/concepts/metrics.md.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap, norm, rankdata, wilcoxon

from hemalum.errors import HemalumError, counted

FEWEST_PAIRS = 6  # the two-sided Wilcoxon test on five pairs cannot fall below 0.05: 2 / 2**5

# Asymptotic relative efficiency of the signed-rank test to the t test on normal differences (3 / pi);
# on heavier tails it is higher.
RELATIVE_EFFICIENCY = 3 / math.pi

_DECIMALS = 12  # what rounding leaves of equal scores is no difference, and breaks no tie

_NO_GROUPS = (math.nan, "no groups given")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two models on the same images; differences are a − b.

    `n` pairs were compared and `left_out` not, because a or b is nan; `n_nonzero` of them differ. `n_groups`
    groups (without groups: images) were resampled for the interval from `low` to `high` of the mean
    difference, and where `trainings_a` or `trainings_b` is above 1 that many trainings were resampled as well.
    `only_group` is the name of the group that all pairs are of, None where there are more or no
    groups: then images were resampled as if independent, and the interval is too narrow. `p` is the Wilcoxon
    signed-rank test on images and `p_groups` the same on the mean differences of groups (nan without groups or
    with one); where one is nan, `reason` and `reason_groups` say why.
    `effect_size` in [-1, 1] is the matched-pairs rank-biserial correlation: 1 when a is better on every image.
    `detectable` is the smallest mean difference that the test shows with 80 % power, `detectable_groups` the
    same for the test on groups.
    """

    n: int
    left_out: int
    n_nonzero: int
    n_groups: int
    trainings_a: int
    trainings_b: int
    mean_a: float
    mean_b: float
    mean_difference: float
    sd_difference: float
    only_group: str | None
    low: float
    high: float
    p: float
    reason: str | None
    effect_size: float
    detectable: float
    p_groups: float
    reason_groups: str | None
    detectable_groups: float


def compare_paired(
    a: ArrayLike,
    b: ArrayLike,
    *,
    groups: Sequence[Hashable | None] | None = None,
    confidence: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
) -> PairedComparison:
    """Compare two models by (N,) values of the same images, in the same order; differences are a − b.

    Either may be (S, N), the values of S trainings of one method that differ in their seed. Means, tests and effect
    size are of an image's mean over the trainings. Pairs with nan, in any training, are left out and counted.
    Test: two-sided Wilcoxon signed-rank, zeros dropped; exact for few pairs (scipy's choice). With fewer than 6
    non-zero differences p is nan; with none at all it is 1.
    Interval: bootstrap of the mean over images (BCa; percentile where BCa is undefined). With `groups` (N,),
    whole groups are drawn; an image whose group is None is a group of its own. Where all pairs are of one
    group, images are drawn (see `only_group`): one group has no spread to resample. With several trainings of a or
    b the bootstrap is hierarchical: in each resample the trainings of a, those of b and the groups are drawn, each
    on its own (percentile). The interval is nan with one image. `seed` makes it repeatable.

    Raises HemalumError when lengths differ, a value is infinite or `confidence` is outside (0, 1).
    Sources: Wilcoxon, Biometrics Bulletin 1945; Kerby, "The simple difference formula", 2014 (effect size);
    Efron, "Better bootstrap confidence intervals", JASA 1987.
    """
    first, second = _check_trainings(a, "a"), _check_trainings(b, "b")
    n_images = first.shape[1]
    if n_images != second.shape[1]:
        raise HemalumError(
            f"paired comparison: {n_images} values against {second.shape[1]}; give one of each per image"
        )
    if groups is not None and len(groups) != n_images:
        of_images, of_groups = counted(n_images, "image"), counted(len(groups), "group")
        raise HemalumError(f"paired comparison: {of_images} but {of_groups}; give one per image")
    if not 0 < confidence < 1:
        raise HemalumError(f"paired comparison: confidence must be between 0 and 1, not {confidence}")
    kept: NDArray[np.bool_] = np.asarray(np.isfinite(np.concatenate([first, second])).all(axis=0))
    first, second = first[:, kept], second[:, kept]
    mean_a, mean_b = first.mean(axis=0), second.mean(axis=0)
    difference = (mean_a - mean_b).round(_DECIMALS)
    index = _number_groups(groups, kept)
    sums, counts = np.bincount(index, weights=difference), np.bincount(index)
    group_means = (sums / counts).round(_DECIMALS) if groups is not None else np.empty(0)
    only_group = (
        str(_first_group(groups, kept)) if groups is not None and counts.size == 1 < difference.size else None
    )
    if only_group is not None:
        index = np.arange(difference.size)
        sums, counts = difference, np.ones(difference.size, dtype=np.int64)
    if len(first) == len(second) == 1:
        low, high = _bootstrap_interval(sums, counts, confidence, resamples, seed)
    else:
        low, high = _hierarchical_interval(first, second, index, confidence, resamples, seed)
    p, reason = _test_pairs(difference, "images")
    p_groups, reason_groups = _test_groups(group_means, only_group) if groups is not None else _NO_GROUPS
    return PairedComparison(
        n=difference.size,
        left_out=int(np.count_nonzero(~kept)),
        n_nonzero=int(np.count_nonzero(difference)),
        n_groups=1 if only_group is not None else counts.size,
        trainings_a=len(first),
        trainings_b=len(second),
        mean_a=_mean(mean_a),
        mean_b=_mean(mean_b),
        mean_difference=_mean(difference),
        sd_difference=_sd(difference),
        only_group=only_group,
        low=low,
        high=high,
        p=p,
        reason=reason,
        effect_size=rank_biserial(difference),
        detectable=detectable_difference(_sd(difference), difference.size, alpha=1 - confidence),
        p_groups=p_groups,
        reason_groups=reason_groups,
        detectable_groups=detectable_difference(_sd(group_means), group_means.size, alpha=1 - confidence),
    )


def _check_trainings(values: ArrayLike, name: str) -> Floats:
    """(S, N) of (N,) or (S, N) values."""
    array = np.atleast_2d(_check_numbers(values, name))
    if array.ndim != 2:
        raise HemalumError(
            f"statistics: {name} must be (N,) numbers, one per image, or (S, N) of S trainings, not {array.shape}"
        )
    if not len(array):
        raise HemalumError(
            f"statistics: {name} has no training: give (S, N) numbers, one row for each of S trainings"
        )
    return array


def _check_values(values: ArrayLike, name: str) -> Floats:
    array = _check_numbers(values, name)
    if array.ndim != 1:
        raise HemalumError(f"statistics: {name} must be (N,) numbers, one per image, not {array.shape}")
    return array


def _check_numbers(values: ArrayLike, name: str) -> Floats:
    try:
        array = np.asarray(values, dtype=np.float64)  # None becomes nan
    except (TypeError, ValueError) as error:
        raise HemalumError(f"statistics: {name} must be numbers, nan where undefined: {error}") from error
    if np.isinf(array).any():
        where = int(np.argwhere(np.isinf(array))[0, -1])
        raise HemalumError(f"statistics: {name} is infinite at position {where}; undefined values are nan")
    return array


def _number_groups(groups: Sequence[Hashable | None] | None, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """A number from 0 for the group of each kept image; each image without one is its own."""
    if groups is None:
        return np.arange(np.count_nonzero(kept))
    names = [(position,) if group is None else group for position, group in enumerate(groups) if kept[position]]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def _first_group(groups: Sequence[Hashable | None], kept: NDArray[np.bool_]) -> Hashable | None:
    """The group of the first kept image."""
    return groups[int(np.flatnonzero(kept)[0])]


def _test_pairs(difference: Floats, unit: str) -> tuple[float, str | None]:
    """p of the signed-rank test, and why it is nan."""
    if difference.size == 0:
        return math.nan, f"no {unit} where both values are defined"
    differing = difference[difference != 0]
    if differing.size == 0:
        return 1.0, None
    if differing.size < FEWEST_PAIRS:
        return math.nan, f"only {differing.size} {unit} differ; the test needs {FEWEST_PAIRS}"
    return float(wilcoxon(differing).pvalue), None


def _test_groups(group_means: Floats, only_group: str | None) -> tuple[float, str | None]:
    if only_group is not None:
        return math.nan, f"all images are of one group ({only_group})"
    return _test_pairs(group_means, "groups")


def _bootstrap_interval(
    sums: NDArray[Any], counts: NDArray[Any], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Bootstrap interval of the mean over images, drawing whole groups."""
    if counts.size < 2:
        return math.nan, math.nan
    means = sums / counts
    if np.ptp(means) < 10.0**-_DECIMALS:  # whatever is drawn, the mean is the same
        return float(means[0]), float(means[0])

    def mean(sums: Floats, counts: Floats, axis: int = -1) -> Floats:
        return np.asarray(sums.sum(axis=axis) / counts.sum(axis=axis))

    interval = partial(
        bootstrap,
        (sums, counts.astype(np.float64)),
        mean,
        paired=True,
        vectorized=True,
        batch=max(1, 2_000_000 // counts.size),
        confidence_level=confidence,
    )
    drawn = interval(n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed))
    with np.errstate(invalid="ignore", divide="ignore"):
        corrected = interval(n_resamples=0, method="BCa", bootstrap_result=drawn)
    best = corrected if np.isfinite(corrected.confidence_interval).all() else drawn
    return float(best.confidence_interval.low), float(best.confidence_interval.high)


def _hierarchical_interval(
    first: Floats, second: Floats, index: NDArray[np.int64], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Percentile interval of the mean difference over images, drawing trainings of each and whole groups."""
    counts = np.bincount(index)
    if counts.size < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    by_group = [
        np.stack([np.bincount(index, weights=row) for row in _as_spread_as_all_trainings(values)])
        for values in (first, second)
    ]
    drawn = []
    batch = max(1, 2_000_000 // counts.size)
    for start in range(0, resamples, batch):
        size = min(batch, resamples - start)
        groups = rng.multinomial(counts.size, np.full(counts.size, 1 / counts.size), size)
        mean_a, mean_b = (
            (groups @ sums.T * rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size)).sum(axis=1)
            / len(sums)
            for sums in by_group
        )
        drawn.append((mean_a - mean_b) / (groups @ counts))
    low, high = np.quantile(np.concatenate(drawn), ((1 - confidence) / 2, (1 + confidence) / 2))
    return float(low), float(high)


def _as_spread_as_all_trainings(values: Floats) -> Floats:
    """(S, N) values, their deviations from the mean over trainings widened by √(S / (S − 1)).

    What is drawn from S trainings has (S − 1) / S of the variance of all trainings: for three a third too little.
    """
    if len(values) == 1:
        return values
    mean = values.mean(axis=0)
    return np.asarray(mean + (values - mean) * math.sqrt(len(values) / (len(values) - 1)))


def rank_biserial(difference: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation of (N,) differences, in [-1, 1].

    The sum of the ranks of positive differences less that of negative ones, over all ranks; zeros and nan
    are dropped. 0 when nothing differs, nan without a pair. Source: Kerby 2014.
    """
    values = _check_values(difference, "difference")
    values = values[~np.isnan(values)]
    if values.size == 0:
        return math.nan
    values = values[values != 0]
    if values.size == 0:
        return 0.0
    ranks = rankdata(np.abs(values))
    return float((ranks * np.sign(values)).sum() / ranks.sum())


def detectable_difference(sd: float, n: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest mean difference that a two-sided signed-rank test on n pairs shows with the given power.

    (z(1 − alpha/2) + z(power)) · sd / sqrt(n · 3/π), a normal approximation with the test's asymptotic
    relative efficiency on normal differences; `sd` is that of the differences. nan with fewer than 6 pairs,
    which no difference makes significant, and where the differences have no spread to judge by.
    Source: Lehmann, Nonparametrics, 1975, section 4.2.
    """
    if n < FEWEST_PAIRS or not sd > 0:
        return math.nan
    return float((norm.ppf(1 - alpha / 2) + norm.ppf(power)) * sd / math.sqrt(n * RELATIVE_EFFICIENCY))


def holm(p: ArrayLike) -> Floats:
    """Holm's step-down adjustment of (K,) p values of one family; nan is in no family and stays nan.

    Raises HemalumError when a value is outside [0, 1]. Source: Holm, Scandinavian Journal of Statistics 1979.
    """
    values = _check_values(p, "p")
    defined = np.flatnonzero(~np.isnan(values))
    if ((values[defined] < 0) | (values[defined] > 1)).any():
        raise HemalumError("Holm correction: p values must be between 0 and 1")
    adjusted = np.full(values.size, np.nan)
    order = defined[np.argsort(values[defined], kind="stable")]
    steps = values[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


@dataclass(frozen=True, slots=True)
class Description:
    """How (N,) values are spread; `left_out` of them are nan. All nan when nothing is left."""

    n: int
    left_out: int
    mean: float
    sd: float
    low: float
    quarter: float
    median: float
    three_quarters: float
    high: float


def describe(values: ArrayLike) -> Description:
    """Number, mean, sd (n − 1) and quartiles (linear interpolation) of (N,) values without nan."""
    array = _check_values(values, "values")
    defined = array[~np.isnan(array)]
    quartiles = np.quantile(defined, (0, 0.25, 0.5, 0.75, 1)).tolist() if defined.size else [math.nan] * 5
    return Description(defined.size, array.size - defined.size, _mean(defined), _sd(defined), *quartiles)


def mean_sd(values: ArrayLike) -> tuple[float, float]:
    """Mean and standard deviation (n − 1) of the values that are not nan, as over seeds or folds.

    The sd of one value is nan; both are nan without a value.
    """
    description = describe(values)
    return description.mean, description.sd


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else math.nan


def _sd(values: Floats) -> float:
    if values.size < 2:
        return math.nan
    return float(values.std(ddof=1)) if np.ptp(values) > 0 else 0.0
