"""Scale from the size of the nuclei, against sizes that are known by construction."""

import numpy as np
import pytest

from hemalum.data.nucleus_size import REFERENCE_DIAMETER_UM, equivalent_diameters, mpp_from_nuclei


def test_diameter_of_the_circle_of_the_same_area() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[5:15, 5:15] = 4  # 100 px
    labels[20:22, 20:30] = 9  # 20 px
    expected = [np.sqrt(400 / np.pi), np.sqrt(80 / np.pi)]
    assert sorted(equivalent_diameters(labels)) == pytest.approx(sorted(expected))


def test_nuclei_cut_by_the_border_are_left_out() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[0:5, 5:9] = 1
    labels[36:40, 5:9] = 2
    labels[5:9, 0:3] = 3
    labels[5:9, 37:40] = 4
    labels[10:20, 10:20] = 5
    assert equivalent_diameters(labels).size == 1
    assert equivalent_diameters(np.zeros((3, 3), np.int32)).size == 0


def test_scale_brings_the_median_to_the_reference() -> None:
    diameters = [np.full(20, 20.8), np.full(20, 41.6)]
    assert mpp_from_nuclei(diameters, ["a", "a"]) == [0.25, 0.125]
    assert REFERENCE_DIAMETER_UM == 5.2


def test_few_nuclei_take_the_scale_of_their_kind() -> None:
    many, few, none = np.full(20, 20.8), np.full(3, 99.0), np.empty(0)
    other = np.full(20, 52.0)
    scales = mpp_from_nuclei([many, few, none, other, few], ["a", "a", "a", "b", "c"])
    # a kind without an image of its own takes the median of all: (20.8 + 52) / 2 = 36.4
    assert scales == [0.25, 0.25, 0.25, 0.1, round(5.2 / 36.4, 4)]


def test_nothing_known() -> None:
    assert mpp_from_nuclei([np.empty(0)], ["a"]) == [None]
    assert mpp_from_nuclei([np.full(2, 52.0)], ["a"]) == [0.1]
