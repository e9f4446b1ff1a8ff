import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import bootstrap, wilcoxon

from hemalum.errors import HemalumError
from hemalum.metrics import (
    compare_paired,
    describe,
    detectable_difference,
    holm,
    mean_sd,
    rank_biserial,
)

scores = st.integers(0, 20).map(lambda k: k / 20)  # ties and zeros are common
maybe_scores = st.one_of(scores, st.just(math.nan))
pairs = st.lists(st.tuples(maybe_scores, maybe_scores), max_size=12)
few: dict[str, Any] = {"resamples": 200}


def exact_p(difference: NDArray[np.float64]) -> float:
    """The two-sided signed-rank test by trying every sign; no ties, no zeros."""
    ranks = np.argsort(np.argsort(np.abs(difference))) + 1
    observed = abs(ranks @ np.sign(difference))
    sums = [abs(np.dot(ranks, signs)) for signs in itertools.product((-1, 1), repeat=len(ranks))]
    return np.mean(np.array(sums) >= observed)


def test_p_is_that_of_every_assignment_of_signs() -> None:
    difference = np.array([0.5, 0.1, -0.2, 0.35, 0.41, -0.05, 0.33, 0.27])
    result = compare_paired(difference, np.zeros(8))
    assert result.p == pytest.approx(exact_p(difference))
    assert result.reason is None


def test_effect_size_by_hand() -> None:
    # |d| ranks: 1 → 1, 2 → 2.5 twice, 4 → 4; plus 1 + 2.5 + 4 of 10, minus 2.5
    assert rank_biserial([1, 2, -2, 4, 0, math.nan]) == pytest.approx((7.5 - 2.5) / 10)
    assert rank_biserial([0, 0]) == 0
    assert math.isnan(rank_biserial([]))
    assert compare_paired([2, 3, 4], [1, 1, 1]).effect_size == 1


def test_differences_are_first_minus_second() -> None:
    result = compare_paired([0.9, 0.8, 0.7], [0.5, 0.6, 0.5])
    assert result.mean_difference == pytest.approx(0.8 / 3)
    assert (result.mean_a, result.mean_b) == (pytest.approx(0.8), pytest.approx(1.6 / 3))
    assert result.effect_size == 1


def test_pairs_with_nan_are_left_out_and_counted() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(12), rng.random(12)
    names = list("aabbccddeefg")
    plain = compare_paired(a, b, groups=names)
    holed = compare_paired([*a, math.nan, 0.5, None], [*b, 0.5, math.nan, None], groups=[*names, "h", "i", None])
    assert (plain.left_out, holed.left_out) == (0, 3)
    for field in ("n", "n_groups", "p", "p_groups", "low", "high", "detectable", "mean_a", "effect_size"):
        assert getattr(holed, field) == getattr(plain, field)


def test_too_few_pairs_have_no_p_but_a_reason() -> None:
    result = compare_paired([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [0.0, 0.0, 0.0, 0.0, 0.0, 0.6, 0.7])
    assert result.n_nonzero == 5
    assert math.isnan(result.p)
    assert result.reason == "only 5 images differ; the test needs 6"
    nothing = compare_paired([math.nan], [0.5])
    assert (nothing.n, nothing.left_out) == (0, 1)
    assert "no images" in nothing.reason
    assert all(math.isnan(v) for v in (nothing.p, nothing.low, nothing.mean_difference, nothing.detectable))


def test_no_difference_at_all() -> None:
    result = compare_paired([0.1, 0.7, 0.4], [0.1, 0.7, 0.4], groups=["a", "a", "b"])
    assert (result.p, result.p_groups, result.effect_size, result.low, result.high) == (1, 1, 0, 0, 0)
    assert math.isnan(result.detectable)


def test_rounding_is_no_difference_and_breaks_no_tie() -> None:
    a = np.array([0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3])
    assert compare_paired(a, np.full(7, 0.1 + 0.2)).p == 1
    # 0.9 − 0.8 and 0.2 − 0.1 are not equal in floating point
    a, b = [0.9, 0.2, 0.5, 0.6, 0.7, 0.8, 0.1], [0.8, 0.1, 0.6, 0.5, 0.6, 0.7, 0.2]
    assert compare_paired(a, b).p == pytest.approx(wilcoxon([1, 1, -1, 1, 1, 1, -1]).pvalue)


def test_groups_widen_the_interval_when_their_images_are_alike() -> None:
    rng = np.random.default_rng(1)
    patients = np.repeat(np.arange(10), 20)
    shift = rng.normal(0, 0.05, 10)[patients] + rng.normal(0, 0.01, 200)
    base = rng.random(200)
    ungrouped, grouped = compare_paired(base + shift, base), compare_paired(base + shift, base, groups=list(patients))
    assert (ungrouped.n_groups, grouped.n_groups) == (200, 10)
    assert grouped.high - grouped.low > 2.5 * (ungrouped.high - ungrouped.low)  # sqrt(20) = 4.5 if wholly alike
    assert grouped.p == ungrouped.p
    assert grouped.p_groups > grouped.p
    assert grouped.detectable_groups > grouped.detectable


def test_interval_against_a_bootstrap_written_as_a_loop() -> None:
    rng = np.random.default_rng(2)
    names = rng.integers(0, 12, 60)
    difference = rng.normal(0.1, 0.2, 60) + rng.normal(0, 0.1, 12)[names]
    result = compare_paired(difference, np.zeros(60), groups=names.tolist(), resamples=8000)
    members = [difference[names == name] for name in np.unique(names)]
    means = [np.concatenate([members[k] for k in rng.integers(0, 12, 12)]).mean() for _ in range(8000)]
    low, high = np.quantile(means, (0.025, 0.975))
    # BCa moves the ends a little; the width must be the same
    assert result.high - result.low == pytest.approx(high - low, rel=0.1)
    assert result.low == pytest.approx(low, abs=0.15 * (high - low))


def test_interval_of_skewed_differences_is_the_corrected_one_of_scipy() -> None:
    difference = np.random.default_rng(5).exponential(size=20) ** 2
    result = compare_paired(difference, np.zeros(20), resamples=20_000)
    low, high = bootstrap(
        (difference,), np.mean, n_resamples=20_000, rng=np.random.default_rng(7)
    ).confidence_interval
    assert (result.low, result.high) == (pytest.approx(low, rel=0.03), pytest.approx(high, rel=0.03))


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(150):
        result = compare_paired(rng.normal(0.5, 1, 40), np.zeros(40), confidence=0.9, resamples=300)
        held += result.low <= 0.5 <= result.high
    assert 0.82 <= held / 150 <= 0.97


def test_images_without_a_group_are_groups_of_their_own() -> None:
    assert compare_paired([1, 2, 3, 4], [0, 0, 0, 0], groups=["a", "a", None, None]).n_groups == 3


def drawn_by_loops(
    a: NDArray[np.float64], b: NDArray[np.float64], names: NDArray[np.int64], resamples: int
) -> tuple[float, float]:
    """Ends of the interval: trainings of a, trainings of b and whole groups are drawn, each on its own."""
    rng = np.random.default_rng(11)
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    # as many trainings as are drawn from spread less than all trainings would
    a, b = (m if len(m) == 1 else m.mean(0) + (m - m.mean(0)) * math.sqrt(len(m) / (len(m) - 1)) for m in (a, b))
    means = []
    for _ in range(resamples):
        images = np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))])
        of_a, of_b = (m[rng.integers(0, len(m), len(m))][:, images].mean() for m in (a, b))
        means.append(of_a - of_b)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


@pytest.mark.parametrize(("n_a", "n_b"), [(3, 4), (3, 1), (1, 5)])
def test_interval_draws_trainings_and_groups(n_a: int, n_b: int) -> None:
    rng = np.random.default_rng(6)
    names = rng.integers(0, 9, 50)
    image = rng.normal(0, 0.2, 50) + rng.normal(0, 0.03, 9)[names]
    a, b = (image + rng.normal(0, 0.06, (n, 1)) + rng.normal(0, 0.03, (n, 50)) for n in (n_a, n_b))
    a += 0.5  # groups differ in size: what is drawn is divided by the number of images drawn
    result = compare_paired(a, b, groups=names.tolist(), resamples=8000)
    low, high = drawn_by_loops(a, b, names, 8000)
    assert result.low == pytest.approx(low, abs=0.04 * (high - low))
    assert result.high == pytest.approx(high, abs=0.04 * (high - low))
    averaged = compare_paired(a.mean(0), b.mean(0), groups=names.tolist(), resamples=2000)
    assert result.high - result.low > 1.3 * (averaged.high - averaged.low)
    assert (result.trainings_a, result.trainings_b, averaged.trainings_a) == (n_a, n_b, 1)
    for field in ("n", "n_groups", "mean_a", "mean_difference", "p", "p_groups", "effect_size", "detectable"):
        assert getattr(result, field) == pytest.approx(getattr(averaged, field), abs=1e-9)


def test_interval_over_trainings_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    held, narrow = 0, 0
    for _ in range(200):
        image = rng.normal(0, 1, 25)
        a, b = (image + rng.normal(0, 0.2, (3, 1)) + rng.normal(0, 0.5, (3, 25)) for _ in "ab")
        result, single = compare_paired(a, b, **few), compare_paired(a[0], b[0], **few)
        held += result.low <= 0 <= result.high
        narrow += single.low <= 0 <= single.high
    assert held >= 0.87 * 200  # three trainings are few: not quite 95 %
    assert narrow < 0.8 * 200  # what one training of each would claim


def test_undefined_with_one_training_is_left_out() -> None:
    result = compare_paired([[1, 2, 3], [1, math.nan, 3]], [0, 0, 0])
    assert (result.n, result.left_out, result.mean_difference) == (2, 1, 2)


def test_trainings_of_one_image_have_no_interval() -> None:
    assert math.isnan(compare_paired([[1], [2]], [[0], [1]]).low)


def test_one_group_draws_images_and_says_so() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random((2, 30))
    ungrouped, fold = compare_paired(a, b), compare_paired(a, b, groups=["fold3"] * 30)
    for field in ("n", "low", "high", "p", "effect_size", "detectable"):
        assert getattr(fold, field) == getattr(ungrouped, field)
    assert fold.low < fold.mean_difference < fold.high
    assert (ungrouped.only_group, fold.only_group, fold.n_groups) == (None, "fold3", 1)
    assert math.isnan(fold.p_groups)
    assert fold.reason_groups == "all images are of one group (fold3)"


def test_one_group_is_that_of_the_pairs_that_are_left() -> None:
    result = compare_paired([1, 2, math.nan, 4], [0, 0, 0, 0], groups=["b", "b", "a", "b"])
    assert result.only_group == "b"
    assert 1 <= result.low < result.high <= 4
    assert compare_paired([1, 2, 3, 4], [0, 0, 0, 0], groups=["b", "b", "a", "b"]).only_group is None


def test_one_image_has_no_interval() -> None:
    result = compare_paired([1], [0], groups=["a"])
    assert math.isnan(result.low)
    assert math.isnan(result.high)
    assert result.only_group is None


def test_detectable_difference_is_detected_four_times_in_five() -> None:
    rng = np.random.default_rng(4)
    smallest = detectable_difference(1.0, 40)
    shown = np.mean([wilcoxon(rng.normal(smallest, 1, 40)).pvalue < 0.05 for _ in range(600)])
    assert shown == pytest.approx(0.8, abs=0.05)


def test_detectable_difference_by_hand() -> None:
    # (1.959964 + 0.841621) · 2 / sqrt(25 · 0.954930)
    assert detectable_difference(2.0, 25) == pytest.approx(1.146775, abs=1e-5)
    assert math.isnan(detectable_difference(1.0, 5))
    assert math.isnan(detectable_difference(0.0, 50))


def test_holm_by_hand() -> None:
    # sorted 0.005 · 4, 0.01 · 3, 0.03 · 2, 0.04 · 1 raised to 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    result = holm([0.01, math.nan, 0.6, 0.7])  # nan is in no family
    assert result[[0, 2, 3]] == pytest.approx([0.03, 1, 1])
    assert math.isnan(result[1])
    assert holm([]).size == 0


def test_holm_against_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).random(30) ** 3
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(values: list[float]) -> None:
    p = np.array(values)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, p * p.size) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(pairs)
def test_exchanging_the_models_turns_the_sign(values: list[tuple[float, float]]) -> None:
    a, b = [x for x, _ in values], [y for _, y in values]
    forward, backward = compare_paired(a, b, **few), compare_paired(b, a, **few)
    assert forward.mean_difference == pytest.approx(-backward.mean_difference, nan_ok=True)
    assert forward.effect_size == pytest.approx(-backward.effect_size, nan_ok=True)
    assert forward.p == pytest.approx(backward.p, nan_ok=True)
    assert forward.detectable == pytest.approx(backward.detectable, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(pairs, st.integers(1, 4))
def test_every_field_stays_within_its_bounds(values: list[tuple[float, float]], n_groups: int) -> None:
    a, b = [x for x, _ in values], [y for _, y in values]
    result = compare_paired(a, b, groups=[k % n_groups for k in range(len(a))], **few)
    assert result.n + result.left_out == len(values)
    assert result.n_nonzero <= result.n
    assert result.n_groups <= min(n_groups, result.n)
    for p in (result.p, result.p_groups):
        assert math.isnan(p) or 0 <= p <= 1
    assert math.isnan(result.p) == (result.reason is not None)
    assert math.isnan(result.effect_size) or -1 <= result.effect_size <= 1
    if not math.isnan(result.low):
        assert -1 <= result.low <= result.high <= 1


@settings(max_examples=20, deadline=None)  # the exact test with ties tries every sign
@given(st.permutations(range(9)), st.lists(scores, min_size=18, max_size=18))
def test_the_order_of_images_does_not_matter(order: list[int], values: list[float]) -> None:
    a, b = np.array(values[:9]), np.array(values[9:])
    first, shuffled = compare_paired(a, b, **few), compare_paired(a[order], b[order], **few)
    assert first.p == pytest.approx(shuffled.p, nan_ok=True)
    assert first.effect_size == pytest.approx(shuffled.effect_size)
    assert first.mean_difference == pytest.approx(shuffled.mean_difference)


def test_the_seed_repeats_the_interval() -> None:
    a, b = np.random.default_rng(0).random((2, 30))
    ends = [(result.low, result.high) for result in (compare_paired(a, b, seed=s, **few) for s in (0, 0, 1))]
    assert ends[0] == ends[1] != ends[2]


def test_describe_and_mean_sd() -> None:
    result = describe([1, 2, 3, 4, 10, math.nan, None])
    assert (result.n, result.left_out) == (5, 2)
    assert (result.mean, result.median, result.quarter, result.three_quarters) == (4, 3, 2, 4)
    assert (result.low, result.high) == (1, 10)
    assert result.sd == pytest.approx(math.sqrt((9 + 4 + 1 + 0 + 36) / 4))
    assert mean_sd([1, 3, math.nan]) == (2, pytest.approx(math.sqrt(2)))
    assert mean_sd([0.7])[0] == 0.7
    assert math.isnan(mean_sd([0.7])[1])
    assert all(math.isnan(value) for value in mean_sd([]))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare_paired([1, 2], [1]), "2 values against 1"),
        (lambda: compare_paired([1, 2], [1, 2], groups=["a"]), "2 images but 1 group;"),
        (lambda: compare_paired([1, math.inf], [1, 2]), "a is infinite at position 1"),
        (lambda: compare_paired([1, 2], ["x", 2]), "b must be numbers"),
        (lambda: compare_paired([[[1, 2]]], [[1, 2]]), r"a must be \(N,\) numbers, one per image, or \(S, N\)"),
        (lambda: compare_paired([1, 2], np.empty((0, 2))), "b has no training"),
        (lambda: compare_paired([1], [1], confidence=95), "confidence"),
        (lambda: holm([0.5, 1.2]), "between 0 and 1"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        call()
