"""Nuclei told apart by their edges: the representation `foreground_edge`."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from builders.scenes import draw_crowd, draw_ellipses
from hemalum.metrics import match, measure_overlap
from hemalum.nuclei.settings import SeparationSettings
from hemalum.targets.representations import REPRESENTATIONS

EDGES, SHAPE = REPRESENTATIONS["foreground_edge"], REPRESENTATIONS["foreground"]
SETTINGS = SeparationSettings(marker=0.9, min_depth=0.06)  # as in recipes that have edges


def pq(truth: NDArray[np.int32], labels: NDArray[np.int32]) -> float:
    return match(measure_overlap(truth, labels)).pq


def halves() -> NDArray[np.int32]:
    """Two discs pressed against each other, which together have no neck."""
    labels = draw_ellipses((50, 60), [(25, 30, 16, 11, 0)])
    labels[:, 30:][labels[:, 30:] > 0] = 2
    return labels


def test_an_edge_is_one_pixel_to_each_side() -> None:
    labels = np.zeros((7, 10), np.int32)
    labels[1:6, 1:5], labels[1:6, 5:9] = 1, 2
    edge = EDGES.encode(labels)[1]
    assert edge[3].tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 1, 1]
    np.testing.assert_array_equal(EDGES.encode(labels)[0], labels > 0)


@pytest.mark.parametrize("sure", [1.0, 0.6, 0.4])
def test_discs_that_touch_come_apart_by_the_edge_between_them(sure: float) -> None:
    """Also where the network is not sure enough of the edge for a threshold."""
    truth = halves()
    maps = EDGES.encode(truth)
    maps[1] = ndimage.gaussian_filter(maps[1], 0.7) * sure
    assert SHAPE.separate(maps[:1], SETTINGS).max() == 1  # what the foreground alone leaves together
    labels = EDGES.separate(maps, SETTINGS)
    assert labels.max() == 2
    assert pq(truth, labels) > 0.9


def test_without_any_edge_it_is_the_shape() -> None:
    truth = draw_ellipses((60, 90), [(30, 28, 14, 14, 0), (30, 54, 14, 14, 0)])
    maps = EDGES.encode(truth)
    maps[1] = 0
    assert pq(truth, EDGES.separate(maps, SETTINGS)) > 0.9


def test_a_stray_edge_does_not_cut_a_nucleus() -> None:
    """A line half across, and faint dots all over it."""
    truth = draw_ellipses((50, 50), [(25, 25, 14, 14, 0)])
    maps = EDGES.encode(truth)
    maps[1, 25, 8:20] = 1
    maps[1, ::5, ::5] = np.maximum(maps[1, ::5, ::5], 0.3)
    assert EDGES.separate(maps, SETTINGS).max() == 1


@pytest.mark.parametrize("seed", range(4))
def test_oracle_gives_the_crowd_back(seed: int) -> None:
    truth = draw_crowd(seed)
    assert pq(truth, EDGES.separate(EDGES.encode(truth), SETTINGS)) > 0.9


def test_peaks_see_no_further_than_they_say() -> None:
    rng = np.random.default_rng(0)
    maps = ndimage.gaussian_filter(rng.random((2, 120, 120)), (0, 6, 6)).astype(np.float32)
    maps = (maps - maps.min()) / np.ptp(maps)
    changed = maps.copy()
    changed[:, :, 61 + EDGES.reach :] = 1 - changed[:, :, 61 + EDGES.reach :]
    before, after = EDGES.reader(maps)[1], EDGES.reader(changed)[1]
    np.testing.assert_array_equal(before[:, :61], after[:, :61])
    assert (before != after).any()
