"""H-DAB and fluorescence in the colors of H&E: against optical density by hand, pixel by pixel."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from hemalum.data.stain.he_appearance import (
    DEEPEST,
    EOSIN_TRACE,
    FLUORESCENCE_EOSIN,
    GAMMA,
    FluorescenceMap,
    HdabMap,
    HdabStains,
    find_hdab,
)
from hemalum.data.stain.separation import STAINS, angle_between

HEMATOXYLIN, EOSIN, DAB = STAINS
BLUE, BROWN = np.array([0.62, 0.68, 0.39]), np.array([0.38, 0.58, 0.72])  # an image's own, 6° and 8° off
BLUE, BROWN = BLUE / np.linalg.norm(BLUE), BROWN / np.linalg.norm(BROWN)


def color(blue: float, brown: float, white: float = 240.0) -> NDArray:
    """The color of amounts, optical density (log10) as `density_table` counts it."""
    return np.rint((white + 1) * 10 ** -(blue * BLUE + brown * BROWN) - 1)


def section(seed: int = 0, brown: float = 0.5) -> NDArray:
    """Pixels (N, 3): glass, blue nuclei, and brown ground that is more or less counterstained."""
    rng = np.random.default_rng(seed)
    pixels = [np.full(3, 240.0)] * 3000
    pixels += [color(rng.uniform(0.1, 0.4), 0) for _ in range(3000)]
    pixels += [color(rng.uniform(0, 0.03), brown * rng.uniform(0.5, 1.5)) for _ in range(3000)]
    return np.clip(np.array(pixels), 0, 255).astype(np.uint8)


def test_directions_are_those_of_the_image() -> None:
    stains = find_hdab(section())
    assert stains.estimated == ("hematoxylin", "DAB")
    assert stains.white == 240
    assert angle_between(np.stack([stains.hematoxylin, BLUE])) < 2
    assert angle_between(np.stack([stains.dab, BROWN])) < 3
    assert stains.has_dab
    assert stains.strongest == pytest.approx(0.75, rel=0.05)


@pytest.mark.parametrize("brown", [0.0, 0.02])
def test_without_dab_its_direction_is_the_fixed_one(brown: float) -> None:
    stains = find_hdab(section(brown=brown))
    assert "DAB" not in stains.estimated
    assert not stains.has_dab
    np.testing.assert_array_equal(stains.dab, DAB)
    assert "fixed" in stains.description


@pytest.mark.parametrize("value", [0, 255])
def test_a_blank_image_has_the_fixed_directions(value: int) -> None:
    stains = find_hdab(np.full((500, 3), value, np.uint8))
    assert stains.estimated == ()
    np.testing.assert_array_equal(stains.hematoxylin, HEMATOXYLIN)


@pytest.mark.parametrize("nuclear", [0.0, 0.6])
def test_a_pixel_by_hand(nuclear: float) -> None:
    stains = HdabStains(BLUE, BROWN, 240.0, (), 1.0)
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 241, (200, 3)).astype(np.uint8)
    expected = []
    for pixel in pixels:
        density = [math.log10(241) - math.log10(int(value) + 1) for value in pixel]
        rest = np.cross(BLUE, BROWN)
        blue, brown, _ = np.linalg.solve(np.stack([BLUE, BROWN, rest / np.linalg.norm(rest)]).T, density)
        amount = max(blue, 0) + nuclear * max(brown, 0)
        expected.append(
            [256 * 10 ** -(amount * h + EOSIN_TRACE * e) - 1 for h, e in zip(HEMATOXYLIN, EOSIN, strict=True)]
        )
    shown = HdabMap(stains, nuclear).apply(pixels)
    assert shown.dtype == np.uint8
    assert np.abs(shown - np.array(expected)).max() < 0.51


def test_brown_is_gone_blue_stays_blue() -> None:
    stains = HdabStains(BLUE, BROWN, 240.0, (), 1.0)
    pixels = np.array([[240.0] * 3, color(0, 0.6), color(0.3, 0), color(0.3, 0.6)]).astype(np.uint8)
    glass, brown, blue, both = HdabMap(stains).apply(pixels).astype(int)
    assert np.abs(brown - glass).max() <= 3
    assert np.abs(both - blue).max() <= 4
    assert blue[2] > blue[0] > blue[1]
    nuclear = HdabMap(stains, 0.5).apply(pixels).astype(int)
    assert np.abs(nuclear[1] - blue).max() <= 3  # half of 0.6 is 0.3


def test_any_shape_and_any_cut() -> None:
    image = section().reshape(90, 100, 3)
    for change in (HdabMap(find_hdab(image.reshape(-1, 3)), 0.3), FluorescenceMap(4, 90)):
        full = change.apply(image)
        assert full.shape == image.shape
        np.testing.assert_array_equal(np.concatenate([change.apply(image[:31]), change.apply(image[31:])]), full)
        np.testing.assert_array_equal(change.apply(image[:, ::2]), full[:, ::2])


def test_fluorescence_by_hand() -> None:
    change = FluorescenceMap(10.0, 110.0)
    for value in (0, 10, 35, 60, 110, 255):
        share = min(max((value - 10) / 100, 0), 1) ** GAMMA
        density = DEEPEST * share * HEMATOXYLIN + FLUORESCENCE_EOSIN * EOSIN
        expected = 256 * 10**-density - 1
        pixels = np.array([[value, 0, 0], [0, value // 2, value]], np.uint8)  # the brightest channel counts
        assert np.abs(change.apply(pixels) - expected).max() < 0.51


def test_range_of_fluorescence_is_that_of_the_image() -> None:
    pixels = np.zeros((1000, 3), np.uint8)
    pixels[:, 2] = np.arange(1000) // 10
    change = FluorescenceMap.of(pixels)
    assert change.low == pytest.approx(np.percentile(pixels[:, 2], 1))
    assert change.high == pytest.approx(np.percentile(pixels[:, 2], 99.7))
    flat = FluorescenceMap.of(np.full((100, 3), 7, np.uint8)).apply(np.full((1, 3), 7, np.uint8))
    assert flat.min() > 180  # nothing shines: white with a trace of eosin
