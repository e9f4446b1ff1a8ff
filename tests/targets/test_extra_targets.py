"""Border weights against the paper's formula, pixel by pixel."""

import numpy as np
import pytest

from hemalum.targets.extra_targets import SIGMA, W0, border_weight


def _by_brute_force(labels: np.ndarray) -> np.ndarray:
    weight = np.ones(labels.shape)
    ids = [number for number in np.unique(labels) if number]
    pixels_of_nuclei = [np.argwhere(labels == number) for number in ids]
    for y, x in np.argwhere(labels == 0):
        distances = sorted(np.sqrt(((pixels - (y, x)) ** 2).sum(1)).min() for pixels in pixels_of_nuclei)
        if len(distances) > 1:
            weight[y, x] += W0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * SIGMA**2))
    return weight


def test_one_pixel_between_two_nuclei_by_hand() -> None:
    labels = np.array([[1, 0, 2]], np.int32)
    expected = 1 + 10 * np.exp(-(2**2) / 50)
    np.testing.assert_allclose(border_weight(labels), [[1, expected, 1]], rtol=1e-6)


def test_it_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:70, :90]
    labels = np.zeros((70, 90), np.int32)
    for number in (2, 3, 5, 9):  # ids with gaps, a nucleus that is cut by the border
        cy, cx = rng.integers(0, 70), rng.integers(0, 90)
        labels[(y - cy) ** 2 + (x - cx) ** 2 < rng.integers(9, 80)] = number
    weight = border_weight(labels)
    assert weight.dtype == np.float32
    # beyond the reach the formula adds less than this
    np.testing.assert_allclose(weight, _by_brute_force(labels), rtol=0, atol=W0 * np.exp(-12.5))
    assert weight.max() > 2


@pytest.mark.parametrize("nuclei", [0, 1])
def test_without_two_nuclei_all_pixels_weigh_one(nuclei: int) -> None:
    labels = np.zeros((8, 8), np.int32)
    labels[2:4, 2:4] = nuclei
    np.testing.assert_array_equal(border_weight(labels), 1)
