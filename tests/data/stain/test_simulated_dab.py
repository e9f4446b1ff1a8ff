"""Simulated H-DAB lies where it is to lie, in DAB's hue, and takes eosin away."""

import numpy as np
import pytest
from scipy import ndimage

from hemalum.data.stain import simulated_dab
from hemalum.data.stain.separation import STAINS
from hemalum.data.stain.simulated_dab import draw_dab


class Chosen:
    """A generator whose kind of staining is pinned."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.rng = kind, np.random.default_rng(seed)

    def choice(self, options: list[str]) -> str:
        assert self.kind in options
        return self.kind

    def __getattr__(self, name: str) -> object:
        return getattr(self.rng, name)


def discs(side: int = 96) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for index, (cy, cx) in enumerate([(24, 24), (24, 70), (70, 24), (70, 70)], start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 100] = index
    return labels


def amounts(kind: str, count: int = 30) -> np.ndarray:
    return np.stack([draw_dab(discs(), Chosen(kind, seed)).amount for seed in range(count)])  # type: ignore[arg-type]


def test_nuclear_brown_is_in_some_nuclei_and_not_beside_them() -> None:
    drawn, labels = amounts("nuclear"), discs()
    away = ndimage.distance_transform_edt(labels == 0)
    assert drawn[:, away > 8].max() < 1e-6
    each = np.stack([drawn[:, labels == n].mean(axis=1) for n in range(1, 5)])
    assert (each > 0.05).any()
    assert (each < 0.01).any()
    assert ((each > 0.05).any(axis=0) & (each < 0.01).any(axis=0)).any()  # both in one crop
    assert drawn.max() <= 2.2
    assert drawn.max() > 1


def test_membranous_brown_is_a_rim() -> None:
    drawn, labels = amounts("membranous").mean(axis=0), discs()
    away = ndimage.distance_transform_edt(labels == 0)
    inside = ndimage.distance_transform_edt(labels > 0)
    rim = drawn[(away >= 3) & (away < 5)].mean()
    assert rim > 0.2
    assert drawn[inside > 5].max() < 0.02 * rim
    assert drawn[away > 13].max() < 0.02 * rim


def test_cytoplasmic_brown_leaves_nuclei() -> None:
    drawn, labels = amounts("cytoplasmic").mean(axis=0), discs()
    inside = ndimage.distance_transform_edt(labels > 0)
    ground = drawn[ndimage.distance_transform_edt(labels == 0) > 8]
    assert ground.min() > 0.05
    assert drawn[inside > 8].max() < 0.02 * ground.mean()


@pytest.mark.parametrize("seed", range(5))
def test_hematoxylin_pales_and_eosin_goes(seed: int) -> None:
    dab = draw_dab(discs(), np.random.default_rng(seed))
    hematoxylin, eosin, brown = STAINS @ dab.matrix
    for changed, stain, low, high in ((hematoxylin, STAINS[0], 0.6, 1.1), (eosin, STAINS[1], 0.0, 0.3)):
        share = changed @ stain
        np.testing.assert_allclose(changed, share * stain, atol=1e-9)  # weaker, not of another hue
        assert low <= share <= high
    np.testing.assert_allclose(brown, STAINS[2], atol=1e-9)
    assert np.linalg.norm(dab.direction) == pytest.approx(1)
    assert dab.direction @ STAINS[2] > 0.98


def test_areas_are_interpolated_as_scipy_does() -> None:
    coarse = np.random.default_rng(4).uniform(-0.5, 1.5, (5, 5))
    expected = ndimage.zoom(coarse, (40 / 5, 65 / 5), order=1, grid_mode=True, mode="nearest").clip(0, 1)
    np.testing.assert_allclose(simulated_dab._areas((40, 65), np.random.default_rng(4)), expected, atol=1e-6)


def test_a_crop_without_nuclei() -> None:
    nothing = np.zeros((32, 32), np.int32)
    for kind in ("nuclear", "membranous"):
        assert draw_dab(nothing, Chosen(kind, 0)).amount.max() == 0  # type: ignore[arg-type]
