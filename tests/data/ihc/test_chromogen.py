"""Tissue, color deconvolution and the mask of the chromogen, against amounts that are known."""

import numpy as np
import pytest
from numpy.typing import ArrayLike

from hemalum.data.ihc.chromogen import (
    AEC,
    DAB,
    EOSIN,
    FAST_RED,
    FLOOR,
    HEMATOXYLIN,
    VECTORS,
    Chromogen,
    chromogen_mask,
    deconvolve,
    misnamed,
    optical_density,
    tissue_mask,
)

from .conftest import MPP, make_tile, unit


def test_density_is_measured_against_the_sections_own_white() -> None:
    image = np.full((40, 40, 3), 240, np.uint8)
    image[10:20] = 24
    image[30:] = 3  # black in all channels: a blank border
    density = optical_density(image)
    assert np.all(density[:10] == 0)
    assert np.allclose(density[10:20], np.log10(241 / 25), atol=1e-6)
    assert np.all(density[30:] == 0)


def test_a_tile_that_is_all_tissue_is_not_cut_in_two() -> None:
    tile = make_tile(5)
    assert tissue_mask(optical_density(tile.image), MPP).all()


def test_tissue_ends_where_glass_begins() -> None:
    image = make_tile(5).image.copy()
    image[:, :100] = 247
    mask = tissue_mask(optical_density(image), MPP)
    assert not mask[:, :90].any()
    assert mask[:, 110:].all()


def test_a_gap_of_30_um_belongs_to_the_tissue_and_one_of_60_does_not() -> None:
    density = np.zeros((100, 300, 3), np.float32)
    for columns in (slice(20, 80), slice(110, 170), slice(230, 280)):
        density[:, columns] = 0.3
    mask = tissue_mask(density, 1.0)
    assert mask[:, 20:170].all()
    assert not mask[:, 180:220].any()


@pytest.mark.parametrize("second", [DAB, AEC, FAST_RED, EOSIN])
def test_amounts_come_back(second: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0, 1, (6, 7, 2)).astype(np.float32)
    density = amounts @ np.stack([unit(HEMATOXYLIN), unit(second)]).astype(np.float32)
    first, other = deconvolve(density, np.array(second))
    assert np.allclose(first, amounts[..., 0], atol=1e-5)
    assert np.allclose(other, amounts[..., 1], atol=1e-5)


def test_deconvolution_is_that_of_scikit_image() -> None:
    """`separate_stains` with the matrix of hematoxylin and DAB, up to its choice of logarithm and white."""
    from skimage.color import hdx_from_rgb, separate_stains

    rng = np.random.default_rng(1)
    amounts = rng.uniform(0.1, 0.8, (9, 9, 2))
    density = (amounts @ np.stack([unit(HEMATOXYLIN), unit(DAB)])).astype(np.float32)
    expected = separate_stains(10.0**-density, hdx_from_rgb)
    actual = deconvolve(density, np.array(DAB))
    for number in (0, 1):
        ratio = expected[..., number] / actual[number]
        assert np.ptp(ratio) < 0.05 * ratio.mean()


@pytest.mark.parametrize("name", ["dab", "red"])
def test_no_chromogen_gives_an_empty_mask_not_noise(name: Chromogen) -> None:
    tile = make_tile(2)
    density = optical_density(tile.image)
    rng = np.random.default_rng(0)
    blue = deconvolve(density, np.array(EOSIN))[0][..., None] * unit(HEMATOXYLIN) + rng.normal(0, 0.02, density.shape)
    _, amount = deconvolve(blue.astype(np.float32), VECTORS[name])
    staining = chromogen_mask(amount, np.ones(tile.labels.shape, bool), MPP, min_area_um2=8)
    assert staining.threshold >= FLOOR
    assert not staining.mask.any()


def test_a_gray_background_is_not_taken_for_stain() -> None:
    """Otsu alone would part the background in two: it outnumbers the two stained nuclei a hundred to one."""
    y, x = np.mgrid[:200, :200]
    amount = (0.05 + 0.13 * (x > 100) + np.random.default_rng(0).normal(0, 0.01, (200, 200))).astype(np.float32)
    stained = ((y - 60) ** 2 + (x - 50) ** 2 < 64) | ((y - 140) ** 2 + (x - 150) ** 2 < 64)
    amount[stained] += 0.5
    mask = chromogen_mask(amount, np.ones(amount.shape, bool), MPP, min_area_um2=8).mask
    assert 2 * (mask & stained).sum() / (mask.sum() + stained.sum()) > 0.9
    assert not chromogen_mask(amount - 0.5 * stained, np.ones(amount.shape, bool), MPP, min_area_um2=8).mask.any()


def test_the_mask_is_cleaned() -> None:
    amount = np.zeros((120, 120), np.float32)
    amount[20:40, 20:40] = 0.8
    amount[28:31, 28:31] = 0  # a hole of 2 µm²
    amount[80:82, 80:82] = 0.9  # a grain of 1 µm²
    tissue = np.ones(amount.shape, bool)
    mask = chromogen_mask(amount, tissue, MPP, min_area_um2=8).mask
    assert mask[22:38, 22:38].all()
    assert not mask[70:, 70:].any()
    assert not chromogen_mask(amount, tissue, MPP, min_area_um2=150).mask.any()  # the square is 100 µm²
    tissue[:60] = False
    assert not chromogen_mask(amount, tissue, MPP, min_area_um2=8).mask[:60].any()


@pytest.mark.parametrize(("vector", "name"), [(DAB, "dab"), (AEC, "red"), (FAST_RED, "red")])
def test_the_right_name_is_never_doubted(vector: tuple[float, float, float], name: Chromogen) -> None:
    assert misnamed(_stained(vector), np.ones((80, 80), bool), name) is None


def test_a_wrong_name_is_noticed() -> None:
    tissue = np.ones((80, 80), bool)
    assert misnamed(_stained(FAST_RED), tissue, "dab") == "red"
    assert misnamed(_stained(DAB), tissue, "red") is None  # 11° from AEC's plane: too near to refuse a section
    assert misnamed(np.zeros((80, 80, 3), np.float32), tissue, "dab") is None  # nothing stained, nothing to say


def _stained(vector: ArrayLike) -> np.ndarray:
    rng = np.random.default_rng(4)
    amounts = rng.uniform(0, 0.5, (80, 80, 1)) * unit(HEMATOXYLIN)
    amounts[:40] += rng.uniform(0.4, 1, (40, 80, 1)) * unit(vector)
    return (amounts + rng.normal(0, 0.01, amounts.shape)).astype(np.float32)
