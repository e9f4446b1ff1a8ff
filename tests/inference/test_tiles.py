"""Windows cover an image exactly, with enough halo, in one size."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hemalum.inference.tiles import cut, plan_windows


@given(
    cells=st.integers(1, 200),
    parts=st.integers(1, 40),
    border=st.integers(0, 9),
    stride=st.sampled_from([1, 2, 4, 8, 16]),
)
def test_spans_cover_an_axis_once_with_halo_inside_and_none_outside(
    cells: int, parts: int, border: int, stride: int
) -> None:
    length, halo = cells * stride, border * stride
    spans = cut(length, parts, halo, stride)
    covered = np.zeros(length, int)
    for span in spans:
        assert 0 <= span.start <= span.core_start < span.core_stop <= span.stop <= length
        assert span.start % stride == 0
        assert (span.stop - span.start) % stride == 0
        assert span.start == 0 or span.core_start - span.start >= halo
        assert span.stop == length or span.stop - span.core_stop >= halo
        covered[span.core_start : span.core_stop] += 1
    assert (covered == 1).all()
    assert len({span.stop - span.start for span in spans}) == 1
    assert len(spans) <= parts


def test_a_cut_in_two_reads_two_halos_more() -> None:
    first, second = cut(1000, 2, 50, 10)
    assert (first.start, first.stop, first.core_stop) == (0, 550, 500)
    assert (second.start, second.stop, second.core_start) == (450, 1000, 500)


@given(
    height=st.integers(1, 300).map(lambda n: 8 * n),
    width=st.integers(1, 300).map(lambda n: 8 * n),
    halo=st.integers(0, 12).map(lambda n: 8 * n),
    area=st.integers(10_000, 1_000_000),
)
def test_windows_keep_to_the_budget_or_are_as_small_as_the_halo_allows(
    height: int, width: int, halo: int, area: int
) -> None:
    grid = plan_windows((height, width), halo=halo, stride=8, area=area, band_area=4 * area)
    tall = grid.rows[0].stop - grid.rows[0].start
    wide = grid.columns[0].stop - grid.columns[0].start
    flattest = 6 * halo + 8
    assert tall * wide <= area or tall <= flattest or wide <= 2 * flattest
    assert tall * width <= 4 * area or tall <= flattest
    assert grid.rows[-1].core_stop == height
    assert grid.columns[-1].core_stop == width


def test_a_large_image_costs_little_more_than_its_pixels() -> None:
    grid = plan_windows((8192, 8192), halo=72, stride=8, area=3_000_000, band_area=10_000_000)
    assert grid.cost < 1.2 * 8192**2


def test_windows_for_a_whole_slide_are_planned_at_once() -> None:
    grid = plan_windows((100_000, 100_000), halo=72, stride=8, area=3_000_000, band_area=10_000_000)
    assert grid.rows[-1].core_stop == 100_000
