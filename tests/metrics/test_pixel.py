import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from hemalum.errors import HemalumError
from hemalum.metrics import (
    AVERAGINGS,
    PixelCounts,
    PixelScores,
    average_pixel_scores,
    count_pixels,
    score_pixels,
    score_pixels_weighted,
)
from hemalum.metrics.pairs import Mask

masks = arrays(np.bool_, (7, 9))


def by_sklearn(truth: Mask, prediction: Mask, average: str) -> PixelScores:
    pair = (truth.ravel(), prediction.ravel())
    options = {"average": average, "zero_division": 0}
    return PixelScores(
        precision_score(*pair, **options),
        recall_score(*pair, **options),
        f1_score(*pair, **options),
        jaccard_score(*pair, **options),
    )


def agree(a: PixelScores, b: PixelScores) -> bool:
    return all(
        getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-12, nan_ok=True)
        for name in ("precision", "recall", "dice", "iou")
    )


def test_counts_by_hand() -> None:
    truth = np.array([[0, 5, 5], [0, 0, 2]])
    prediction = np.array([[1, 1, 0], [0, 0, 9]], np.uint16)
    assert count_pixels(truth, prediction) == PixelCounts(tp=2, fp=1, fn=1, tn=2)
    ambiguous = np.array([[True, False, False], [True, False, True]])
    assert count_pixels(truth, prediction, ambiguous=ambiguous) == PixelCounts(tp=1, fp=0, fn=1, tn=1)


@settings(max_examples=40)  # scikit-learn is slow on small arrays
@given(masks, masks)
def test_scores_are_those_of_sklearn(truth: Mask, prediction: Mask) -> None:
    counts = count_pixels(truth, prediction)
    if truth.any() or prediction.any():
        assert agree(score_pixels(counts), by_sklearn(truth, prediction, "binary"))
    assert agree(score_pixels_weighted(counts), by_sklearn(truth, prediction, "weighted"))


@settings(max_examples=25)
@given(st.lists(st.tuples(masks, masks), min_size=1, max_size=4))
def test_averagings_are_means_and_pools_of_sklearn(images: list[tuple[Mask, Mask]]) -> None:
    counts = [count_pixels(*image) for image in images]
    truth, prediction = (np.concatenate(maps) for maps in zip(*images, strict=True))
    if truth.any() or prediction.any():
        assert agree(average_pixel_scores(counts, "pooled"), by_sklearn(truth, prediction, "binary"))
    for averaging, average in (("per_image", "binary"), ("support_weighted", "weighted")):
        kept = [image for image in images if average == "weighted" or image[0].any() or image[1].any()]
        rows = [by_sklearn(*image, average) for image in kept]
        mean = PixelScores(
            *(
                np.mean([getattr(row, name) for row in rows]) if rows else math.nan
                for name in ("precision", "recall", "dice", "iou")
            )
        )
        assert agree(average_pixel_scores(counts, averaging), mean)


def test_the_three_averagings_differ_on_one_easy_and_one_hard_image() -> None:
    easy = PixelCounts(tp=90, fp=0, fn=0, tn=10)
    hard = PixelCounts(tp=1, fp=2, fn=1, tn=96)
    dice = {name: average_pixel_scores([easy, hard], name).dice for name in AVERAGINGS}
    assert dice["pooled"] == pytest.approx(2 * 91 / (2 * 91 + 3))
    assert dice["per_image"] == pytest.approx((1 + 2 / 5) / 2)
    background = 2 * 96 / (2 * 96 + 3)
    assert dice["support_weighted"] == pytest.approx((1 + 0.98 * background + 0.02 * 0.4) / 2)


def test_empty_cases() -> None:
    nothing, something = np.zeros((3, 3), bool), np.eye(3, dtype=bool)
    both = count_pixels(nothing, nothing)
    assert all(math.isnan(v) for v in (score_pixels(both).dice, score_pixels(both).precision))
    assert score_pixels_weighted(both) == PixelScores(1, 1, 1, 1)
    assert score_pixels(count_pixels(nothing, something)) == PixelScores(0, 0, 0, 0)
    assert score_pixels(count_pixels(something, nothing)) == PixelScores(0, 0, 0, 0)
    # the undefined image is left out of the mean, not counted as 0 or 1
    half = PixelCounts(tp=1, fp=1, fn=1, tn=0)
    assert average_pixel_scores([both, half], "per_image").dice == 0.5
    assert math.isnan(average_pixel_scores([], "pooled").dice)
    everything = np.ones((3, 3), bool)
    assert math.isnan(score_pixels_weighted(count_pixels(something, something, ambiguous=everything)).dice)


@given(masks, masks, masks)
def test_ambiguous_pixels_do_not_matter(truth: Mask, prediction: Mask, ambiguous: Mask) -> None:
    counts = count_pixels(truth, prediction, ambiguous=ambiguous)
    assert counts == count_pixels(truth ^ ambiguous, prediction | ambiguous, ambiguous=ambiguous)
    assert counts.tp + counts.fp + counts.fn + counts.tn == np.count_nonzero(~ambiguous)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("truth", "prediction", "ambiguous", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), None, r"truth is \(2, 3\)"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), None, "float64"),
        (np.zeros((2, 3, 1), int), np.zeros((2, 3, 1), int), None, "truth must be"),
        (np.zeros((2, 3), int), np.full((2, 3), -1), None, "negative"),
        (np.zeros((2, 3), int), np.zeros((2, 3), int), np.zeros((2, 3), int), "ambiguous mask"),
    ],
)
def test_what_does_not_fit_is_refused(
    truth: NDArray[Any], prediction: NDArray[Any], ambiguous: NDArray[Any] | None, message: str
) -> None:
    with pytest.raises(HemalumError, match=message):
        count_pixels(truth, prediction, ambiguous=ambiguous)


@pytest.mark.fault
def test_unknown_averaging_is_refused() -> None:
    with pytest.raises(HemalumError, match="support_weighted"):
        average_pixel_scores([], "macro")
