"""Histograms: bins and ticks by hand-worked cases, the SVG by reading it back."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemalum.reports.segmentation.histogram import bin_edges, histogram_svg, ticks


def bars(svg: str) -> list[float]:
    root = ET.fromstring(svg)
    return [float(element.attrib["height"]) for element in root.iter("rect")]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (3, 97, [20, 40, 60, 80]),
        (2, 2, [2]),
    ],
)
def test_ticks_are_round_numbers_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_bin_edges_follow_freedman_and_diaconis() -> None:
    values = np.arange(1000, dtype=np.float64)  # quartiles 249.75 and 749.25: step 2 * 499.5 / 10 = 99.9
    edges = bin_edges(values)
    assert len(edges) - 1 == 10  # (994.005 - 4.995) / 99.9 = 9.9, rounded up
    assert edges[0] == pytest.approx(4.995)
    assert edges[-1] == pytest.approx(994.005)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_edges_rise_whatever_the_values(values: list[float]) -> None:
    edges = bin_edges(np.array(values))
    assert 2 <= len(edges) <= 33
    assert (np.diff(edges) > 0).all()


def test_bars_are_as_high_as_the_counts() -> None:
    values = np.array([1.0] * 30 + [2.0] * 60 + [3.0] * 10)
    counts, _ = np.histogram(np.clip(values, 1, 3), bin_edges(values))
    heights = np.array(bars(histogram_svg(values, "Area (µm²)")))
    assert heights == pytest.approx(heights.max() * counts / counts.max(), abs=0.06)


def test_the_tails_are_counted_in_the_outermost_bars() -> None:
    inside = np.linspace(10, 20, 2000)
    values = np.concatenate([inside, [1000.0] * 5])
    edges = bin_edges(values)
    assert edges[-1] < 21
    last = bars(histogram_svg(values, "x"))[-1]
    assert last > bars(histogram_svg(values, "x"))[-2]


def test_what_is_said_to_a_screen_reader_is_escaped() -> None:
    svg = histogram_svg(np.array([1.0, 2.0, 2.0, np.nan]), 'a <b> "c"')
    root = ET.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'Histogram of a <b> "c": 3 nuclei, median 2'


def test_no_values_is_said_and_not_drawn() -> None:
    assert "no values" in histogram_svg(np.array([np.nan]), "area")
