import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from panoptica import InputType, NaiveThresholdMatching, Panoptica_Evaluator

from hemalum.errors import HemalumError
from hemalum.metrics import (
    THRESHOLDS,
    average_precision,
    match,
    match_at_thresholds,
    measure_overlap,
    sum_aji,
    sum_aji_plus,
)
from hemalum.metrics.pairs import Labels, Mask

# few ids on few blocks: ties, shared predictions, nuclei in pieces and missing sides are common
label_maps = arrays(np.int32, (4, 5), elements=st.integers(0, 4)).map(
    lambda labels: np.kron(labels, np.ones((2, 2), np.int32))
)


def in_raster_order(labels: Labels) -> list[Mask]:
    ids, first = np.unique(labels, return_index=True)
    return [labels == name for name in ids[np.argsort(first)] if name != 0]


def overlap_of(a: Mask, b: Mask) -> tuple[int, int]:
    return np.count_nonzero(a & b), np.count_nonzero(a | b)


def naive_aji(truth: Labels, prediction: Labels) -> tuple[int, int]:
    """Algorithm 1 of Kumar et al. 2017, read literally."""
    predicted = in_raster_order(prediction)
    used, intersection, union = set(), 0, 0
    for nucleus in in_raster_order(truth):
        best, best_iou = None, 0.0
        for index, candidate in enumerate(predicted):
            shared, joint = overlap_of(nucleus, candidate)
            if shared / joint > best_iou:
                best, best_iou = index, shared / joint
        if best is None:
            union += np.count_nonzero(nucleus)
            continue
        shared, joint = overlap_of(nucleus, predicted[best])
        intersection, union = intersection + shared, union + joint
        used.add(best)
    union += sum(np.count_nonzero(mask) for index, mask in enumerate(predicted) if index not in used)
    return intersection, union


def naive_assignments(
    truth: Labels, prediction: Labels, gain: Callable[[float], float]
) -> tuple[float, set[tuple[int, int, int]]]:
    """Every one-to-one assignment of greatest gain, as (total IoU, pairs, intersection, union)."""
    true, predicted = in_raster_order(truth), in_raster_order(prediction)
    padded = list(range(len(predicted))) + [None] * len(true)
    best, optimal = -1.0, set[tuple[int, int, int]]()
    for choice in set(itertools.permutations(padded, len(true))):
        pairs = [(t, p) for t, p in enumerate(choice) if p is not None]
        measures = [overlap_of(true[t], predicted[p]) for t, p in pairs]
        kept = [(pair, m) for pair, m in zip(pairs, measures, strict=True) if gain(m[0] / m[1]) > 0]
        total = round(sum(gain(m[0] / m[1]) for _, m in kept), 9)
        lone = sum(np.count_nonzero(m) for t, m in enumerate(true) if t not in {t for (t, _), _ in kept})
        lone += sum(np.count_nonzero(m) for p, m in enumerate(predicted) if p not in {p for (_, p), _ in kept})
        result = (len(kept), sum(m[0] for _, m in kept), sum(m[1] for _, m in kept) + lone)
        if total > best:
            best, optimal = total, set[tuple[int, int, int]]()
        if total == best:
            optimal.add(result)
    return best, optimal


def naive_match(truth: Labels, prediction: Labels, threshold: float) -> tuple[int, float]:
    ious = []
    for nucleus in in_raster_order(truth):
        for candidate in in_raster_order(prediction):
            shared, joint = overlap_of(nucleus, candidate)
            if shared / joint > threshold:
                ious.append(shared / joint)
    return len(ious), sum(ious)


@given(label_maps, label_maps)
def test_overlap_is_the_contingency_table(truth: Labels, prediction: Labels) -> None:
    overlap = measure_overlap(truth, prediction)
    counts = {
        (overlap.truth_ids[t], overlap.prediction_ids[p]): n
        for t, p, n in zip(overlap.pair_truth, overlap.pair_prediction, overlap.intersection, strict=True)
    }
    expected = {
        (t, p): np.count_nonzero((truth == t) & (prediction == p))
        for t in np.unique(truth[truth > 0])
        for p in np.unique(prediction[prediction > 0])
    }
    assert counts == {pair: n for pair, n in expected.items() if n}
    areas = dict(zip(overlap.truth_ids, overlap.truth_areas, strict=True))
    assert areas == {t: np.count_nonzero(truth == t) for t in np.unique(truth[truth > 0])}


@given(label_maps, label_maps)
def test_aji_against_its_definition(truth: Labels, prediction: Labels) -> None:
    sums = sum_aji(measure_overlap(truth, prediction))
    assert (sums.intersection, sums.union) == naive_aji(truth, prediction)


@settings(max_examples=25)
@given(label_maps, label_maps)
def test_aji_plus_against_every_assignment(truth: Labels, prediction: Labels) -> None:
    sums = sum_aji_plus(measure_overlap(truth, prediction))
    _, optimal = naive_assignments(truth, prediction, lambda iou: iou)
    assert (sums.intersection, sums.union) in {(shared, joint) for _, shared, joint in optimal}


@settings(max_examples=25)
@given(label_maps, label_maps, st.sampled_from([0.0, 0.2, 0.4]))
def test_matching_below_one_half_makes_the_most_pairs(truth: Labels, prediction: Labels, threshold: float) -> None:
    counts = match(measure_overlap(truth, prediction), threshold)
    best, optimal = naive_assignments(truth, prediction, lambda iou: 100 + iou if iou > threshold else 0.0)
    assert counts.tp in {pairs for pairs, _, _ in optimal}
    assert counts.iou_sum == pytest.approx(best - 100 * counts.tp, abs=1e-6)


@given(label_maps, label_maps, st.sampled_from(THRESHOLDS))
def test_matching_from_one_half_is_all_pairs_above(truth: Labels, prediction: Labels, threshold: float) -> None:
    overlap = measure_overlap(truth, prediction)
    counts = match(overlap, threshold)
    tp, iou_sum = naive_match(truth, prediction, threshold)
    assert (counts.tp, counts.iou_sum) == (tp, pytest.approx(iou_sum))
    assert counts.tp + counts.fn == len(in_raster_order(truth))
    assert counts.tp + counts.fp == len(in_raster_order(prediction))


def noisy_pair(seed: int) -> tuple[Labels, Labels]:
    rng = np.random.default_rng(seed)
    truth, prediction = np.zeros((2, 120, 150), np.int32)
    rows, columns = np.mgrid[:120, :150]
    for name in range(1, 26):
        y, x, radius = rng.uniform(0, 120), rng.uniform(0, 150), rng.uniform(6, 12)
        truth[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = name
        y, x, radius = y + rng.normal(0, 3), x + rng.normal(0, 3), radius * rng.uniform(0.7, 1.2)
        if rng.random() < 0.85:
            prediction[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 40 - name
    return truth, prediction


def by_panoptica(truth: Labels, prediction: Labels) -> Any:
    matching = NaiveThresholdMatching(matching_threshold=0.5, strict_threshold=True)
    evaluator = Panoptica_Evaluator(expected_input=InputType.UNMATCHED_INSTANCE, instance_matcher=matching)
    return evaluator.evaluate(prediction.astype(np.uint16), truth.astype(np.uint16), verbose=False)["ungrouped"]


@pytest.mark.parametrize("seed", range(3))
def test_panoptic_quality_is_that_of_panoptica(seed: int) -> None:
    truth, prediction = noisy_pair(seed)
    counts, reference = match(measure_overlap(truth, prediction)), by_panoptica(truth, prediction)
    assert 3 < counts.tp < 24
    assert (counts.tp, counts.fp, counts.fn) == (reference.tp, reference.fp, reference.fn)
    assert (counts.pq, counts.dq, counts.sq) == pytest.approx((reference.pq, reference.rq, reference.sq))


@pytest.mark.parametrize("seed", range(3))
def test_aji_on_discs_against_its_definition(seed: int) -> None:
    truth, prediction = noisy_pair(seed)
    sums = sum_aji(measure_overlap(truth, prediction))
    assert (sums.intersection, sums.union) == naive_aji(truth, prediction)


def test_one_prediction_over_two_nuclei_by_hand() -> None:
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 0]])
    prediction = np.array([[3, 3, 3, 3, 3, 3, 3, 0]])
    overlap = measure_overlap(truth, prediction)
    assert sum_aji(overlap).value == (4 + 2) / (7 + 7)  # taken twice
    assert sum_aji_plus(overlap).value == 4 / (7 + 2)  # taken once, the other nucleus is missed
    counts = match(overlap)  # 4/7 > 0.5
    assert (counts.tp, counts.fp, counts.fn) == (1, 0, 1)
    assert (counts.dq, counts.sq, counts.pq) == pytest.approx((2 / 3, 4 / 7, 8 / 21))
    assert average_precision(match_at_thresholds(overlap)) == pytest.approx((1 / 2) * 2 / 10)  # 0.5, 0.55


def test_an_iou_equal_to_the_threshold_is_no_match() -> None:
    overlap = measure_overlap(np.array([[1, 1, 1, 1, 1]]), np.array([[1, 1, 1, 0, 0]]))
    assert overlap.iou.tolist() == [0.6]
    assert [match(overlap, threshold).tp for threshold in THRESHOLDS[:3]] == [1, 1, 0]


def test_ties_go_to_the_first_in_raster_order() -> None:
    truth = np.array([[1, 1, 1, 1], [0, 0, 2, 2]])
    prediction = np.array([[9, 9, 4, 4], [0, 0, 4, 4]])
    # truth 1 meets 9 with 2/4 and 4 with 2/6; truth 2 meets 4 with 2/4
    assert sum_aji(measure_overlap(truth, prediction)).value == (2 + 2) / (4 + 4)
    prediction[1] = 0
    # 9 and 4 tie with 2/4: the first is taken, the other is spurious; truth 2 is missed
    assert sum_aji(measure_overlap(truth, prediction)).value == 2 / (4 + 2 + 2)


@given(label_maps)
def test_identical_is_perfect(labels: Labels) -> None:
    overlap = measure_overlap(labels, labels)
    values = [
        sum_aji(overlap).value,
        sum_aji_plus(overlap).value,
        average_precision(match_at_thresholds(overlap)),
    ]
    values += [getattr(match(overlap), name) for name in ("pq", "dq", "sq", "precision")]
    assert values == [1] * 7 if labels.any() else all(map(math.isnan, values))


@given(label_maps, label_maps, st.permutations([1, 2, 3, 4]), st.integers(0, 4_000_000_000))
def test_ids_are_only_names(truth: Labels, prediction: Labels, order: list[int], offset: int) -> None:
    names = np.array([0, *order], np.int64)
    renamed = names[prediction]
    renamed[renamed > 0] += offset
    a, b = measure_overlap(truth, prediction), measure_overlap(truth.astype(np.uint8), renamed)
    assert (sum_aji(a), sum_aji_plus(a)) == (sum_aji(b), sum_aji_plus(b))
    assert match_at_thresholds(a) == match_at_thresholds(b)


@given(label_maps, label_maps)
def test_panoptic_quality_is_symmetric_and_splits(truth: Labels, prediction: Labels) -> None:
    counts = match(measure_overlap(truth, prediction))
    mirrored = match(measure_overlap(prediction, truth))
    assert counts.pq == pytest.approx(mirrored.pq, nan_ok=True)
    assert counts.pq == pytest.approx(counts.dq * counts.sq, nan_ok=True)


def test_empty_cases() -> None:
    nothing, something = np.zeros((3, 3), np.int32), np.eye(3, dtype=np.int32)
    for pair in ((nothing, something), (something, nothing)):
        overlap = measure_overlap(*pair)
        counts = match(overlap)
        values = sum_aji(overlap).value, sum_aji_plus(overlap).value, counts.pq, counts.dq, counts.sq
        assert values == (0, 0, 0, 0, 0)
        assert average_precision(match_at_thresholds(overlap)) == 0
        assert match(overlap, 0.3).tp == 0
    for shape in ((3, 3), (0, 0)):
        overlap = measure_overlap(np.zeros(shape, bool), np.zeros(shape, np.uint16))
        assert math.isnan(sum_aji_plus(overlap).value)
        assert math.isnan(match(overlap, 0.1).pq)


def test_sums_pool_over_images() -> None:
    first = measure_overlap(np.array([[1, 1, 0]]), np.array([[1, 1, 1]]))
    second = measure_overlap(np.array([[1, 2, 2]]), np.array([[0, 0, 0]]))
    pooled = match(first) + match(second)
    assert (pooled.tp, pooled.fp, pooled.fn) == (1, 0, 2)
    assert pooled.pq == pytest.approx((2 / 3) / (1 + 2 / 2))
    assert (sum_aji(first) + sum_aji(second)).value == 2 / (3 + 3)


@given(label_maps, label_maps, arrays(np.bool_, (8, 10)))
def test_ambiguous_pixels_are_background_on_both_sides(truth: Labels, prediction: Labels, ambiguous: Mask) -> None:
    masked = measure_overlap(truth, prediction, ambiguous=ambiguous)
    erased = measure_overlap(np.where(ambiguous, 0, truth), np.where(ambiguous, 0, prediction))
    assert sum_aji(masked) == sum_aji(erased)
    assert match(masked) == match(erased)


@pytest.mark.fault
@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_threshold_out_of_range_is_refused(threshold: float) -> None:
    overlap = measure_overlap(np.ones((2, 2), bool), np.ones((2, 2), bool))
    with pytest.raises(HemalumError, match="threshold"):
        match(overlap, threshold)
