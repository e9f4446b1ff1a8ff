import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from builders.scenes import draw_crowd, draw_ellipses, smooth_field
from hemalum.errors import HemalumError
from hemalum.nuclei.separation import flood
from hemalum.nuclei.settings import SeparationSettings
from hemalum.targets.representations import REPRESENTATIONS

Scene = tuple[NDArray[np.float32], NDArray[np.float32]]  # foreground and peaks
PLAIN = SeparationSettings()
WAYS = ["interior_boundary", "distance", "center_gradient", "combined"]


def blurred(name: str, labels: NDArray[np.int32], sigma: float = 0.8) -> NDArray[np.float32]:
    maps = REPRESENTATIONS[name].encode(labels)
    return np.stack([ndimage.gaussian_filter(channel, sigma) for channel in maps])


@pytest.mark.parametrize("name", WAYS)
def test_touching_discs_are_separated(name: str) -> None:
    truth = draw_ellipses((30, 50), [(15, 17, 9, 9, 0), (15, 33, 9, 9, 0)])
    labels = REPRESENTATIONS[name].separate(blurred(name, truth), PLAIN)
    assert labels.max() == 2
    for n in (1, 2):
        nucleus, separated = truth == n, labels == n
        assert (nucleus & separated).sum() / (nucleus | separated).sum() > 0.85


def test_two_tops_with_a_shallow_saddle_are_one() -> None:
    x = np.arange(40)
    deep = np.maximum(1 - np.abs(x - 10) / 10, 1 - np.abs(x - 30) / 10)
    peaks = np.broadcast_to(0.4 + 0.6 * deep, (5, 40)).astype(np.float32)
    foreground = np.ones((5, 40), np.float32)
    assert flood(foreground, peaks, SeparationSettings(marker=0.9, min_depth=0.5)).max() == 2
    assert flood(foreground, peaks, SeparationSettings(marker=0.9, min_depth=0.55)).max() == 1
    # cut off below the saddle there is one plateau, so one marker
    assert flood(foreground, peaks, SeparationSettings(marker=0.35, min_depth=0.05)).max() == 1


def test_relative_depth_is_a_share_of_the_lower_top() -> None:
    """Tops of 1 and 0.5, saddle of 0.3: the lower one stands 0.2 above it, 40 % of its height."""
    peaks = np.broadcast_to(np.interp(np.arange(41), [0, 10, 20, 30, 40], [0, 1, 0.3, 0.5, 0]), (5, 41))
    peaks = peaks.astype(np.float32)
    foreground = np.ones((5, 41), np.float32)

    def count(depth: float, share: float) -> int:
        rule = SeparationSettings(marker=0.99, min_depth=depth, min_relative_depth=share)
        return flood(foreground, peaks, rule).max()

    assert (count(0.1, 0.39), count(0.1, 0.41)) == (2, 1)
    assert (count(0.19, 0.1), count(0.21, 0.1)) == (2, 1)  # both have to hold


def test_faint_nucleus_below_the_marker_threshold_stays_its_own() -> None:
    foreground = np.ones((9, 41), np.float32)
    x = np.arange(41)
    top = np.maximum(0.9 * (1 - np.abs(x - 10) / 10), 0.35 * (1 - np.abs(x - 30) / 10))
    peaks = np.broadcast_to(top, foreground.shape).astype(np.float32)
    labels = flood(foreground, np.maximum(peaks, 0), PLAIN)
    assert labels.max() == 2
    assert labels[4, 30] != labels[4, 10]


def test_component_without_any_peak_is_a_nucleus() -> None:
    foreground = np.zeros((20, 20), np.float32)
    foreground[5:10, 5:10] = 0.8
    assert (flood(foreground, np.zeros_like(foreground), PLAIN) == (foreground > 0.5)).all()


def test_hole_is_filled_and_open_bay_is_not() -> None:
    truth = draw_ellipses((30, 30), [(15, 15, 11, 11, 0)])
    foreground = (truth > 0).astype(np.float32)
    foreground[13:17, 13:17] = 0
    labels = flood(foreground, foreground, PLAIN)
    assert (labels == truth).all()
    foreground[:17, 14:16] = 0
    assert flood(foreground, foreground, PLAIN)[10, 14] == 0


def test_hole_larger_than_allowed_stays() -> None:
    foreground = np.ones((20, 20), np.float32)
    foreground[8:12, 8:13] = 0
    assert flood(foreground, foreground, SeparationSettings(max_hole_area=20))[9, 9] == 1
    assert flood(foreground, foreground, SeparationSettings(max_hole_area=19))[9, 9] == 0
    assert flood(foreground, foreground, SeparationSettings(max_hole_area=0))[9, 9] == 0


def test_hole_with_another_nucleus_stays_a_hole() -> None:
    foreground = np.ones((30, 30), np.float32)
    foreground[6:24, 6:24] = 0
    foreground[12:18, 12:18] = 1
    labels = flood(foreground, foreground, PLAIN)
    assert labels.max() == 2
    assert labels[8, 8] == 0


def test_hole_on_the_border_stays() -> None:
    foreground = np.ones((20, 20), np.float32)
    foreground[0:3, 8:12] = 0
    assert flood(foreground, foreground, PLAIN)[0, 9] == 0


def test_specks_and_faint_nuclei_are_dropped() -> None:
    foreground = np.zeros((20, 30), np.float32)
    foreground[2:5, 2:5] = 0.9  # 9 px
    foreground[2:6, 10:14] = 0.9  # 16 px
    foreground[10:16, 10:16] = 0.55
    labels = flood(foreground, foreground, SeparationSettings(min_area=10, min_probability=0.6))
    assert labels.max() == 1
    assert (labels > 0).sum() == 16
    assert labels[3, 11] == 1


def test_nuclei_cut_by_the_border_are_kept() -> None:
    truth = draw_ellipses((30, 40), [(0, 10, 8, 8, 0), (29, 39, 8, 8, 0), (15, 0, 6, 6, 0)])
    labels = REPRESENTATIONS["distance"].separate(REPRESENTATIONS["distance"].encode(truth), PLAIN)
    assert ((labels > 0) == (truth > 0)).all()
    assert labels.max() == 3


def test_ids_count_in_raster_order_of_the_first_pixel() -> None:
    labels = flood(smooth_field(0, (90, 80), 3), smooth_field(1, (90, 80), 2), PLAIN)
    ids, first = np.unique(labels, return_index=True)
    assert len(ids) > 10
    assert ids.tolist() == list(range(len(ids)))
    assert (np.diff(first[1:]) > 0).all()


def test_agrees_with_a_marker_watershed_where_markers_are_plain() -> None:
    """On a smooth relief without ties only few pixels on the watershed line may differ."""
    truth = draw_crowd(5)
    foreground, distance = blurred("distance", truth, 1.0)
    labels = flood(foreground, distance, SeparationSettings(marker=0.5, min_depth=0.45, min_area=1))
    inside = foreground >= 0.5
    usual = watershed(-np.minimum(distance, 0.5), ndimage.label((distance >= 0.5) & inside)[0], mask=inside)
    marked = usual > 0
    pairs = np.unique(np.stack([labels[marked], usual[marked]]), axis=1, return_counts=True)[1]
    assert np.sort(pairs)[::-1][: usual.max()].sum() / marked.sum() > 0.98


def test_not_a_number_is_background() -> None:
    foreground = np.ones((8, 8), np.float32)
    foreground[:, 4] = np.nan
    labels = flood(foreground, np.nan_to_num(foreground), PLAIN)
    assert (labels[:, 4] == 0).all()
    assert labels.max() == 2


def test_maps_may_be_views_in_any_layout() -> None:
    foreground, peaks = smooth_field(2, (40, 50), 3), smooth_field(3, (40, 50), 2)
    full = np.zeros((2, 80, 100), np.float32)
    full[0, ::2, ::2], full[1, ::2, ::2] = foreground, peaks
    expected = flood(foreground, peaks, PLAIN)
    assert (flood(full[0, ::2, ::2], full[1, ::2, ::2], PLAIN) == expected).all()
    assert (flood(foreground.T.copy().T, peaks.T.copy().T, PLAIN) == expected).all()


@pytest.mark.fault
def test_maps_must_have_one_shape() -> None:
    with pytest.raises(HemalumError, match=r"\(3, 4\) and \(4, 3\)"):
        flood(np.zeros((3, 4), np.float32), np.zeros((4, 3), np.float32), PLAIN)


scenes = st.builds(
    lambda seed, shape, sigma, steps: (
        smooth_field(seed, shape, sigma),
        np.round(smooth_field(seed + 1, shape, sigma) * steps) / np.float32(steps),
    ),
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 48), st.integers(1, 48)),
    sigma=st.floats(0.6, 4),
    steps=st.sampled_from([3, 8, 250]),  # few steps make plateaus and ties
)
rules = st.builds(
    SeparationSettings,
    marker=st.floats(0.2, 0.9),
    min_depth=st.floats(0.01, 0.4),
    min_marker_area=st.integers(1, 6),
    min_area=st.integers(1, 30),
    min_probability=st.floats(0, 0.7),
    max_hole_area=st.integers(0, 50),
    min_relative_depth=st.sampled_from([0.0, 0.2]),
    merge_depth=st.sampled_from([0.0, 0.2, 0.6]),
)


@given(scene=scenes, rule=rules)
@settings(max_examples=150)
def test_each_nucleus_is_one_piece_of_the_promised_size(scene: Scene, rule: SeparationSettings) -> None:
    foreground, peaks = scene
    labels = flood(foreground, peaks, rule)
    for n in range(1, labels.max() + 1):
        nucleus = labels == n
        assert ndimage.label(nucleus)[1] == 1
        pixels = nucleus & (foreground >= rule.foreground)
        assert pixels.sum() >= rule.min_area
        assert foreground[pixels].mean() >= rule.min_probability - 1e-3


@given(scene=scenes, rule=rules, data=st.data())
@settings(max_examples=200)
def test_taking_components_out_leaves_the_others_as_they_were(
    scene: Scene, rule: SeparationSettings, data: st.DataObject
) -> None:
    """But for holes: what lay in one may fill it when it is gone."""
    foreground, peaks = scene
    rule = rule.model_copy(update={"max_hole_area": 0})
    labels = flood(foreground, peaks, rule)
    components, count = ndimage.label(foreground >= rule.foreground)
    out = np.isin(components, list(data.draw(st.sets(st.integers(1, max(1, count))))))
    again = flood(np.where(out, np.float32(0), foreground), peaks, rule)
    left = np.where(out, 0, labels)
    numbers = np.cumsum(np.isin(np.arange(labels.max() + 1), np.unique(left[left > 0])))
    assert (again == np.where(left > 0, numbers[left], 0)).all()


@given(scene=scenes, rule=rules, cut=st.integers(0, 48))
@settings(max_examples=150)
def test_component_that_does_not_reach_the_cut_is_final(scene: Scene, rule: SeparationSettings, cut: int) -> None:
    """What a band sees whole, it separates as the whole image does.

    But for holes: one that touches a nucleus of another component by a corner stays open, and may be filled where
    that nucleus is cut and too small.
    """
    foreground, peaks = scene
    rule = rule.model_copy(update={"max_hole_area": 0})
    full = flood(foreground, peaks, rule)
    band = flood(foreground[:cut], peaks[:cut], rule)
    components, _ = ndimage.label(foreground >= rule.foreground)
    reaching = np.unique(components[max(cut - 1, 0)]) if cut < len(foreground) else []
    final = np.isin(components[:cut], reaching, invert=True) & (components[:cut] > 0)
    assert ((band[final] > 0) == (full[:cut][final] > 0)).all()
    pairs = np.unique(np.stack([band[final], full[:cut][final]]), axis=1).T
    assert len(np.unique(pairs[:, 0])) == len(pairs) == len(np.unique(pairs[:, 1]))
