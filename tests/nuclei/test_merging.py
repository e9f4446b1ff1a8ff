"""What was cut inside one nucleus is joined; what touches is not."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from shapely import MultiPoint, intersects_xy

from builders.scenes import draw_ellipses
from hemalum.nuclei.merging import count_hull
from hemalum.nuclei.separation import flood
from hemalum.nuclei.settings import SeparationSettings
from hemalum.targets.representations import REPRESENTATIONS

PLAIN = SeparationSettings(marker=0.9, min_depth=0.05)
MERGING = PLAIN.model_copy(update={"merge_depth": 0.25})


def maps_of(truth: NDArray[np.int32]) -> list[NDArray[np.float32]]:
    """Foreground and peaks as a network would give them: a little soft."""
    return [ndimage.gaussian_filter(channel, 0.8) for channel in REPRESENTATIONS["distance"].encode(truth)]


def valleys(
    truth: NDArray[np.int32], angles: Sequence[float], depth: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Maps of one nucleus with valleys across its middle, as coarse chromatin makes them."""
    foreground, peaks = maps_of(truth)
    peaks = np.minimum(peaks, 0.5)
    rows, columns = np.mgrid[: truth.shape[0], : truth.shape[1]] + 0.5
    for angle in angles:
        across = (columns - truth.shape[1] / 2) * np.cos(angle) + (rows - truth.shape[0] / 2) * np.sin(angle)
        peaks = peaks * (1 - depth * np.exp(-(across**2) / 4.5))
    return foreground, peaks.astype(np.float32)


@pytest.mark.parametrize("angle", [0, 0.4, 1.1, 1.57])
def test_a_valley_through_a_round_nucleus_does_not_cut_it(angle: float) -> None:
    truth = draw_ellipses((40, 40), [(20, 20, 15, 14, 0.3)])
    maps = valleys(truth, [angle], 0.2)
    assert flood(*maps, PLAIN).max() == 2
    labels = flood(*maps, MERGING)
    assert labels.max() == 1
    assert ((labels > 0) == (maps[0] >= 0.5)).all()


def test_a_nucleus_in_four_pieces_is_put_together() -> None:
    truth = draw_ellipses((50, 50), [(25, 25, 20, 20, 0)])
    maps = valleys(truth, [0, np.pi / 2], 0.2)
    assert flood(*maps, PLAIN).max() == 4
    assert flood(*maps, MERGING).max() == 1


@pytest.mark.parametrize("apart", [1.5, 1.7, 2.0])
@pytest.mark.parametrize("radius", [7, 10, 15])
def test_round_nuclei_that_touch_or_overlap_stay_two(apart: float, radius: float) -> None:
    truth = draw_ellipses((50, 100), [(25, 25, radius, radius, 0), (25, 25 + apart * radius, radius, radius, 0)])
    assert flood(*maps_of(truth), MERGING).max() == 2


@pytest.mark.parametrize("apart", [1.7, 2.0])
def test_a_valley_that_does_not_cut_one_nucleus_cuts_two(apart: float) -> None:
    """The same shallow valley as above, where two discs meet."""
    truth = draw_ellipses((40, 80), [(20, 40 - 7 * apart, 14, 14, 0), (20, 40 + 7 * apart, 14, 14, 0)])
    truth = np.minimum(truth, 1)
    assert flood(*valleys(truth, [0], 0.2), MERGING).max() == 2


def test_a_chain_of_round_nuclei_stays_a_chain() -> None:
    truth = draw_ellipses((120, 30), [(12 + 16 * n, 15, 9, 9, 0) for n in range(6)])
    labels = flood(*maps_of(truth), MERGING)
    assert labels.max() == 6
    assert all(np.mean(labels[truth == n] == n) > 0.9 for n in range(1, 7))


def test_the_deep_border_of_two_halves_is_kept_though_their_union_is_round() -> None:
    truth = draw_ellipses((40, 40), [(20, 20, 15, 15, 0)])
    truth[:, 20:] *= 2
    assert flood(*maps_of(truth), MERGING).max() == 2


def test_a_shallow_border_is_kept_where_the_union_is_not_convex() -> None:
    """One valley of the same depth: across a disc it is chromatin, at the bend of an L it is not."""
    foreground = np.zeros((60, 60), np.float32)
    foreground[5:55, 5:17] = foreground[43:55, 5:55] = 1
    rows, columns = np.mgrid[:60, :60]
    peaks = np.where(np.abs(rows + columns - 59) <= 2, 0.41, 0.5).astype(np.float32)
    assert flood(foreground, peaks, PLAIN).max() == 2
    assert flood(foreground, peaks, MERGING).max() == 2
    # with no regard to shape the valley is too shallow
    assert flood(foreground, peaks, PLAIN.model_copy(update={"min_relative_depth": 0.25})).max() == 1


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=25))
def test_pixels_of_the_hull_are_counted_right(rows: list[tuple[int, int]]) -> None:
    ends = np.array([(min(row), max(row)) for row in rows], np.int32)
    hull = MultiPoint([(x, y) for y, row in enumerate(ends) for x in row]).convex_hull
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(31), np.arange(len(ends))))
    # centers on the hull's own line count, which floats may miss
    expected = intersects_xy(hull.buffer(1e-6), x, y).sum()
    assert count_hull(ends) == expected


def test_a_disc_on_the_grid_is_convex() -> None:
    for radius in (3, 8, 20):
        disc = draw_ellipses((50, 50), [(25, 25, radius, radius, 0)]) > 0
        rows = [np.flatnonzero(row)[[0, -1]] for row in disc if row.any()]
        assert count_hull(np.array(rows, np.int32)) == disc.sum()
