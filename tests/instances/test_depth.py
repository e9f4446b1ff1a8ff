"""Depth in a nucleus against SciPy's distance transform, one nucleus at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from hemalum.instances.depth import measure_depth


def by_scipy(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Each nucleus alone on a map with so wide a margin that what lies beyond the edge is out of reach."""
    depth = np.zeros(labels.shape, np.float32)
    margin = 2 * max(labels.shape)
    wide = np.pad(labels, margin, mode="edge")
    for label in np.unique(labels[labels > 0]):
        whole = ndimage.distance_transform_edt(wide == label)
        inside = labels == label
        depth[inside] = whole[margin:-margin, margin:-margin][inside]
    return depth


@given(st.integers(0, 10_000), st.integers(1, 24), st.integers(1, 24), st.integers(1, 5))
def test_depth_of_random_nuclei(seed: int, height: int, width: int, grain: int) -> None:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 4, (height // grain + 1, width // grain + 1))
    labels = np.kron(small, np.ones((grain, grain), int))[:height, :width].astype(np.int32)
    if labels.min() == labels.max():
        labels[0, 0] = 9
    inner = labels[
        1:-1, 1:-1
    ]  # a nucleus cut by the edge goes on straight in the reference, not so here: leave it out
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
