"""Where windows of one size lie along an axis."""

import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemalum.models.windows import Span, cut_windows, stitch, window_halo


@given(length=st.integers(1, 3000), cells=st.integers(1, 40), stride=st.sampled_from([1, 4, 16, 32]))
def test_spans_have_one_size_and_cover_the_axis_once(length: int, cells: int, stride: int) -> None:
    window = cells * stride
    halo = window_halo(window, stride)
    spans = cut_windows(length, window, halo)
    covered = np.zeros(length, int)
    for span in spans:
        assert span.stop - span.start == window
        assert 0 <= span.start <= span.core_start < span.core_stop <= span.stop
        assert span.start == 0 or span.core_start - span.start >= halo
        assert span.core_stop == length or span.stop - span.core_stop >= halo
        covered[span.core_start : span.core_stop] += 1
    assert (covered == 1).all()
    assert spans[-1].stop == max(length, window)
    # one fewer could not have covered it with such overlaps
    assert len(spans) == 1 or (len(spans) - 1) * (window - 2 * halo) + 2 * halo < length


def test_an_axis_worked_out_by_hand() -> None:
    first, second, third = cut_windows(500, 224, 28)
    assert (first.start, first.core_start, first.stop) == (0, 0, 224)
    assert (second.start, second.stop) == (138, 362)
    assert (third.start, third.stop, third.core_stop) == (276, 500, 500)
    # in the middle of what two windows share, 138..224
    assert first.core_stop == second.core_start == 181


@pytest.mark.parametrize(
    ("window", "stride", "reach", "halo"),
    [(256, 16, 0, 32), (224, 32, 0, 32), (128, 16, 0, 16), (128, 32, 0, 32), (64, 8, 16, 16), (32, 32, 0, 8)],
)
def test_the_halo_is_an_eighth_in_whole_strides(window: int, stride: int, reach: int, halo: int) -> None:
    assert window_halo(window, stride, reach) == halo


def test_no_window_is_held_once_its_core_is_taken() -> None:
    windows: list[weakref.ref[NDArray[np.float32]]] = []

    def run(rows: Span, columns: Span) -> NDArray[np.float32]:
        assert all(window() is None for window in windows)
        maps = np.full((1, 64, 64), rows.start + columns.start, np.float32)
        windows.append(weakref.ref(maps))
        return maps

    assert stitch((150, 150), 64, 16, run).shape == (1, 150, 150)
    assert len(windows) == 16
