import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from hemalum.instances.representations import REPRESENTATIONS
from hemalum.instances.smoothing import smooth
from hemalum.models.card import SeparationSettings


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (2, 2), (30, 41)])
@pytest.mark.parametrize("rounds", [1, 3])
def test_is_a_binomial_blur(shape, rounds):
    values = np.random.default_rng(4).random(shape).astype(np.float32)
    expected = values.astype(np.float64)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    for _ in range(rounds):
        expected = ndimage.convolve(expected, kernel, mode="nearest")
    assert smooth(values, rounds) == pytest.approx(expected, abs=1e-6)


def test_the_input_is_left_alone_in_any_layout():
    values = np.random.default_rng(5).random((20, 30)).astype(np.float32)
    before = values.copy()
    assert (smooth(values.T, 2) == smooth(np.ascontiguousarray(values.T), 2)).all()
    assert (values == before).all()
    assert smooth(np.zeros((0, 5), np.float32), 2).shape == (0, 5)


@given(rounds=st.integers(1, 5), top=st.integers(0, 12), left=st.integers(0, 12), size=st.integers(1, 15))
def test_a_window_with_enough_around_gives_the_same_bits(rounds, top, left, size):
    values = np.random.default_rng(top).random((28, 28)).astype(np.float32)
    rows, columns = (slice(max(a - rounds, 0), a + size + rounds) for a in (top, left))
    inside = smooth(values[rows, columns], rounds)[top - rows.start :, left - columns.start :][:size, :size]
    assert (inside == smooth(values, rounds)[top : top + size, left : left + size]).all()


def test_a_representation_counts_the_blur_into_its_reach_once():
    way = REPRESENTATIONS["centre_gradient"]
    rule = SeparationSettings(smoothing=4)
    assert (way.reach, way.smoothed(rule).reach, way.smoothed(rule).smoothed(rule).reach) == (1, 5, 5)
    assert way.smoothed(rule).smoothed(SeparationSettings()) == way
    maps = np.random.default_rng(6).random((3, 12, 12)).astype(np.float32)
    assert (way.smoothed(rule).read(maps)[1] == smooth(way.read(maps)[1], 4)).all()
    assert (way.smoothed(rule).separate(maps, rule) == way.separate(maps, rule)).all()
