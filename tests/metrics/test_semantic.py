import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import jaccard_score, precision_recall_fscore_support

from hemalum.errors import HemalumError
from hemalum.metrics import PixelCounts, average_by_class, count_pixels, count_pixels_by_class
from hemalum.metrics.pairs import Labels

# 2 of 3 pixels of class 1 are found, one is called 2; class 2 has two pixels, one is called background
TRUTH = np.array([[1, 1, 1, 2, 2, 0, 0, 0]])
PREDICTION = np.array([[1, 1, 2, 2, 0, 0, 0, 3]])


def test_counts_and_means_by_hand() -> None:
    first, second, third = count_pixels_by_class(TRUTH, PREDICTION, (1, 2, 3))
    assert first == PixelCounts(tp=2, fp=0, fn=1, tn=5)
    assert second == PixelCounts(tp=1, fp=1, fn=1, tn=5)
    assert third == PixelCounts(tp=0, fp=1, fn=0, tn=7)
    scores = average_by_class([(first, second, third)], "pooled")
    # class 3 is nowhere in the truth: left out
    assert scores.precision == pytest.approx((1 + 1 / 2) / 2)
    assert scores.recall == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.f1 == pytest.approx((4 / 5 + 1 / 2) / 2)
    assert scores.miou == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert math.isnan(scores.by_class[2].iou)
    per_image = average_by_class([(first, second, third)], "per_image")  # of one image both are the same
    assert (per_image.precision, per_image.recall, per_image.f1, per_image.miou) == (
        scores.precision,
        scores.recall,
        scores.f1,
        scores.miou,
    )


def test_averagings_differ_where_images_do() -> None:
    """Image one is TRUTH; image two has class 1 only, one pixel, missed; a third has nothing."""
    images = [
        count_pixels_by_class(TRUTH, PREDICTION, (1, 2)),
        count_pixels_by_class(np.array([[1, 0]]), np.array([[2, 0]]), (1, 2)),
        count_pixels_by_class(np.array([[0, 0]]), np.array([[2, 0]]), (1, 2)),
    ]
    pooled, per_image = average_by_class(images, "pooled"), average_by_class(images, "per_image")
    assert pooled.by_class[0].iou == pytest.approx(2 / 4)
    assert pooled.by_class[1].iou == pytest.approx(1 / 5)  # false alarms of both other images
    assert pooled.miou == pytest.approx((2 / 4 + 1 / 5) / 2)
    assert per_image.by_class[0].iou == pytest.approx((2 / 3 + 0) / 2)
    assert per_image.by_class[1].iou == pytest.approx(1 / 3)  # the one image whose truth has it
    assert per_image.miou == pytest.approx(((2 / 3 + 1 / 3) / 2 + 0) / 2)  # the third image has no class


class_maps = arrays(np.int32, (6, 7), elements=st.integers(0, 4))


@given(truth=class_maps, prediction=class_maps)
def test_against_scikit_learn(truth: Labels, prediction: Labels) -> None:
    classes = sorted(set(np.unique(truth).tolist()) - {0})
    counts = count_pixels_by_class(truth, prediction, (1, 2, 3, 4))
    scores = average_by_class([counts], "pooled")
    if not classes:
        assert all(math.isnan(value) for value in (scores.precision, scores.recall, scores.f1, scores.miou))
        return
    y_true, y_pred = truth.ravel(), prediction.ravel()
    options = {"labels": classes, "average": "macro", "zero_division": 0}
    precision, recall, f1, _ = precision_recall_fscore_support(y_true, y_pred, **options)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx((precision, recall, f1))
    assert scores.miou == pytest.approx(jaccard_score(y_true, y_pred, **options))
    per_class = precision_recall_fscore_support(y_true, y_pred, labels=classes, average=None, zero_division=0)
    for index, class_id in enumerate(classes):
        class_scores = scores.by_class[class_id - 1]
        expected = [column[index] for column in per_class[:3]]
        assert (class_scores.precision, class_scores.recall, class_scores.dice) == pytest.approx(expected)


@given(truth=class_maps, prediction=class_maps)
def test_one_class_is_the_binary_count(truth: Labels, prediction: Labels) -> None:
    cut = np.minimum(truth, 1), np.minimum(prediction, 1)
    assert count_pixels_by_class(*cut, (1,)) == [count_pixels(*cut)]


@pytest.mark.fault
def test_ambiguous_pixels_and_unknown_classes() -> None:
    unsure = np.array([[False, False, True, False, False, False, False, True]])
    first, second = count_pixels_by_class(TRUTH, PREDICTION, (1, 2), ambiguous=unsure)
    assert first == PixelCounts(tp=2, fp=0, fn=0, tn=4)
    assert second == PixelCounts(tp=1, fp=0, fn=1, tn=4)
    assert count_pixels_by_class(TRUTH, np.where(PREDICTION == 2, 9, PREDICTION), (1, 2))[1].fn == 2
    assert average_by_class([], "pooled").by_class == ()
    assert math.isnan(average_by_class([], "per_image").f1)
    with pytest.raises(HemalumError, match="class 0: classes are numbered from 1"):
        count_pixels_by_class(TRUTH, PREDICTION, (0, 1))
    with pytest.raises(HemalumError):
        count_pixels_by_class(TRUTH, PREDICTION[:, :4], (1, 2))
