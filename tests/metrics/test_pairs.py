"""What every metric refuses, and that the line names the array."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.metrics import count_pixels, match_by_class, measure_boundary, measure_overlap

GOOD = np.array([[0, 1, 1], [2, 2, 0]], np.int32)


@pytest.mark.fault
@pytest.mark.parametrize("metric", [count_pixels, measure_boundary, measure_overlap])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.where(GOOD == 2, math.nan, GOOD), "has nan in 2 of 6 pixels"),
        (GOOD.astype(np.float32), "is float32; give whole ids"),
        (GOOD.astype(object), "is object"),
        (np.where(GOOD == 2, -1, GOOD), "has negative ids"),
        (GOOD[None], r"must be an \(H, W\) label map or mask, not \(1, 2, 3\)"),
    ],
)
def test_bad_maps_are_named(metric: Callable[..., object], bad: NDArray[Any], message: str) -> None:
    with pytest.raises(HemalumError, match=f"prediction {message}"):
        metric(GOOD, bad)
    with pytest.raises(HemalumError, match=f"truth {message}"):
        metric(bad, GOOD)


@pytest.mark.fault
@pytest.mark.parametrize("metric", [count_pixels, measure_boundary, measure_overlap])
def test_shapes_must_agree(metric: Callable[..., object]) -> None:
    with pytest.raises(HemalumError, match=r"truth is \(2, 3\) but the prediction is \(2, 2\)"):
        metric(GOOD, GOOD[:, :2])
    for ambiguous in (np.zeros((2, 2), bool), np.zeros((2, 3), int)):
        with pytest.raises(HemalumError, match=r"ambiguous mask must be \(2, 3\) bool"):
            metric(GOOD, GOOD, ambiguous=ambiguous)


@pytest.mark.fault
def test_classes_must_be_whole_numbers() -> None:
    classes = np.array([0, 1, 2], np.int32)
    with pytest.raises(HemalumError, match="classes of the prediction are float64"):
        match_by_class(measure_overlap(GOOD, GOOD), classes, np.array([0, 1, math.nan]), [1, 2])
