"""What a model is unsure of, against loops over pixels and nuclei."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.models import Calibration, Card, load_model
from hemalum.review import (
    NucleusUncertainty,
    measure_nuclei,
    outlier_scores,
    pixel_uncertainty,
    robust_z,
    temperature_of,
)
from hemalum.review.uncertainty import FEWEST, field_disagreement

Labels = NDArray[np.int32]


def scene(seed: int, height: int = 40, width: int = 50) -> Labels:
    """Disks of different sizes, the later over the earlier."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int32)
    y, x = np.mgrid[:height, :width]
    for index in rng.permutation(np.arange(1, 9)):
        cy, cx, radius = rng.integers(0, height), rng.integers(0, width), rng.integers(2, 7)
        labels[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = index
    return labels


def entropy_by_hand(p: float, temperature: float) -> float:
    if p in (0.0, 1.0):
        return 0.0
    q = 1 / (1 + ((1 - p) / p) ** (1 / temperature))
    return -q * math.log(q) - (1 - q) * math.log(1 - q) if 0 < q < 1 else 0.0


def pixels_of(labels: Labels, index: int) -> set[tuple[int, int]]:
    return {(y, x) for y in range(labels.shape[0]) for x in range(labels.shape[1]) if labels[y, x] == index}


def by_loops(
    labels: Labels, ids: list[int], probability: NDArray[np.float32], threshold: float, looks: list[Labels], t: float
) -> Iterator[tuple[float, float, float]]:
    others = [[pixels_of(look, int(k)) for k in np.unique(look) if k] for look in looks]
    for index in ids:
        mine = pixels_of(labels, index)
        if not mine:
            yield (math.nan,) * 3
            continue
        entropy = sum(entropy_by_hand(float(probability[p]), t) for p in mine) / len(mine)
        mean = sum(float(probability[p]) for p in mine) / len(mine)
        best = [max((len(mine & other) / len(mine | other) for other in look), default=0.0) for look in others]
        yield entropy, abs(mean - threshold), 1 - sum(best) / len(best)


@pytest.mark.parametrize("temperature", [1.0, 1.8])
def test_nuclei_against_loops(temperature: float) -> None:
    labels = scene(0)
    probability = np.random.default_rng(1).random(labels.shape).astype(np.float32)
    probability[:2], probability[2:4] = 0, 1
    # a look with other ids, one that has moved, and one without nuclei
    looks = [np.where(labels, labels * 3 + 1, 0), np.roll(labels, 2, axis=1), np.zeros_like(labels)]
    ids = [3, 8, 1, 2, 400]  # in the order of a table; the last has no pixel
    measured = measure_nuclei(labels, ids, probability, 0.4, looks, temperature=temperature)
    expected = np.array(list(by_loops(labels, ids, probability, 0.4, looks, temperature)))
    for column, values in zip(expected.T, (measured.entropy, measured.distance, measured.disagreement), strict=True):
        np.testing.assert_allclose(values, column, atol=1e-5)
    assert 1 / 3 < measured.disagreement[0] < 1
    entropies = pixel_uncertainty(probability, temperature)
    assert entropies[20, 20] == pytest.approx(entropy_by_hand(float(probability[20, 20]), temperature), abs=1e-5)


def test_without_looks_or_nuclei_nothing_is_made_up() -> None:
    labels = scene(2)
    probability = np.full(labels.shape, 0.5, np.float32)
    alone = measure_nuclei(labels, [1, 2], probability, 0.5)
    assert np.isnan(alone.disagreement).all()
    assert alone.entropy == pytest.approx(math.log(2))  # nats
    assert alone.distance == pytest.approx(0)
    none: NucleusUncertainty = measure_nuclei(np.zeros((4, 4), np.int32), [], np.zeros((4, 4), np.float32), 0.5)
    assert none.entropy.size == none.distance.size == none.disagreement.size == 0
    assert math.isnan(field_disagreement(labels, []))


def test_disagreement_of_a_field_counts_what_other_looks_alone_have() -> None:
    empty, one, two = (np.zeros((20, 20), np.int32) for _ in range(3))
    one[2:6, 2:6] = 1
    two[2:6, 2:6], two[10:14, 10:14] = 5, 9
    assert field_disagreement(one, [one]) == 0
    # one of one, and one of two: PQ is 1 / (1 + 1/2)
    assert field_disagreement(one, [one, two]) == pytest.approx(1 - (1 + 1 / 1.5) / 2)
    assert measure_nuclei(one, [1], np.ones((20, 20), np.float32), 0.5, [two]).disagreement.tolist() == [0]
    assert field_disagreement(empty, [empty]) == 0
    assert field_disagreement(empty, [one]) == field_disagreement(one, [empty]) == 1


def test_robust_z_by_hand() -> None:
    z = robust_z(np.array([1.0, 2, 3, 4, 100, math.nan]))
    # median 3, deviations 2 1 0 1 97: MAD 1
    assert z[:5] == pytest.approx([0.6745 * (v - 3) for v in (1, 2, 3, 4, 100)])
    assert math.isnan(z[5])
    # more than half are equal: the mean deviation, 10 / 5, in the place of the MAD
    assert robust_z(np.array([7.0, 7, 7, 7, 17]))[4] == pytest.approx(10 / (1.2533 * 2))
    assert robust_z(np.array([5.0] * 4)).tolist() == [0] * 4
    assert np.isnan(robust_z(np.array([math.nan]))).all()
    assert robust_z(np.zeros(0)).size == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1, 1000), min_size=FEWEST, max_size=40), st.floats(0.01, 100))
def test_outliers_of_size_do_not_hang_on_the_unit(areas: list[float], unit: float) -> None:
    values = np.array(areas)
    sizes, shapes = outlier_scores(values, np.full(values.size, 0.9))
    assert sizes == pytest.approx(outlier_scores(values * unit, np.full(values.size, 0.9))[0], abs=1e-3, rel=1e-3)
    assert (shapes == 0).all()


def test_of_few_nuclei_none_is_an_outlier() -> None:
    areas = np.array([10.0] * (FEWEST - 2) + [1e6])
    assert (outlier_scores(areas, areas)[0] == 0).all()
    areas = np.array([9.0, 11.0] * (FEWEST // 2) + [1e6])
    assert outlier_scores(areas, areas)[0][-1] > 10


def test_the_temperature_is_that_of_the_card() -> None:
    card = load_model("fast").card
    assert temperature_of(card) == (1 if card.calibration is None else card.calibration.temperature)
    made = Calibration(
        temperature=1.7, data="d", split="val", split_hash="0", images=3, ece_before=0.1, ece_after=0.05,
        nll_before=0.3, nll_after=0.2,
    )  # fmt: skip
    changed: Card = card.model_copy(update={"calibration": made})
    assert temperature_of(changed) == 1.7


@pytest.mark.fault
def test_maps_of_another_size_are_refused() -> None:
    with pytest.raises(HemalumError, match=r"probability map is \(4, 5\), label map \(4, 4\)"):
        measure_nuclei(np.zeros((4, 4), np.int32), [], np.zeros((4, 5), np.float32), 0.5)
