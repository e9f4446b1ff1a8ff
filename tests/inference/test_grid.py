"""Tiles and cells cover an image once, with halo inside and none outside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemalum.inference.grid import Box, TileGrid, cut_cells, cut_tiles, plan_tiles
from hemalum.models.card import Card, Tiling


@given(
    length=st.integers(1, 4000), cores=st.integers(1, 9), border=st.integers(0, 40),
    stride=st.sampled_from([1, 2, 4, 8, 16]),
)  # fmt: skip
def test_tiles_cover_an_axis_once_in_one_size(length: int, cores: int, border: int, stride: int) -> None:
    window = 2 * border + cores * stride
    window += -window % stride
    spans = cut_tiles(length, window, border, stride)
    covered = np.zeros(length, int)
    for span in spans:
        assert 0 <= span.start <= span.core_start < span.core_stop <= min(span.stop, length)
        assert (span.stop - span.start) % stride == 0
        assert span.start == 0 or span.core_start - span.start >= border
        assert span.core_stop == length or span.stop - span.core_stop >= border
        covered[span.core_start : span.core_stop] += 1
    assert (covered == 1).all()
    assert len({span.stop - span.start for span in spans}) == 1
    assert length <= spans[-1].stop <= length + -length % stride
    assert len(spans) == 1 or spans[0].stop == window


def test_an_axis_worked_out_by_hand() -> None:
    first, second, last = cut_tiles(500, 256, 48, 4)
    assert (first.start, first.stop, first.core_start, first.core_stop) == (0, 256, 0, 208)
    assert (second.start, second.stop, second.core_start, second.core_stop) == (160, 416, 208, 368)
    assert (last.start, last.stop, last.core_start, last.core_stop) == (244, 500, 368, 500)


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), side=st.integers(50, 2000))
def test_cells_cover_an_image_once_in_nearly_one_size(height: int, width: int, side: int) -> None:
    cells = cut_cells((height, width), side)
    assert [row[0].top for row in cells] == [0, *(row[0].bottom for row in cells[:-1])]
    assert (cells[-1][-1].bottom, cells[-1][-1].right) == (height, width)
    for row in cells:
        assert [cell.left for cell in row] == [0, *(cell.right for cell in row[:-1])]
    sizes = [cell.shape for row in cells for cell in row]
    for axis in (0, 1):
        assert max(size[axis] for size in sizes) <= side
        assert max(size[axis] for size in sizes) - min(size[axis] for size in sizes) <= 1


def test_tiles_over_a_box_are_those_whose_cores_meet_it() -> None:
    grid = TileGrid(cut_tiles(500, 256, 48, 4), cut_tiles(900, 256, 48, 4))
    box = Box(207, 300, 209, 528)
    expected = [
        (row, column)
        for row in range(len(grid.rows))
        for column in range(len(grid.columns))
        if min(grid.core((row, column)).meet(box).shape) > 0
    ]
    assert list(grid.over(box)) == expected
    assert len(expected) == 4


def test_a_box_grows_inside_the_image() -> None:
    assert Box(10, 20, 30, 40).grown(15, (35, 100)) == Box(0, 5, 35, 55)


@pytest.mark.parametrize(("tiling", "expected"), [({}, (256, 192)), ({"window": 128, "halo": 16}, (128, 96))])
def test_the_card_decides_the_tiles(disk_card: Card, tiling: dict[str, int], expected: tuple[int, int]) -> None:
    """Side and distance of the tiles, without a reach; never the machine."""
    card = disk_card.model_copy(update={"tiling": Tiling(**tiling), "halo": 200, "stride": 4, "window": None})
    grid = plan_tiles(card, (2000, 2000), reach=0)
    assert (grid.side, grid.rows[1].start) == expected


def test_a_halo_wider_than_the_field_of_view_is_not_needed(disk_card: Card) -> None:
    card = disk_card.model_copy(update={"halo": 8, "stride": 4, "window": None})
    grid = plan_tiles(card, (2000, 2000), reach=3)
    assert grid.rows[1].start == 256 - 2 * (8 + 3)
