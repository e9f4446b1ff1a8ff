"""Calibration of pixel probabilities against loops over pixels and a grid of temperatures, and where it is lost."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.metrics import (
    BINS,
    COLDEST,
    HOTTEST,
    ProbabilityCounts,
    at_temperature,
    calibration_error,
    count_probabilities,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)

Pixels = list[tuple[float, bool]]  # probability and whether it is nucleus


def counted(pixels: Pixels) -> ProbabilityCounts:
    probability = np.array([[p for p, _ in pixels]], np.float64)
    return count_probabilities(probability, np.array([[truth for _, truth in pixels]], bool))


def drawn(seed: int, temperature: float, size: int = 3000) -> Pixels:
    """Pixels that are as often nucleus as their probability at `temperature` says; centers of fine bins."""
    rng = np.random.default_rng(seed)
    stated = (np.floor(rng.beta(0.5, 0.8, size).clip(0, 0.9995) * BINS) + 0.5) / BINS
    true = [1 / (1 + ((1 - p) / p) ** (1 / temperature)) for p in stated]
    return [(float(p), bool(rng.random() < t)) for p, t in zip(stated, true, strict=True)]


def warmed(p: float, temperature: float) -> float:
    """p at a temperature, as the odds say it."""
    return 1 / (1 + ((1 - p) / p) ** (1 / temperature))


def error_by_loops(pixels: Pixels, bins: int, temperature: float) -> float:
    total = 0.0
    for b in range(bins):
        inside = [(q, truth) for p, truth in pixels if min(int((q := warmed(p, temperature)) * bins), bins - 1) == b]
        if inside:
            mean, share = sum(q for q, _ in inside) / len(inside), sum(truth for _, truth in inside) / len(inside)
            total += abs(mean - share) * len(inside) / len(pixels)
    return total


def loss_by_loops(pixels: Pixels, temperature: float) -> float:
    return -sum(math.log(q if t else 1 - q) for p, t in pixels for q in [warmed(p, temperature)]) / len(pixels)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("bins", [1, 7, 15])
def test_error_and_loss_against_loops(bins: int, temperature: float) -> None:
    pixels = drawn(0, 1.7)
    counts = counted(pixels)
    error = calibration_error(counts, bins, temperature=temperature)
    assert error == pytest.approx(error_by_loops(pixels, bins, temperature), abs=1e-9)
    assert negative_log_likelihood(counts, temperature) == pytest.approx(loss_by_loops(pixels, temperature))
    assert reliability(counts, bins, temperature=temperature).count.sum() == len(pixels)


@pytest.mark.parametrize("true", [0.5, 1.0, 1.6, 3.0])
def test_temperature_is_the_best_of_a_grid_and_the_one_that_the_pixels_were_drawn_at(true: float) -> None:
    pixels = drawn(3, true)
    counts = counted(pixels)
    fitted = fit_temperature(counts)
    grid = np.geomspace(0.2, 8, 1500)
    losses = [negative_log_likelihood(counts, float(t)) for t in grid]
    assert fitted == pytest.approx(float(grid[np.argmin(losses)]), rel=0.003)
    assert loss_by_loops(pixels, fitted) <= min(loss_by_loops(pixels, fitted * f) for f in (0.99, 1.01))
    assert fitted == pytest.approx(true, rel=0.12)
    if true != 1:
        assert calibration_error(counts, temperature=fitted) < calibration_error(counts) / 2


def test_the_temperature_by_hand() -> None:
    # 0.8805 stated, 3 of 4 are: log odds 1.9977 are to be log 3, in the same way on both sides of a half
    pixels = [(0.8805, True)] * 3 + [(0.8805, False)] + [(0.1195, False)] * 3 + [(0.1195, True)]
    expected = math.log(0.8805 / 0.1195) / math.log(3)
    assert fit_temperature(counted(pixels)) == pytest.approx(expected, rel=1e-4)
    assert float(at_temperature(np.array(0.8805), expected)) == pytest.approx(0.75)


def test_temperatures_end_where_all_is_sure_or_nothing_is() -> None:
    right = [(0.9, True), (0.1, False)] * 20
    wrong = [(0.9, False), (0.1, True)] * 20
    assert fit_temperature(counted(right)) == pytest.approx(COLDEST, rel=1e-3)
    assert fit_temperature(counted(wrong)) == pytest.approx(HOTTEST, rel=1e-3)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), st.floats(0.1, 10))
def test_a_temperature_keeps_the_order_the_ends_and_the_half(values: list[float], temperature: float) -> None:
    p: NDArray[np.float32] = np.sort(np.array([*values, 0, 0.5, 1], np.float32))
    scaled = at_temperature(p, temperature)
    assert scaled.dtype == np.float32
    assert (np.diff(scaled) >= 0).all()
    assert (scaled[0], scaled[-1]) == (0, 1)
    assert (scaled[p == 0.5] == 0.5).all()
    if temperature >= 1:  # nearer to a half
        assert (np.abs(scaled - 0.5) <= np.abs(p - 0.5) + 1e-6).all()
    assert at_temperature(p, 1) is p


@pytest.mark.fault
def test_what_cannot_be_calibrated() -> None:
    with pytest.raises(HemalumError, match="on pixels of nuclei and of background, and one of them is missing"):
        fit_temperature(counted([(0.3, False)]))
    with pytest.raises(HemalumError, match="on pixels of nuclei and of background"):
        fit_temperature(ProbabilityCounts.none())
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(HemalumError, match="want a number above 0"):
            at_temperature(np.array([0.5]), bad)
    assert math.isnan(negative_log_likelihood(ProbabilityCounts.none()))
