from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import rgb2hed
from skimage.measure import regionprops

from builders.scenes import draw_crowd, draw_ellipses
from hemalum.errors import HemalumError
from hemalum.nuclei.morphology import Columns, describe, hematoxylin, moments
from hemalum.nuclei.polygons import Outlines, trace


def stained(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(60, 240, (*shape, 3)).astype(np.uint8)


def columns_of(
    labels: NDArray[np.int32],
    image: NDArray[np.uint8] | None = None,
    probability: NDArray[np.float32] | None = None,
    **more: Any,
) -> tuple[Outlines, Columns]:
    outlines = trace(labels)
    return outlines, describe(moments(labels, outlines, image, probability), **more)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_regionprops(seed: int) -> None:
    labels = draw_crowd(seed)
    image = stained(labels.shape, seed)
    stain = hematoxylin(image)
    outlines, columns = columns_of(labels, image)
    props = {p.label: p for p in regionprops(labels, stain)}
    assert len(props) == len(outlines.ids)
    for i, n in enumerate(outlines.ids):
        p = props[n]
        assert columns["area_px"][i] == p.area
        assert columns["y"][i] == pytest.approx(p.centroid[0] + 0.5)
        assert columns["x"][i] == pytest.approx(p.centroid[1] + 0.5)
        assert columns["perimeter_px"][i] == pytest.approx(p.perimeter_crofton)
        # scikit-image sums over points, we over squares: 1/12 px² more on each axis
        assert columns["major_axis_px"][i] ** 2 == pytest.approx(p.axis_major_length**2 + 16 / 12)
        assert columns["minor_axis_px"][i] ** 2 == pytest.approx(p.axis_minor_length**2 + 16 / 12)
        assert columns["eccentricity"][i] == pytest.approx(p.eccentricity, abs=0.06)
        # theirs is the hull of the same points, counted in pixels
        assert columns["solidity"][i] == pytest.approx(p.solidity, abs=0.05)
        assert columns["hematoxylin_mean"][i] == pytest.approx(p.intensity_mean, abs=1e-5)
        assert columns["hematoxylin_std"][i] == pytest.approx(p.intensity_std, abs=1e-5)
        if p.eccentricity > 0.5:
            # theirs runs from the rows' axis, counter-clockwise as seen
            turned = np.degrees(p.orientation) + 90 - columns["orientation"][i]
            assert min(turned % 180, -turned % 180) < 1e-3


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 120, 170])
def test_ellipse_of_known_axes(angle: float) -> None:
    # drawn with y downwards, so the angle as seen is the other way round
    labels = draw_ellipses((90, 90), [(45.3, 44.8, 30, 12, -np.radians(angle))])
    _, columns = columns_of(labels)
    assert columns["major_axis_px"][0] == pytest.approx(60, rel=0.01)
    assert columns["minor_axis_px"][0] == pytest.approx(24, rel=0.02)
    assert columns["area_px"][0] == pytest.approx(np.pi * 30 * 12, rel=0.01)
    assert columns["eccentricity"][0] == pytest.approx(np.sqrt(1 - 0.4**2), abs=0.01)
    off = columns["orientation"][0] - angle
    assert min(off % 180, -off % 180) < 1
    assert columns["solidity"][0] > 0.97
    assert 0 <= columns["orientation"][0] < 180


def test_circularity_and_solidity_tell_shapes_apart() -> None:
    disc = draw_ellipses((60, 60), [(30, 30, 20, 20, 0)])
    cross = np.zeros((60, 60), np.int32)
    cross[27:33, 5:55] = cross[5:55, 27:33] = 1
    _, round_ = columns_of(disc)
    _, star = columns_of(cross)
    assert round_["circularity"][0] > 0.95
    assert star["circularity"][0] < 0.4
    assert round_["solidity"][0] > 0.98
    assert star["solidity"][0] < 0.5


def test_single_pixel_has_finite_numbers() -> None:
    labels = np.zeros((3, 3), np.int32)
    labels[1, 2] = 1
    _, columns = columns_of(labels, stained((3, 3)), np.full((3, 3), 0.7, np.float32), mpp=0.5)
    assert all(np.isfinite(values).all() for values in columns.values())
    assert (columns["x"][0], columns["y"][0]) == (2.5, 1.5)
    assert columns["solidity"][0] == 1
    assert columns["eccentricity"][0] == 0
    assert columns["area_um2"][0] == 0.25


def test_micrometers_and_grid_scale() -> None:
    labels = draw_crowd(1)
    _, plain = columns_of(labels)
    _, columns = columns_of(labels, scale=(2.0, 2.0), mpp=0.25)
    for name, power in [("area", 2), ("perimeter", 1), ("major_axis", 1), ("minor_axis", 1)]:
        np.testing.assert_allclose(columns[f"{name}_px"], plain[f"{name}_px"] * 2**power)
        unit = "um2" if power == 2 else "um"
        np.testing.assert_allclose(columns[f"{name}_{unit}"], plain[f"{name}_px"] * 0.5**power)
        assert np.isnan(plain[f"{name}_{unit}"]).all()
    np.testing.assert_allclose(columns["x"], 2 * plain["x"])
    np.testing.assert_allclose(columns["solidity"], plain["solidity"])
    np.testing.assert_allclose(columns["circularity"], plain["circularity"])


def test_hematoxylin_is_the_deconvolution_of_scikit_image() -> None:
    image = stained((20, 30), 3)
    # theirs is in units of the optical density 6 and has negative amounts cut off
    expected = 6 * rgb2hed(image)[..., 0]
    np.testing.assert_allclose(np.maximum(hematoxylin(image), 0), expected, atol=1e-4)


def test_white_has_no_stain_and_black_is_finite() -> None:
    image = np.array([[[255, 255, 255], [0, 0, 0]]], np.uint8)
    amount = hematoxylin(image)
    assert amount[0, 0] == 0
    assert np.isfinite(amount[0, 1])


def test_image_of_a_coarser_grid_is_read_where_it_belongs() -> None:
    labels = draw_crowd(2, (120, 140))
    image = stained((60, 70))
    _, coarse = columns_of(labels, image)
    _, fine = columns_of(labels, np.repeat(np.repeat(image, 2, 0), 2, 1))
    np.testing.assert_array_equal(coarse["hematoxylin_mean"], fine["hematoxylin_mean"])


def test_mean_probability() -> None:
    labels = draw_crowd(4)
    probability = np.random.default_rng(0).random(labels.shape).astype(np.float32)
    outlines, columns = columns_of(labels, None, probability)
    expected = [probability[labels == n].mean(dtype=np.float64) for n in outlines.ids]
    np.testing.assert_allclose(columns["probability"], expected, rtol=1e-6)
    assert np.isnan(columns["hematoxylin_mean"]).all()


def test_a_band_gives_the_same_bits_as_the_whole() -> None:
    labels = draw_crowd(6)
    image, probability = stained(labels.shape), np.random.default_rng(1).random(labels.shape, np.float32)
    full_outlines = trace(labels)
    full = moments(labels, full_outlines, image, probability)
    top = 37
    band = np.where(np.isin(labels, np.unique(labels[:top])), 0, labels)[top:]
    outlines = trace(band, origin=(top, 0))
    part = moments(band, outlines, image[top:], probability[top:])
    rows = np.isin(full_outlines.ids, outlines.ids)
    assert rows.sum() > 10
    for name, values in part.items():
        np.testing.assert_array_equal(values, full[name][rows])


@pytest.mark.fault
def test_misfitting_arrays_are_named() -> None:
    labels = draw_crowd(0)
    outlines = trace(labels)
    with pytest.raises(HemalumError, match="probability map"):
        moments(labels, outlines, None, np.zeros((3, 3), np.float32))
    with pytest.raises(HemalumError, match="does not fit"):
        moments(labels, outlines, np.zeros((50, 70, 3), np.uint8))
