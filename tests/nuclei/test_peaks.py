"""Peaks: the blur against SciPy's convolution, depth in a nucleus against SciPy's distance transform."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from hemalum.nuclei.peaks import measure_depth, smooth
from hemalum.nuclei.settings import SeparationSettings
from hemalum.targets.representations import REPRESENTATIONS


def by_scipy(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Depth, each nucleus alone on a map with so wide a margin that what lies beyond the edge is out of reach."""
    depth = np.zeros(labels.shape, np.float32)
    margin = 2 * max(labels.shape)
    wide = np.pad(labels, margin, mode="edge")
    for label in np.unique(labels[labels > 0]):
        padded = ndimage.distance_transform_edt(wide == label)
        inside = labels == label
        depth[inside] = padded[margin:-margin, margin:-margin][inside]
    return depth


@given(st.integers(0, 10_000), st.integers(1, 24), st.integers(1, 24), st.integers(1, 5))
def test_depth_of_random_nuclei(seed: int, height: int, width: int, grain: int) -> None:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 4, (height // grain + 1, width // grain + 1))
    labels = np.kron(small, np.ones((grain, grain), int))[:height, :width].astype(np.int32)
    if labels.min() == labels.max():
        labels[0, 0] = 9
    # a nucleus cut by the edge goes on straight in the reference, not so here: leave it out
    inner = labels[1:-1, 1:-1]
    cut = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    kept = ~np.isin(inner, cut)
    np.testing.assert_array_equal(measure_depth(labels)[1:-1, 1:-1][kept], by_scipy(labels)[1:-1, 1:-1][kept])


@pytest.mark.parametrize("radius", [3, 20, 90])  # the last is deeper than the search goes
def test_depth_of_a_disc(radius: int) -> None:
    y, x = np.mgrid[: 2 * radius + 5, : 2 * radius + 5] - radius - 2
    labels = (y**2 + x**2 < radius**2).astype(np.int32)
    np.testing.assert_allclose(measure_depth(labels), ndimage.distance_transform_edt(labels), rtol=1e-6)


def test_a_nucleus_goes_on_beyond_the_edge() -> None:
    labels = np.array([[1, 1, 1, 0], [1, 1, 1, 2], [1, 1, 1, 2]], np.int32)
    np.testing.assert_array_equal(measure_depth(labels), [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 1, 1]])
    assert np.isinf(measure_depth(np.ones((5, 7), np.int32))).all()
    assert not measure_depth(np.zeros((5, 7), np.int32)).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (2, 2), (30, 41)])
@pytest.mark.parametrize("rounds", [1, 3])
def test_smoothing_is_a_binomial_blur(shape: tuple[int, int], rounds: int) -> None:
    values = np.random.default_rng(4).random(shape).astype(np.float32)
    expected = values.astype(np.float64)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    for _ in range(rounds):
        expected = ndimage.convolve(expected, kernel, mode="nearest")
    assert smooth(values, rounds) == pytest.approx(expected, abs=1e-6)


def test_smoothing_leaves_the_input_as_it_is_in_any_layout() -> None:
    values = np.random.default_rng(5).random((20, 30)).astype(np.float32)
    before = values.copy()
    assert (smooth(values.T, 2) == smooth(np.ascontiguousarray(values.T), 2)).all()
    assert (values == before).all()
    assert smooth(np.zeros((0, 5), np.float32), 2).shape == (0, 5)


@given(rounds=st.integers(1, 5), top=st.integers(0, 12), left=st.integers(0, 12), size=st.integers(1, 15))
def test_smoothing_a_window_with_enough_around_changes_no_bit(rounds: int, top: int, left: int, size: int) -> None:
    values = np.random.default_rng(top).random((28, 28)).astype(np.float32)
    rows, columns = (slice(max(a - rounds, 0), a + size + rounds) for a in (top, left))
    inside = smooth(values[rows, columns], rounds)[top - rows.start :, left - columns.start :][:size, :size]
    assert (inside == smooth(values, rounds)[top : top + size, left : left + size]).all()


def test_a_representation_counts_the_blur_into_its_reach_once() -> None:
    way = REPRESENTATIONS["center_gradient"]
    rule = SeparationSettings(smoothing=4)
    assert (way.reach, way.smoothed(rule).reach, way.smoothed(rule).smoothed(rule).reach) == (1, 5, 5)
    assert way.smoothed(rule).smoothed(SeparationSettings()) == way
    maps = np.random.default_rng(6).random((3, 12, 12)).astype(np.float32)
    assert (way.smoothed(rule).read(maps)[1] == smooth(way.read(maps)[1], 4)).all()
    assert (way.smoothed(rule).separate(maps, rule) == way.separate(maps, rule)).all()
