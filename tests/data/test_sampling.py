"""Category-adaptive sampling against its equations, written out again here image by image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hemalum.data.sampling import (
    CategoryAdaptive,
    class_weights,
    image_weights,
    share_batch,
    strength,
    tissue_weights,
)

TISSUES = ["breast"] * 6 + ["colon"] * 3 + ["skin"]


def test_without_strength_all_tissues_weigh_the_same() -> None:
    np.testing.assert_allclose(tissue_weights(TISSUES, 0), 1)


def test_at_full_strength_a_tissue_weighs_its_inverse_frequency() -> None:
    weights = tissue_weights(TISSUES, 1)
    np.testing.assert_allclose(weights, [10 / 6] * 6 + [10 / 3] * 3 + [10.0])
    # eq. 1 and 2: r = α N_max / N_t with α = N / N_max; each tissue is drawn as often as another
    totals = [weights[:6].sum(), weights[6:9].sum(), weights[9:].sum()]
    np.testing.assert_allclose(totals, totals[0])


@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 4))).filter(lambda a: a.any()),
    st.floats(0, 1),
)
def test_class_weights_are_those_of_equation_four(present: np.ndarray, gamma: float) -> None:
    c = present.astype(int).tolist()
    n_c = sum(map(sum, c))
    expected = []
    for row in c:
        rare = 0.0
        for j, held in enumerate(row):
            if held:
                rare += held * n_c / (gamma * sum(other[j] for other in c) + (1 - gamma) * n_c)
        expected.append((1 - gamma) * max(row) + gamma * rare)
    smallest = min(w for w, row in zip(expected, c, strict=True) if any(row))
    expected = [w if any(row) else smallest for w, row in zip(expected, c, strict=True)]
    np.testing.assert_allclose(class_weights(present, gamma), expected)


def test_both_together_each_over_its_largest() -> None:
    present = np.array([[1, 0], [1, 0], [1, 1]], bool)
    tissue, classes = tissue_weights(["a", "a", "b"], 0.5), class_weights(present, 0.5)
    # by hand: w_T = 3 / (1 + 1.5), 3 / (0.5 + 1.5); w_C = .5 + .5 (4 / 3.5), and + .5 (4 / 2.5) for the last
    np.testing.assert_allclose(tissue, [1.2, 1.2, 1.5])
    np.testing.assert_allclose(classes, [0.5 + 2 / 3.5, 0.5 + 2 / 3.5, 0.5 + 2 / 3.5 + 2 / 2.5])
    expected = [1.2 / 1.5 + classes[0] / classes[2]] * 2 + [2.0]
    np.testing.assert_allclose(image_weights(["a", "a", "b"], present, 0.5), expected)


def test_images_without_nuclei_at_all_weigh_the_same() -> None:
    np.testing.assert_allclose(class_weights(np.zeros((3, 2), bool), 0.7), 1)


def test_the_strength_falls_in_stairs() -> None:
    settings = CategoryAdaptive(gamma=0.8, period=10)
    steps = [strength(settings, epoch, 40) for epoch in range(40)]
    assert steps == pytest.approx([0.8] * 10 + [0.6] * 10 + [0.4] * 10 + [0.2] * 10)
    assert strength(settings, 90, 40) == 0


@pytest.mark.parametrize(
    ("weights", "batch", "expected"),
    [
        ([1, 1], 8, [0, 1, 0, 1, 0, 1, 0, 1]),
        ([1, 1], 2, [0, 1]),
        ([3, 1], 4, [0, 0, 1, 0]),
        ([1], 3, [0, 0, 0]),
        ([1, 0, 1], 4, [0, 2, 0, 2]),
        ([1, 1, 1], 6, [0, 1, 2, 0, 1, 2]),
    ],
)
def test_the_sets_of_a_batch(weights: list[float], batch: int, expected: list[int]) -> None:
    assert share_batch(weights, batch).tolist() == expected


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=5), st.integers(1, 64))
def test_a_batch_has_the_shares_of_its_sets(weights: list[float], batch: int) -> None:
    counts = np.bincount(share_batch(weights, batch), minlength=len(weights))
    assert counts.sum() == batch
    assert np.abs(counts - batch * np.array(weights) / sum(weights)).max() <= 1 + 1e-9
