import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.metrics import (
    MatchCounts,
    bpq_image,
    bpq_tissue,
    count_matches_by_class,
    match,
    match_by_class,
    measure_overlap,
    mpq_image,
    mpq_plus,
    mpq_tissue,
    pool_classes,
)

# three nuclei of four pixels in a row; the third is predicted one pixel short
TRUTH = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 3, 3, 3, 3]])
PREDICTION = np.array([[6, 6, 6, 6, 0, 5, 5, 5, 5, 0, 4, 4, 4, 0]])
TRUE_CLASSES = np.array([0, 1, 1, 2], np.int32)
PREDICTED_CLASSES = np.array([0, 0, 0, 0, 2, 3, 1], np.int32)  # ids 4, 5, 6


def matches(classes: Sequence[int] = (1, 2, 3)) -> list[MatchCounts]:
    return match_by_class(measure_overlap(TRUTH, PREDICTION), TRUE_CLASSES, PREDICTED_CLASSES, classes)


def test_counts_by_class_by_hand() -> None:
    first, second, third = matches()
    assert (first.tp, first.fp, first.fn, first.iou_sum) == (1, 0, 1, 1)  # the other is called class 3
    assert (second.tp, second.fp, second.fn, second.iou_sum) == (1, 0, 0, 0.75)
    assert (third.tp, third.fp, third.fn) == (0, 1, 0)


def test_mpq_leaves_out_classes_that_the_truth_lacks_and_mpq_plus_does_not() -> None:
    image = matches()
    assert mpq_image([image]) == pytest.approx((1 / 1.5 + 0.75) / 2)
    assert mpq_plus([image]) == pytest.approx((1 / 1.5 + 0.75 + 0) / 3)


def test_mpq_plus_pools_before_dividing() -> None:
    empty = np.zeros_like(PREDICTION)
    missed = match_by_class(measure_overlap(TRUTH, empty), TRUE_CLASSES, np.zeros(1, np.int32), (1, 2, 3))
    images = [matches(), missed]
    assert mpq_image(images) == pytest.approx((mpq_image([images[0]]) + 0) / 2)
    pooled = pool_classes(images)
    assert [(c.tp, c.fp, c.fn) for c in pooled] == [(1, 0, 3), (1, 0, 1), (0, 1, 0)]
    assert mpq_plus(images) == pytest.approx((1 / 2.5 + 0.75 / 1.5 + 0) / 3)


def pq_by_loops(truth: NDArray[np.int64], prediction: NDArray[np.int64]) -> float:
    """PQ of two label maps, every pair looked at; nan where the truth has no nucleus, as PanNuke counts it."""
    true, predicted = ([labels == k for k in np.unique(labels) if k] for labels in (truth, prediction))
    if not true:
        return math.nan
    ious = [(t & p).sum() / (t | p).sum() for t in true for p in predicted]
    matched = [iou for iou in ious if iou > 0.5]
    return sum(matched) / (len(matched) + (len(true) - len(matched)) / 2 + (len(predicted) - len(matched)) / 2)


def nanmean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


@pytest.mark.fault
def test_mpq_and_bpq_of_pannuke_written_as_loops() -> None:
    rng = np.random.default_rng(9)
    tissues = ["breast", "breast", "breast", "breast", "colon", "colon", None, "lung", "skin"]
    true_classes = np.array([0, 1, 2, 3, 1, 2, 3, 1, 2], np.int32)
    predicted_classes = np.array([0, 1, 2, 1, 1, 2, 3, 3, 2], np.int32)
    by_class, all_classes, mpq, bpq = [], [], [], []
    for number in range(len(tissues)):
        truth = np.kron(rng.integers(0, 9, (5, 6)), np.ones((3, 3), int))
        if number == 2:
            truth[true_classes[truth] == 3] = 0  # of a class that only the prediction has
        prediction = np.where(rng.random(truth.shape) < 0.55 + 0.05 * number, truth, 0)
        if number in (3, 7):  # nothing true, something found
            truth[:] = 0
        overlap = measure_overlap(truth, prediction)
        by_class.append(match_by_class(overlap, true_classes, predicted_classes, (1, 2, 3)))
        all_classes.append(match(overlap))
        of_classes = [
            pq_by_loops(
                np.where(true_classes[truth] == k, truth, 0),
                np.where(predicted_classes[prediction] == k, prediction, 0),
            )
            for k in (1, 2, 3)
        ]
        mpq.append(nanmean(of_classes))
        bpq.append(pq_by_loops(truth, prediction))
    names = ["breast", "colon", "lung", "skin"]
    for values, of_tissues, of_images in (
        (mpq, mpq_tissue(by_class, tissues), mpq_image(by_class)),
        (bpq, bpq_tissue(all_classes, tissues), bpq_image(all_classes)),
    ):
        by_tissue = [nanmean([v for v, t in zip(values, tissues, strict=True) if t == name]) for name in names]
        assert math.isnan(by_tissue[2])  # lung: no true nucleus, left out
        assert of_tissues == pytest.approx(nanmean(by_tissue), abs=1e-12)
        assert of_images == pytest.approx(nanmean(values), abs=1e-12)
        assert abs(of_tissues - of_images) > 0.01
    assert math.isnan(mpq_tissue(by_class[:2], [None, None]))
    with pytest.raises(HemalumError, match="2 images but 1 tissue"):
        bpq_tissue(all_classes[:2], ["breast"])


def test_against_pq_of_each_class_cut_out() -> None:
    rng = np.random.default_rng(4)
    truth = np.kron(rng.integers(0, 9, (6, 8)), np.ones((3, 3), int))
    prediction = np.where(rng.random(truth.shape) < 0.85, truth, 0)
    true_classes = np.array([0, 1, 2, 3, 1, 2, 3, 1, 2], np.int32)
    predicted_classes = np.array([0, 1, 2, 3, 1, 2, 1, 2, 3], np.int32)
    by_class = match_by_class(measure_overlap(truth, prediction), true_classes, predicted_classes, (1, 2, 3))
    for class_id, counts in zip((1, 2, 3), by_class, strict=True):
        only_true = np.where(true_classes[truth] == class_id, truth, 0)
        only_predicted = np.where(predicted_classes[prediction] == class_id, prediction, 0)
        assert counts == match(measure_overlap(only_true, only_predicted))


def test_classes_that_never_occur_and_no_images() -> None:
    assert mpq_plus([matches((1, 2, 3, 7))]) == mpq_plus([matches()])
    assert math.isnan(mpq_plus([]))
    assert math.isnan(mpq_image([matches((7,))]))


@pytest.mark.fault
def test_an_id_without_class_is_refused() -> None:
    with pytest.raises(HemalumError, match="largest nucleus id is 3"):
        match_by_class(measure_overlap(TRUTH, PREDICTION), TRUE_CLASSES[:3], PREDICTED_CLASSES, (1,))


def test_what_is_found_of_each_class_whatever_it_is_called() -> None:
    overlap = measure_overlap(TRUTH, PREDICTION)
    assert count_matches_by_class(overlap, TRUE_CLASSES, (1, 2, 3)) == [(2, 2), (1, 1), (0, 0)]
    half = np.where(np.arange(14) < 2, PREDICTION, 0)  # two of the first nucleus's four pixels: IoU 0.5 is no match
    assert count_matches_by_class(measure_overlap(TRUTH, half), TRUE_CLASSES, (1, 2)) == [(0, 2), (0, 1)]
