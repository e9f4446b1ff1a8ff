import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial.distance import cdist

from hemalum.errors import HemalumError
from hemalum.metrics import (
    average_surface_distance,
    boundary_f1,
    find_boundary,
    hd95,
    measure_boundary,
    pool_boundaries,
)
from hemalum.metrics.pairs import Mask

blocks = arrays(np.bool_, (5, 6)).map(lambda mask: np.kron(mask, np.ones((3, 3), bool)))


def naive(truth: Mask, prediction: Mask) -> tuple[float, float, float]:
    """Outlines by erosion and all pairwise distances: another way to the same numbers."""
    true_outline, predicted_outline = (np.argwhere(mask & ~binary_erosion(mask)) for mask in (truth, prediction))
    table = cdist(true_outline, predicted_outline)
    forward, backward = table.min(axis=1), table.min(axis=0)
    share_backward, share_forward = np.mean(backward <= 2), np.mean(forward <= 2)
    total = share_backward + share_forward
    return (
        max(np.percentile(forward, 95), np.percentile(backward, 95)),
        (forward.sum() + backward.sum()) / (forward.size + backward.size),
        2 * share_backward * share_forward / total if total else 0.0,
    )


@given(blocks, blocks)
def test_against_all_pairwise_distances(truth: Mask, prediction: Mask) -> None:
    if not (truth.any() and prediction.any()):
        return
    distances = measure_boundary(truth, prediction)
    scores = hd95(distances), average_surface_distance(distances), boundary_f1(distances, 2)
    assert scores == pytest.approx(naive(truth, prediction), abs=1e-9)
    swapped = measure_boundary(prediction, truth)
    assert hd95(swapped) == pytest.approx(hd95(distances))
    assert average_surface_distance(swapped) == pytest.approx(average_surface_distance(distances))


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([0.002, 0.02, 0.3, 0.9]),
    st.sampled_from([0.002, 0.02, 0.3, 0.9]),
    st.integers(0, 2**32 - 1),
)
def test_distances_are_those_of_a_distance_transform_in_raster_order(
    shape: tuple[int, int], truth_share: float, prediction_share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = rng.random(shape) < truth_share, rng.random(shape) < prediction_share
    distances = measure_boundary(truth, prediction)
    true_outline, predicted_outline = find_boundary(truth), find_boundary(prediction)
    if truth.any() and prediction.any():
        assert (distances.from_truth == distance_transform_edt(~predicted_outline)[true_outline]).all()
        assert (distances.from_prediction == distance_transform_edt(~true_outline)[predicted_outline]).all()


@pytest.mark.parametrize("position", [(0, 0), (0, 299), (199, 0), (199, 299), (100, 150)])
def test_distances_to_one_far_pixel(position: tuple[int, int]) -> None:
    truth, prediction = np.zeros((200, 300), bool), np.zeros((200, 300), bool)
    truth[::7, ::5] = True
    prediction[position] = True
    rows, columns = np.nonzero(truth)
    expected = np.hypot(rows - position[0], columns - position[1])
    assert measure_boundary(truth, prediction).from_truth == pytest.approx(expected, abs=1e-12)


def test_by_hand() -> None:
    truth, prediction = np.zeros((20, 20), int), np.zeros((20, 20), int)
    truth[5, 4:8] = 1  # four pixels in a row …
    prediction[8, 4:8] = 1  # … and the same three rows below
    distances = measure_boundary(truth, prediction, spacing=0.5)
    assert hd95(distances) == average_surface_distance(distances) == 1.5
    assert boundary_f1(distances, 1.5) == 1
    assert boundary_f1(distances, 1.49) == 0
    prediction[5, 4:7] = 1  # three of four true pixels met, by three of seven predicted ones
    distances = measure_boundary(truth, prediction)
    assert average_surface_distance(distances) == pytest.approx((1 + 4 * 3) / 11)
    assert boundary_f1(distances, 0) == pytest.approx(2 * (3 / 4) * (3 / 7) / (3 / 4 + 3 / 7))


def test_a_line_between_touching_nuclei_is_boundary_of_a_label_map_only() -> None:
    labels = np.ones((6, 6), np.int32)
    labels[:, 3:] = 2
    inside = np.zeros((6, 6), bool)
    inside[1:-1, 1:-1] = True
    assert not (find_boundary(labels > 0) & inside).any()
    assert np.argwhere(find_boundary(labels) & inside)[:, 1].tolist() == [2, 3] * 4


@given(blocks)
def test_identical_is_perfect(mask: Mask) -> None:
    distances = measure_boundary(mask, mask)
    if mask.any():
        assert (hd95(distances), average_surface_distance(distances), boundary_f1(distances, 0)) == (0, 0, 1)


def test_empty_cases() -> None:
    nothing, something = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    both = measure_boundary(nothing, nothing)
    assert all(math.isnan(v) for v in (hd95(both), average_surface_distance(both), boundary_f1(both, 1)))
    for pair in ((nothing, something), (something, nothing)):
        distances = measure_boundary(*pair, spacing=2)
        assert (hd95(distances), average_surface_distance(distances), boundary_f1(distances, 2)) == (10, 10, 0)


def test_ambiguous_boundary_is_not_measured() -> None:
    truth, prediction = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    truth[2:6, 2:6] = prediction[2:6, 2:6] = True
    prediction[12:18, 12:18] = True
    ambiguous = np.zeros((20, 20), bool)
    assert hd95(measure_boundary(truth, prediction)) > 5
    ambiguous[10:, 10:] = True
    distances = measure_boundary(truth, prediction, ambiguous=ambiguous)
    assert (hd95(distances), boundary_f1(distances, 0)) == (0, 1)
    ambiguous[:] = True
    assert math.isnan(hd95(measure_boundary(truth, prediction, ambiguous=ambiguous)))


@given(st.lists(st.tuples(blocks, blocks), max_size=3))
def test_pooling_weighs_by_boundary_pixels(images: list[tuple[Mask, Mask]]) -> None:
    measured = [measure_boundary(*image) for image in images]
    sizes = [image.from_truth.size + image.from_prediction.size for image in measured]
    pooled = average_surface_distance(pool_boundaries(measured))
    if sum(sizes):
        parts = [average_surface_distance(image) for image in measured]
        expected = sum(n * part for n, part in zip(sizes, parts, strict=True) if n) / sum(sizes)
        assert pooled == pytest.approx(expected)
    else:
        assert math.isnan(pooled)


@pytest.mark.fault
@pytest.mark.parametrize("spacing", [0, -1, math.nan])
def test_spacing_must_be_positive(spacing: float) -> None:
    with pytest.raises(HemalumError, match="spacing"):
        measure_boundary(np.zeros((2, 2), int), np.zeros((2, 2), int), spacing=spacing)
