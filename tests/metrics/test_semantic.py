import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import jaccard_score, precision_recall_fscore_support

from hemalum.errors import HemalumError
from hemalum.metrics import PixelCounts, average_by_class, count_pixels, count_pixels_by_class

# 2 of 3 pixels of class 1 are found, one is called 2; class 2 has two pixels, one is called background
TRUTH = np.array([[1, 1, 1, 2, 2, 0, 0, 0]])
PREDICTION = np.array([[1, 1, 2, 2, 0, 0, 0, 3]])


def test_counts_and_means_by_hand():
    one, two, three = count_pixels_by_class(TRUTH, PREDICTION, (1, 2, 3))
    assert one == PixelCounts(tp=2, fp=0, fn=1, tn=5)
    assert two == PixelCounts(tp=1, fp=1, fn=1, tn=5)
    assert three == PixelCounts(tp=0, fp=1, fn=0, tn=7)
    scores = average_by_class([(one, two, three)], "pooled")
    # class 3 is nowhere in the truth: left out
    assert scores.precision == pytest.approx((1 + 1 / 2) / 2)
    assert scores.recall == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.f1 == pytest.approx((4 / 5 + 1 / 2) / 2)
    assert scores.miou == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert math.isnan(scores.by_class[2].iou)
    alone = average_by_class([(one, two, three)], "per_image")  # of one image both are the same
    assert (alone.precision, alone.recall, alone.f1, alone.miou) == (
        scores.precision,
        scores.recall,
        scores.f1,
        scores.miou,
    )


def test_averagings_differ_where_images_do():
    """Image one is TRUTH; image two has class 1 only, one pixel, missed; a third has nothing."""
    images = [
        count_pixels_by_class(TRUTH, PREDICTION, (1, 2)),
        count_pixels_by_class(np.array([[1, 0]]), np.array([[2, 0]]), (1, 2)),
        count_pixels_by_class(np.array([[0, 0]]), np.array([[2, 0]]), (1, 2)),
    ]
    pooled, each = average_by_class(images, "pooled"), average_by_class(images, "per_image")
    assert pooled.by_class[0].iou == pytest.approx(2 / 4)
    assert pooled.by_class[1].iou == pytest.approx(1 / 5)  # false alarms of both other images
    assert pooled.miou == pytest.approx((2 / 4 + 1 / 5) / 2)
    assert each.by_class[0].iou == pytest.approx((2 / 3 + 0) / 2)
    assert each.by_class[1].iou == pytest.approx(1 / 3)  # the one image whose truth has it
    assert each.miou == pytest.approx(((2 / 3 + 1 / 3) / 2 + 0) / 2)  # the third image has no class


class_maps = arrays(np.int32, (6, 7), elements=st.integers(0, 4))


@given(truth=class_maps, prediction=class_maps)
def test_against_scikit_learn(truth, prediction):
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
    each = precision_recall_fscore_support(y_true, y_pred, labels=classes, average=None, zero_division=0)
    for place, name in enumerate(classes):
        own = scores.by_class[name - 1]
        assert (own.precision, own.recall, own.dice) == pytest.approx([column[place] for column in each[:3]])


@given(truth=class_maps, prediction=class_maps)
def test_one_class_is_the_binary_count(truth, prediction):
    cut = np.minimum(truth, 1), np.minimum(prediction, 1)
    assert count_pixels_by_class(*cut, (1,)) == [count_pixels(*cut)]


def test_ambiguous_pixels_and_unknown_classes():
    unsure = np.array([[False, False, True, False, False, False, False, True]])
    one, two = count_pixels_by_class(TRUTH, PREDICTION, (1, 2), ambiguous=unsure)
    assert one == PixelCounts(tp=2, fp=0, fn=0, tn=4)
    assert two == PixelCounts(tp=1, fp=0, fn=1, tn=4)
    assert count_pixels_by_class(TRUTH, np.where(PREDICTION == 2, 9, PREDICTION), (1, 2))[1].fn == 2
    assert average_by_class([], "pooled").by_class == ()
    assert math.isnan(average_by_class([], "per_image").f1)
    with pytest.raises(HemalumError, match="class 0: classes are numbered from 1"):
        count_pixels_by_class(TRUTH, PREDICTION, (0, 1))
    with pytest.raises(HemalumError):
        count_pixels_by_class(TRUTH, PREDICTION[:, :4], (1, 2))
