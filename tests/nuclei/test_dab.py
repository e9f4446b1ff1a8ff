"""DAB in nuclei and around them: against scikit-image's deconvolution and loops over all pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.color import hdx_from_rgb, separate_stains

from builders.scenes import draw_crowd
from hemalum.errors import HemalumError
from hemalum.nuclei.dab import RING_UM, dab, measure_dab
from hemalum.nuclei.nuclei import Nuclei


def stained(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(30, 250, (*shape, 3)).astype(np.uint8)


def reference(labels: NDArray[np.uint32], image: NDArray[np.uint8], ring: float) -> NDArray[np.float64]:
    """Mean and spread inside, mean in the ring, by loops over nuclei and pixels."""
    amount = dab(image).astype(np.float64)
    rows = []
    for n in range(1, labels.max() + 1):
        inside = labels == n
        pixels = np.argwhere(inside)
        around = []
        for y, x in np.argwhere(labels == 0):
            if len(pixels) and ((pixels - (y, x)) ** 2).sum(1).min() <= ring * ring:
                around.append(amount[y, x])
        rows.append(
            (
                amount[inside].mean() if len(pixels) else np.nan,
                amount[inside].std() if len(pixels) else np.nan,
                np.mean(around) if around else np.nan,
            )
        )
    return np.array(rows).T


def test_is_the_deconvolution_of_scikit_image() -> None:
    image = stained((20, 30), 3)
    hematoxylin, chromogen = np.array([0.65, 0.70, 0.29]), np.array([0.27, 0.57, 0.78])
    mixing = np.stack([hematoxylin, chromogen, np.cross(hematoxylin, chromogen)])
    # theirs is in units of the optical density 6, with amounts below 0 cut off
    expected = 6 * separate_stains(image, np.linalg.inv(mixing))[..., 1]
    np.testing.assert_allclose(np.maximum(dab(image), 0), expected, atol=1e-4)
    # QuPath and scikit-image write the same vectors with three digits
    np.testing.assert_allclose(np.maximum(dab(image), 0), 6 * separate_stains(image, hdx_from_rgb)[..., 1], atol=0.01)


def test_white_has_none_and_brown_has_much() -> None:
    image = np.array([[[255, 255, 255], [110, 60, 35], [70, 60, 140]]], np.uint8)
    white, brown, blue = dab(image)[0]
    assert white == 0
    assert brown > 0.5
    assert blue < 0.1


@pytest.mark.parametrize("ring", [0.0, 1.0, 2.5, 4.0])
@pytest.mark.parametrize("seed", range(2))
def test_agrees_with_loops(ring: float, seed: int) -> None:
    labels = draw_crowd(seed, (60, 70))
    image = stained(labels.shape, seed)
    nuclei = Nuclei.from_labels(labels, image)
    measured = measure_dab(nuclei.outlines, lambda a, b: image[a:b], labels.shape, ring=ring)
    drawn = nuclei.label_map()
    assert nuclei.count > 10
    for name, expected in zip(measured, reference(drawn, image, ring), strict=True):
        np.testing.assert_allclose(measured[name], expected, atol=2e-5, err_msg=name)


def test_a_ring_by_hand() -> None:
    """Two nuclei of 3 × 3 px, two columns apart, near the edge: the ring is cut by both."""
    labels = np.zeros((12, 14), np.int32)
    labels[0:3, 2:5], labels[0:3, 7:10] = 1, 2
    image = np.full((12, 14, 3), 255, np.uint8)
    image[labels > 0] = (110, 60, 35)
    image[1, 5] = (70, 30, 20)
    nuclei = Nuclei.from_labels(labels, image)
    measured = measure_dab(nuclei.outlines, lambda a, b: image[a:b], labels.shape, ring=1.0)
    # neighbors by an edge: 3 left, 3 right, 3 below
    dark = float(dab(image[1:2, 5:6])[0, 0])
    assert measured["dab_ring_mean"] == pytest.approx([dark / 9, 0.0], abs=2e-5)
    wider = measure_dab(nuclei.outlines, lambda a, b: image[a:b], labels.shape, ring=2.0)
    # within 2 px: 2 columns on each side and 2 rows below, each of 3, and 1 at each of the two lower corners
    assert wider["dab_ring_mean"] == pytest.approx([dark / 20, dark / 20], abs=2e-5)


@given(
    seed=st.integers(0, 50),
    band=st.integers(1, 80),
    ring=st.sampled_from([0.0, 1.5, 3.0]),
    shift=st.sampled_from([0.0, 0.37]),
)
def test_bands_change_no_bit(seed: int, band: int, ring: float, shift: float) -> None:
    labels = draw_crowd(seed % 5, (70, 60))
    image = stained(labels.shape, seed)
    outlines = Nuclei.from_labels(labels, image).outlines
    moved = type(outlines)(outlines.coords + np.float32(shift), outlines.offsets)
    requested = []

    def read(start: int, stop: int) -> NDArray[np.uint8]:
        requested.append((start, stop))
        return image[start:stop]

    full = measure_dab(moved, lambda a, b: image[a:b], labels.shape, ring=ring, band=10_000)
    cut = measure_dab(moved, read, labels.shape, ring=ring, band=band)
    for name in full:
        np.testing.assert_array_equal(cut[name], full[name])
    assert all(0 <= a < b <= len(image) for a, b in requested)
    assert [a for a, _ in requested] == sorted(a for a, _ in requested)


def test_columns_of_the_table() -> None:
    labels = draw_crowd(1, (60, 70))
    image = stained(labels.shape)
    nuclei = Nuclei.from_labels(labels, image, mpp=0.5).with_dab(image)
    names = nuclei.table.column_names
    assert names[names.index("probability") + 1 :] == ["dab_mean", "dab_std", "dab_ring_mean"]
    expected = measure_dab(nuclei.outlines, lambda a, b: image[a:b], labels.shape, ring=RING_UM / 0.5)
    for name, values in expected.items():
        np.testing.assert_array_equal(nuclei.table[name].to_numpy(), values.astype(np.float32))
    assert nuclei.with_dab(lambda a, b: image[a:b]).table.equals(nuclei.table)  # measured again, not twice


def test_without_a_scale_there_is_no_ring() -> None:
    labels = draw_crowd(1, (60, 70))
    nuclei = Nuclei.from_labels(labels).with_dab(stained(labels.shape))
    assert nuclei.table["dab_ring_mean"].null_count == nuclei.count
    assert nuclei.table["dab_mean"].null_count == 0


@pytest.mark.fault
def test_no_nuclei_and_a_wrong_image() -> None:
    empty = Nuclei.from_labels(np.zeros((20, 30), np.int32), mpp=0.5)
    assert empty.with_dab(stained((20, 30))).table["dab_mean"].to_pylist() == []
    with pytest.raises(HemalumError, match=r"image is \(20, 31, 3\) uint8; the nuclei are of \(20, 30, 3\) uint8"):
        empty.with_dab(stained((20, 31)))
