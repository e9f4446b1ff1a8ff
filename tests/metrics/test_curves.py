import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, precision_recall_curve

from hemalum.errors import HemalumError
from hemalum.metrics import (
    BINS,
    ProbabilityCounts,
    area_under,
    best_dice,
    calibration_error,
    count_probabilities,
    detection_curve,
    precision_recall,
    recall_at_precision,
    reliability,
)
from hemalum.metrics.pairs import Mask


def counted(probability: ArrayLike, truth: ArrayLike) -> ProbabilityCounts:
    return count_probabilities(np.float32(probability).reshape(1, -1), np.array(truth, bool).reshape(1, -1))


pixels = st.lists(st.tuples(st.integers(0, 10).map(lambda k: k / 10), st.booleans()), min_size=1, max_size=30)


def images(rng: np.random.Generator, size: int = 2000) -> tuple[NDArray[np.float64], Mask]:
    """Centers of bins, so that nothing lies on an edge; surer where true, and not calibrated."""
    truth = rng.random(size) < 0.3
    probability = np.clip(rng.normal(0.35 + 0.3 * truth, 0.2), 0, 0.9995)
    return (np.floor(probability * BINS) + 0.5) / BINS, truth


def test_counts_by_hand() -> None:
    probability = np.float32([[0, 0.0005, 0.9995], [1, 0.5, 0.5]])
    truth = np.array([[0, 1, 1], [1, 0, 1]], bool)
    counts = count_probabilities(probability, truth)
    assert (counts.positive[0], counts.positive[500], counts.positive[-1]) == (1, 1, 2)
    assert (counts.negative[0], counts.negative[500]) == (1, 1)
    assert (counts.positive.sum(), counts.negative.sum()) == (4, 2)
    masked = count_probabilities(probability, truth, ambiguous=probability == 0.5)
    assert masked.positive[500] == masked.negative[500] == 0
    assert masked.positive.sum() + masked.negative.sum() == 4


def test_every_bin_has_its_own_pixels() -> None:
    edges = np.float32((np.arange(BINS) + 0.5) / BINS).reshape(1, -1)
    for dtype in (np.float32, np.float64):
        assert (count_probabilities(edges.astype(dtype), np.zeros_like(edges, bool)).negative == 1).all()
    half = count_probabilities(np.float16([[0.5, 1]]), np.ones((1, 2), bool))
    assert (half.positive[500], half.positive[-1]) == (1, 1)


def test_curve_by_hand() -> None:
    curve = precision_recall(counted([0.9, 0.8, 0.8, 0.3, 0.1], [1, 0, 1, 1, 0]))
    assert curve.thresholds == pytest.approx([0.9, 0.8, 0.3, 0.1])
    assert curve.precision == pytest.approx([1, 2 / 3, 3 / 4, 3 / 5])
    assert curve.recall == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert area_under(curve) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_curve_against_scikit_learn() -> None:
    probability, truth = images(np.random.default_rng(0))
    counts = counted(probability, truth)
    curve = precision_recall(counts)
    precision, recall, thresholds = precision_recall_curve(truth, probability)
    assert curve.precision == pytest.approx(precision[:-1][::-1])
    assert curve.recall == pytest.approx(recall[:-1][::-1])
    assert curve.thresholds == pytest.approx(thresholds[::-1] - 0.5 / BINS, abs=1e-9)
    assert area_under(counts) == pytest.approx(average_precision_score(truth, probability))


def test_nuclei_against_scikit_learn() -> None:
    probability, matched = images(np.random.default_rng(1), 300)
    curve = detection_curve(probability, matched, int(matched.sum()))
    assert area_under(curve) == pytest.approx(average_precision_score(matched, probability))
    precision, recall, thresholds = precision_recall_curve(matched, probability)
    assert (curve.precision == precision[:-1][::-1]).all()
    assert curve.thresholds == pytest.approx(thresholds[::-1])
    # true nuclei that nothing finds lower recall and area, and leave precision
    missed = detection_curve(probability, matched, 2 * int(matched.sum()))
    assert missed.recall == pytest.approx(recall[:-1][::-1] / 2)
    assert area_under(missed) == pytest.approx(area_under(curve) / 2)


def test_nuclei_by_hand() -> None:
    curve = detection_curve([0.5, 0.9, 0.5, 0.7], [True, True, False, False], 4)
    assert curve.thresholds.tolist() == [0.9, 0.7, 0.5]  # equal probabilities enter together
    assert curve.recall.tolist() == [0.25, 0.25, 0.5]
    assert curve.precision.tolist() == [1, 0.5, 0.5]


def test_recall_at_precision_by_hand() -> None:
    counts = counted([0.9] * 10 + [0.5] * 10, [1] * 8 + [0] * 2 + [1] * 4 + [0] * 6)
    # 8 of 10, then 12 of 20: 0.8 and 0.6
    assert recall_at_precision(counts, 0.8) == pytest.approx(8 / 12)
    assert recall_at_precision(counts, 0.6) == 1
    # with a share s of the step (8 + 4 s) / (10 + 10 s) = 0.7, s = 1/3
    assert recall_at_precision(counts, 0.7) == pytest.approx((8 + 4 / 3) / 12)
    assert math.isnan(recall_at_precision(counts, 0.81))
    assert recall_at_precision(counts, 0.1) == 1


def test_recall_at_precision_is_not_moved_by_a_shift_of_the_threshold() -> None:
    probability, truth = images(np.random.default_rng(2))
    squeezed = probability**3  # the same model, less sure of itself
    at_half = [np.count_nonzero((p >= 0.5) & truth) / np.count_nonzero(truth) for p in (probability, squeezed)]
    assert at_half[0] - at_half[1] > 0.2
    for precision in (0.5, 0.6, 0.7):
        a, b = (recall_at_precision(counted(p, truth), precision) for p in (probability, squeezed))
        assert a == pytest.approx(b, abs=0.01)


def test_reliability_by_hand() -> None:
    counts = counted([0.05, 0.05, 0.95, 0.95, 0.95, 0.95], [0, 1, 1, 1, 1, 0])
    curve = reliability(counts, bins=10)
    assert curve.count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 4]
    assert curve.predicted[[0, 9]] == pytest.approx([0.0505, 0.9505], abs=1e-3)
    assert curve.observed[[0, 9]].tolist() == [0.5, 0.75]
    assert np.isnan(curve.observed[1:9]).all()
    assert calibration_error(counts, bins=10) == pytest.approx((2 * 0.45 + 4 * 0.2) / 6, abs=1e-3)


@pytest.mark.parametrize("bins", [1, 7, 15, 20])
def test_reliability_against_scikit_learn(bins: int) -> None:
    probability, truth = images(np.random.default_rng(3))
    curve = reliability(counted(probability, truth), bins)
    observed, predicted = calibration_curve(truth, probability, n_bins=bins)
    filled = curve.count > 0
    assert curve.observed[filled] == pytest.approx(observed, abs=0.02)  # 1/15 cuts a fine bin in two
    assert curve.predicted[filled] == pytest.approx(predicted, abs=1e-3)
    if BINS % bins == 0:
        assert curve.observed[filled] == pytest.approx(observed)


@given(pixels)
def test_curves_stay_within_bounds_and_recall_never_falls(values: list[tuple[float, bool]]) -> None:
    probability, truth = zip(*values, strict=True)
    counts = counted(probability, truth)
    curve = precision_recall(counts)
    assert (curve.predicted >= 1).all()
    assert (np.diff(curve.thresholds) < 0).all()
    assert ((curve.precision >= 0) & (curve.precision <= 1)).all()
    assert curve.predicted[-1] == len(values)
    assert 0 <= calibration_error(counts) <= 1
    if any(truth):
        assert (np.diff(curve.recall) >= 0).all()
        assert curve.recall[-1] == 1
        assert 0 < area_under(curve) <= 1
    else:
        assert math.isnan(area_under(curve))
        assert np.isnan(curve.recall).all()


@given(pixels, st.floats(0.01, 1), st.floats(0.01, 1))
def test_recall_falls_as_precision_rises(values: list[tuple[float, bool]], a: float, b: float) -> None:
    counts = counted(*zip(*values, strict=True))
    loose, tight = recall_at_precision(counts, min(a, b)), recall_at_precision(counts, max(a, b))
    assert math.isnan(tight) or loose >= tight - 1e-12
    curve = precision_recall(counts)
    for precision, recall in zip(curve.precision, curve.recall, strict=True):
        if precision > 0 and not math.isnan(recall):
            assert recall_at_precision(curve, float(precision)) >= recall - 1e-12


@given(pixels, pixels)
def test_adding_is_pooling(first: list[tuple[float, bool]], second: list[tuple[float, bool]]) -> None:
    a, b = counted(*zip(*first, strict=True)), counted(*zip(*second, strict=True))
    pooled = counted(*zip(*(first + second), strict=True))
    total = sum([a, b], ProbabilityCounts.none())
    assert (total.positive == pooled.positive).all()
    assert (total.negative == pooled.negative).all()


def test_empty_cases() -> None:
    nothing = ProbabilityCounts.none()
    assert precision_recall(nothing).thresholds.size == 0
    assert all(
        math.isnan(v) for v in (area_under(nothing), calibration_error(nothing), recall_at_precision(nothing, 0.5))
    )
    assert count_probabilities(np.zeros((0, 4), np.float32), np.zeros((0, 4), bool)).positive.sum() == 0
    undetected = detection_curve([], [], 3)
    assert area_under(undetected) == 0
    assert math.isnan(recall_at_precision(undetected, 0.5))
    assert math.isnan(area_under(detection_curve([0.5], [False], 0)))


def make_probability(value: float = 0.5, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    return np.full((2, 3), value, dtype)


FLAT = np.zeros((2, 3), bool)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: count_probabilities(make_probability(math.nan), FLAT), "probability map has 6 nan"),
        (lambda: count_probabilities(make_probability(1.5), FLAT), r"must lie in \[0, 1\], but spans 1.5 to 1.5"),
        (lambda: count_probabilities(make_probability(-0.1), FLAT), "must lie in"),
        (lambda: count_probabilities(make_probability(1, int), FLAT), r"\(H, W\) floating"),
        (lambda: count_probabilities(make_probability(), FLAT[:1]), "truth must be"),
        (lambda: count_probabilities(make_probability(), FLAT.astype(int)), "truth must be"),
        (lambda: count_probabilities(make_probability(), FLAT, FLAT[:, :1]), "ambiguous mask must be"),
        (lambda: ProbabilityCounts([1, 2], [3, 4]), "'positive' must be"),
        (lambda: ProbabilityCounts(np.zeros(BINS, int), np.full(BINS, -1)), "'negative' must be"),
        (lambda: ProbabilityCounts(np.zeros(BINS, int), np.zeros(BINS)), "'negative' must be"),
        (lambda: detection_curve([0.5, math.nan], [True, False], 1), "probability has 1 nan"),
        (lambda: detection_curve([0.5], [True, False], 1), "'matched' must be"),
        (lambda: detection_curve([0.5, 0.6], [True, True], 1), "2 nuclei match, but only 1"),
        (lambda: recall_at_precision(ProbabilityCounts.none(), 0), "precision must be above 0"),
        (lambda: reliability(ProbabilityCounts.none(), 0), "bins must be"),
    ],
)
def test_bad_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        call()


@pytest.mark.parametrize("seed", range(5))
def test_the_best_dice_is_the_best_of_every_threshold_tried(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((40, 50)) < 0.3
    probability = np.clip(0.25 * truth + rng.normal(0.4, 0.2, truth.shape), 0, 1).astype(np.float32)
    tried = []
    for threshold in np.arange(BINS) / BINS:
        predicted = np.minimum((probability * BINS).astype(int), BINS - 1) / BINS >= threshold
        tried.append(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))
    dice, threshold = best_dice(count_probabilities(probability, truth))
    assert dice == pytest.approx(max(tried))
    assert tried[round(threshold * BINS)] == pytest.approx(max(tried))


def test_nothing_has_no_best_dice() -> None:
    assert np.isnan(best_dice(count_probabilities(np.zeros((2, 2), np.float32), np.zeros((2, 2), bool)))).all()


def test_a_pixel_stands_for_the_center_of_its_fine_bin() -> None:
    counts = np.zeros(1000, np.int64)
    counts[[100, 340]] = 3, 1
    curve = reliability(ProbabilityCounts(counts, np.zeros(1000, np.int64)), bins=2)
    assert curve.predicted[0] == pytest.approx((3 * 0.1005 + 0.3405) / 4, abs=1e-12)
