"""Outlines to pixels, against shapely's test of every pixel center."""

from collections.abc import Sequence

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from hemalum.data.annotations.outlines import Outline, draw_outlines
from hemalum.errors import HemalumError


def outline(*rings: Sequence[tuple[float, float]], name: str = "a") -> Outline:
    return Outline(name, tuple(np.array(ring, np.float64) for ring in rings))


def box(left: float, top: float, right: float, bottom: float, name: str = "a") -> Outline:
    return outline([(left, top), (right, top), (right, bottom), (left, bottom)], name=name)


def centers_inside(polygon: shapely.Polygon, shape: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return shapely.contains_xy(polygon, x, y)


def test_a_pixel_is_inside_when_its_center_is() -> None:
    labels = draw_outlines([box(2, 1, 5, 3)], (6, 8), "x")
    expected = np.zeros((6, 8), np.int32)
    expected[1:3, 2:5] = 1
    assert np.array_equal(labels, expected)
    assert draw_outlines([box(2.6, 1, 5.4, 3)], (6, 8), "x").sum() == 2 * 2  # columns 3 and 4


coordinate = st.floats(-5, 35, allow_nan=False, width=32).map(lambda value: value + 0.001237)


@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=12))
def test_star_shaped_polygons_as_shapely_fills_them(points: list[tuple[float, float]]) -> None:
    center = np.mean(points, axis=0)
    angles = [np.arctan2(y - center[1], x - center[0]) for x, y in points]
    ring = [points[index] for index in np.argsort(angles)]
    polygon = shapely.Polygon(ring)
    if not polygon.is_valid or polygon.area < 1e-3:
        return
    labels = draw_outlines([outline(ring)], (30, 30), "x")
    y, x = np.mgrid[:30, :30] + 0.5
    far = shapely.distance(shapely.points(x, y), polygon.boundary) > 1e-6  # on the line either is right
    assert np.array_equal((labels > 0)[far], centers_inside(polygon, (30, 30))[far])


def test_neighbors_that_share_a_line_share_no_pixel_and_leave_none() -> None:
    diagonal = [(0, 0), (20, 20)]  # through pixel centers
    upper, lower = outline([*diagonal, (20, 0)]), outline([*diagonal, (0, 20)])
    alone = [draw_outlines([one], (20, 20), "x") > 0 for one in (upper, lower)]
    assert not (alone[0] & alone[1]).any()
    assert (alone[0] | alone[1]).all()


def test_a_line_that_crosses_itself_leaves_no_hole() -> None:
    twice_around = [(1, 1), (9, 1), (9, 9), (1, 9), (1, 1), (5, 1), (5, 5), (1, 5)]
    assert draw_outlines([outline(twice_around)], (10, 10), "x").sum() == 64
    eight = [(0, 0), (10, 10), (10, 0), (0, 10)]  # its lobes are wound in opposite directions
    assert draw_outlines([outline(eight)], (10, 10), "x").sum() == pytest.approx(50, abs=5)


def test_a_second_ring_is_a_hole() -> None:
    ring = outline([(1, 1), (9, 1), (9, 9), (1, 9)], [(3, 3), (6, 3), (6, 6), (3, 6)])
    assert draw_outlines([ring], (10, 10), "x").sum() == 64 - 9


@pytest.mark.parametrize("turned", [False, True])
def test_the_smaller_has_the_overlap_whatever_the_order(turned: bool) -> None:
    both = [box(0, 0, 10, 10, "large"), box(2, 2, 5, 5, "small")]
    labels = draw_outlines(both[::-1] if turned else both, (10, 10), "x")
    small, large = (1, 2) if turned else (2, 1)
    assert (labels == small).sum() == 9
    assert (labels == large).sum() == 91


def test_what_has_no_pixel_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    outlines = [
        outline([(1, 1), (2, 2)], name="two points"),
        box(1, 1, 4, 4, "first"),
        box(1, 1, 4, 4, "again"),
        box(-9, 1, -2, 4, "outside"),
        box(6.6, 6.6, 7.2, 7.2, "between centers"),
        box(8, 8, 10, 10, "last"),
    ]
    labels = draw_outlines(outlines, (10, 10), "tile.xml")
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert (labels[2, 2], labels[9, 9]) == (1, 2)
    assert caplog.messages == [
        "tile.xml: 4 of 6 outlines have fewer than 3 vertices or no pixel of their own and are left out "
        "(two points, again, outside, between centers)"
    ]


def test_outlines_are_cut_at_the_edge() -> None:
    assert draw_outlines([box(-50, -50, 3, 2)], (10, 10), "x").sum() == 6
    assert draw_outlines([box(7, 8, 60, 60)], (10, 10), "x").sum() == 6


def test_no_outlines() -> None:
    assert draw_outlines([], (4, 5), "x").shape == (4, 5)


@pytest.mark.fault
def test_faults() -> None:
    with pytest.raises(HemalumError) as error:
        draw_outlines([box(1, 1, 4, 4), box(700, 20, 760.5, 90, "Region 2")], (500, 512), "tile.xml")
    assert str(error.value) == (
        "tile.xml: Region 2 reaches from (700, 20) to (760.5, 90), over 100 px outside the image of 512 x 500; "
        "do the two belong together?"
    )
    with pytest.raises(HemalumError, match=r"t\.xml: the outlines cover the image over 100 times; are they nuclei\?"):
        draw_outlines([box(0, 0, 10, 10)] * 101, (10, 10), "t.xml")
