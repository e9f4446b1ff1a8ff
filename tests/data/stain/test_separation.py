"""The directions of two stains against those that made the section, a solver of the textbook, and SciPy's."""

import numpy as np

from hemalum.data.stain.separation import STAINS, amounts, angle_between, macenko_stains, vahadane_stains

from .conftest import PAIR, section, tissue


def test_macenko_finds_the_stains_that_made_the_section() -> None:
    directions = macenko_stains(tissue(section()))
    for row, made in zip(directions, PAIR, strict=True):
        assert angle_between(np.stack([row, made])) < 2


def test_vahadane_is_at_a_minimum_of_its_objective() -> None:
    """No small turn of a direction makes ½‖V − HW‖² + λ‖H‖₁ smaller (amounts by an iterative solver)."""
    density = tissue(section((32, 32), seed=5))
    directions = vahadane_stains(density)

    def objective(rows: np.ndarray) -> float:
        codes = np.zeros((len(density), 2))
        for _ in range(200):  # coordinate descent, the textbook way
            for j in range(2):
                rest = density - codes @ rows + np.outer(codes[:, j], rows[j])
                codes[:, j] = np.maximum(rest @ rows[j] - 0.1, 0)
        return float(0.5 * ((density - codes @ rows) ** 2).sum() + 0.1 * codes.sum())

    best = objective(directions)
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = np.maximum(directions + rng.normal(0, 0.01, (2, 3)), 0)
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        assert objective(moved) > best - 1e-6


def test_nonnegative_amounts_are_those_of_nnls() -> None:
    from scipy.optimize import nnls

    density = np.random.default_rng(0).uniform(-0.1, 1, (200, 3))
    expected = np.array([nnls(STAINS[:2].T, pixel)[0] for pixel in density])
    np.testing.assert_allclose(amounts(density, STAINS[:2], nonnegative=True), expected, atol=1e-9)
    plain = np.linalg.lstsq(STAINS[:2].T, density.T, rcond=None)[0].T
    np.testing.assert_allclose(amounts(density, STAINS[:2], nonnegative=False), plain, atol=1e-9)
