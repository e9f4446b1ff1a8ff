import numpy as np
import pytest
from scipy import ndimage

from builders.scenes import draw_crowd, draw_ellipses
from hemalum.errors import HemalumError
from hemalum.metrics import match, measure_overlap
from hemalum.nuclei.morphology import vote
from hemalum.nuclei.settings import SeparationSettings
from hemalum.targets.representations import REPRESENTATIONS, find_representation, select

WAYS = ["interior_boundary", "distance", "center_gradient", "combined"]  # these tell touching nuclei apart
SETTINGS = SeparationSettings()


def pq(truth: np.ndarray, labels: np.ndarray) -> float:
    return match(measure_overlap(truth, labels)).pq


def test_table_names_its_rows() -> None:
    assert {name: way.name for name, way in REPRESENTATIONS.items()} == {
        name: name for name in ["foreground", "foreground_edge", *WAYS]
    }


def test_softmax_head_has_a_logit_for_background() -> None:
    assert REPRESENTATIONS["interior_boundary"].logits == 3
    assert REPRESENTATIONS["center_gradient"].logits == 3
    assert REPRESENTATIONS["combined"].logits == 7
    assert len(REPRESENTATIONS["combined"].channels) == 6


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("seed", range(4))
def test_oracle_gives_the_crowd_back(name: str, seed: int) -> None:
    truth = draw_crowd(seed)
    way = REPRESENTATIONS[name]
    maps = way.encode(truth)
    assert maps.shape == (len(way.channels), *truth.shape)
    assert maps.dtype == np.float32
    assert pq(truth, way.separate(maps, SETTINGS)) > 0.9


def test_foreground_alone_divides_what_has_two_lobes() -> None:
    labels = draw_ellipses((60, 90), [(30, 28, 14, 14, 0), (30, 54, 14, 14, 0)])
    way = REPRESENTATIONS["foreground"]
    maps = way.encode(labels)
    np.testing.assert_array_equal(maps[0], labels > 0)
    assert pq(labels, way.separate(maps, SETTINGS)) > 0.9


def test_foreground_alone_cannot_divide_what_has_one() -> None:
    labels = np.ones((20, 20), np.int32)
    labels[:, 10:] = 2
    way = REPRESENTATIONS["foreground"]
    assert way.separate(way.encode(np.pad(labels, 4)), SETTINGS).max() == 1


@pytest.mark.parametrize("name", ["foreground", "foreground_edge"])
def test_peaks_of_a_foreground_see_no_further_than_they_say(name: str) -> None:
    way = REPRESENTATIONS[name]
    rng = np.random.default_rng(0)
    field = ndimage.gaussian_filter(rng.random((120, 120)), 6)[None].astype(np.float32)
    maps = (field - field.min()) / np.ptp(field)
    maps = np.concatenate([maps, np.zeros((len(way.channels) - 1, 120, 120), np.float32)])
    changed = maps.copy()
    changed[:, :, 61 + way.reach :] = 1 - changed[:, :, 61 + way.reach :]
    before, after = way.reader(maps)[1], way.reader(changed)[1]
    np.testing.assert_array_equal(before[:, :61], after[:, :61])
    assert (before != after).any()


def test_peaks_of_foreground_and_edge_by_hand() -> None:
    maps = np.zeros((2, 40, 40), np.float32)
    maps[0, 5:35, 5:35] = 0.9
    maps[1, 5:35, 20] = 0.75
    peaks = REPRESENTATIONS["foreground_edge"].read(maps)[1]
    depth = ndimage.distance_transform_edt(maps[0] > 0.5)
    np.testing.assert_allclose(peaks, np.minimum(depth / 12, 1) * (1 - maps[1]), rtol=1e-6)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (33, 17), (0, 5)])
def test_empty_maps_give_no_nuclei(name: str, shape: tuple[int, int]) -> None:
    way = REPRESENTATIONS[name]
    maps = way.encode(np.zeros(shape, np.int32))
    labels = way.separate(maps, SETTINGS)
    assert labels.shape == shape
    assert labels.dtype == np.int32
    assert not labels.any()


@pytest.mark.parametrize("name", WAYS)
def test_one_nucleus_over_everything(name: str) -> None:
    way = REPRESENTATIONS[name]
    maps = way.encode(np.full((31, 20), 7, np.int32))
    assert np.isfinite(maps).all()
    assert (way.separate(maps, SETTINGS) == 1).all()


def test_single_pixel_map() -> None:
    settings = SeparationSettings(min_area=1)
    for way in REPRESENTATIONS.values():
        assert way.separate(way.encode(np.ones((1, 1), np.int32)), settings).tolist() == [[1]]


def test_distance_is_relative_to_each_nucleus() -> None:
    labels = draw_ellipses((40, 60), [(20, 15, 12, 12, 0), (20, 45, 5, 5, 0)])
    foreground, distance = REPRESENTATIONS["distance"].encode(labels)
    assert (foreground == (labels > 0)).all()
    for n in (1, 2):
        alone = ndimage.distance_transform_edt(labels == n)
        expected = np.where(labels == n, alone / alone.max(), 0)
        np.testing.assert_allclose(distance[labels == n], expected[labels == n], atol=1e-6)


def test_distance_counts_a_touching_neighbor_as_outside() -> None:
    labels = np.zeros((9, 10), np.int32)
    labels[1:8, 1:5], labels[1:8, 5:9] = 1, 2
    _, distance = REPRESENTATIONS["distance"].encode(labels)
    assert distance[4, 4] == distance[4, 1] == 0.5
    assert distance[4, 2] == distance[4, 3] == 1


def test_edge_of_the_crop_is_no_boundary() -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[:8, 3:17] = 1
    _, boundary = REPRESENTATIONS["interior_boundary"].encode(labels)
    _, distance = REPRESENTATIONS["distance"].encode(labels)
    assert not boundary[0, 5:15].any()
    assert boundary[7, 5:15].all()
    assert distance[0, 10] == 1


def test_rim_is_boundary_and_so_is_the_gap_between_two() -> None:
    labels = np.zeros((11, 20), np.int32)
    labels[2:9, 2:9], labels[2:9, 10:17] = 1, 2
    interior, boundary = REPRESENTATIONS["interior_boundary"].encode(labels)
    one = np.zeros_like(labels)
    one[3:8, 3:8] = one[3:8, 11:16] = 1
    assert (interior == one).all()
    assert boundary[2:9, 9].all()  # the gap
    assert boundary[2, 2:9].all()
    assert not boundary[1].any() or boundary[1].nonzero()[0].tolist() == [9]
    assert ((interior + boundary) <= 1).all()


def test_nucleus_that_is_all_rim_keeps_an_interior() -> None:
    labels = np.zeros((6, 8), np.int32)
    labels[2:4, 2:6] = 1
    interior, _ = REPRESENTATIONS["interior_boundary"].encode(labels)
    assert interior.any()


def test_center_maps_run_from_edge_to_edge() -> None:
    labels = np.zeros((9, 12), np.int32)
    labels[2:7, 3:10] = 4
    _, horizontal, vertical = REPRESENTATIONS["center_gradient"].encode(labels)
    np.testing.assert_allclose(horizontal[4, 3:10], np.arange(-3, 4) / 3, atol=1e-6)
    np.testing.assert_allclose(vertical[2:7, 5], np.arange(-2, 3) / 2, atol=1e-6)
    assert not horizontal[labels == 0].any()


def test_ids_may_be_large_and_sparse() -> None:
    labels = draw_crowd(1)
    sparse = np.where(labels > 0, labels * 40_000_000 + 17, 0).astype(np.int32)
    for way in REPRESENTATIONS.values():
        np.testing.assert_array_equal(way.encode(sparse), way.encode(labels))


def test_combined_is_the_three_side_by_side() -> None:
    labels = draw_crowd(2)
    combined = REPRESENTATIONS["combined"]
    maps = combined.encode(labels)
    for name in WAYS[:3]:
        way = REPRESENTATIONS[name]
        np.testing.assert_array_equal(select(maps, combined, way), way.encode(labels))


@pytest.mark.fault
def test_select_names_the_missing_channel() -> None:
    distance, center = REPRESENTATIONS["distance"], REPRESENTATIONS["center_gradient"]
    with pytest.raises(HemalumError, match="horizontal"):
        select(np.zeros((2, 3, 3), np.float32), distance, center)


@pytest.mark.parametrize("name", WAYS)
def test_foreground_is_the_union_of_the_nuclei(name: str) -> None:
    way = REPRESENTATIONS[name]
    labels = draw_crowd(3)
    foreground = way.foreground(way.encode(labels))
    assert (foreground[labels > 0] == 1).all()


@pytest.mark.fault
def test_wrong_shapes_are_named() -> None:
    way = REPRESENTATIONS["distance"]
    with pytest.raises(HemalumError, match="foreground, distance"):
        way.separate(np.zeros((3, 4, 4), np.float32), SETTINGS)
    with pytest.raises(HemalumError, match="label map must be"):
        way.encode(np.zeros((3, 4, 4), np.int32))


def test_semantic_maps_become_foreground_peaks_and_classes() -> None:
    way = find_representation("semantic", ("a", "b"))
    maps = np.zeros((2, 3, 4), np.float32)
    maps[:, 0] = [[0.6, 0.3, 0.3, 0.0], [0.2, 0.6, 0.3, 0.1]]
    foreground, peaks, pixel_classes = way.read(maps)
    np.testing.assert_allclose(foreground[0], [0.8, 0.9, 0.6, 0.1], rtol=1e-6)
    # of equals the first; where there is no nucleus, whatever is likelier
    assert pixel_classes[0].tolist() == [1, 2, 1, 2]
    assert (peaks > 0).tolist() == (foreground >= 0.5).tolist()
    assert way.classify(maps, 0.5)[0].tolist() == [1, 2, 1, 0]
    assert way.classify(maps, 0.7)[0].tolist() == [1, 2, 0, 0]
    assert way.class_names == ("a", "b")


def test_one_class_is_not_told_apart() -> None:
    way = find_representation("semantic", ("nucleus",))
    assert way.class_names == REPRESENTATIONS["distance"].class_names == ()
    assert len(way.read(np.zeros((1, 3, 3), np.float32))) == 2


@pytest.mark.parametrize("seed", range(3))
def test_classes_of_true_maps_are_the_true_ones(seed: int) -> None:
    truth = draw_crowd(seed)
    classes = np.arange(truth.max() + 1, dtype=np.int32) % 3 + 1
    classes[0] = 0
    way = find_representation("semantic", ("a", "b", "c"))
    maps = way.encode(truth, classes)
    np.testing.assert_array_equal(way.classify(maps, 0.5), classes[truth])
    foreground, _, pixel_classes = way.read(maps)
    ids = np.unique(truth[truth > 0]).astype(np.int32)
    np.testing.assert_array_equal(vote(truth, ids, pixel_classes, foreground, 0.5), classes[ids])


def test_typed_targets_by_hand() -> None:
    way = find_representation("typed", ("a", "b"))
    assert way.channels == ("foreground", "distance", "a", "b")
    assert way.logits == 5
    labels = np.array([[0, 1, 1, 0, 2, 2, 0, 3]], np.int32).repeat(3, axis=0)
    classes = np.array([0, 2, 0, 1], np.int32)  # nobody has said what nucleus 2 is
    maps = way.encode(labels, classes)
    np.testing.assert_array_equal(maps[:2], REPRESENTATIONS["distance"].encode(labels))
    nan = np.nan
    np.testing.assert_array_equal(maps[2, 0], [0, 0, 0, 0, nan, nan, 0, 1])
    np.testing.assert_array_equal(maps[3, 0], [0, 1, 1, 0, nan, nan, 0, 0])
    np.testing.assert_array_equal(way.unknown(labels, classes)[0], [0, 0, 0, 0, 1, 1, 0, 0])


def test_an_image_without_classes_says_nothing_about_them() -> None:
    way = find_representation("typed", ("a", "b"))
    labels = np.array([[0, 1, 0]], np.int32)
    for classes in (None, np.zeros(2, np.int32)):
        maps = way.encode(labels, classes)
        assert np.isnan(maps[2:]).all()  # background as well
        assert maps[0].tolist() == [[0, 1, 0]]
        assert way.unknown(labels, classes).all()
    assert not find_representation("semantic", ("a",)).unknown(labels, np.zeros(2, np.int32)).any()


@pytest.mark.parametrize("seed", range(3))
def test_typed_maps_are_read_like_distance_maps_with_a_class_for_each_pixel(seed: int) -> None:
    truth = draw_crowd(seed)
    classes = np.arange(truth.max() + 1, dtype=np.int32) % 3 + 1
    classes[0] = 0
    way = find_representation("typed", ("a", "b", "c"))
    maps = way.encode(truth, classes)
    np.testing.assert_array_equal(way.classify(maps, 0.5), classes[truth])
    foreground, peaks, pixel_classes = way.read(maps)
    for actual, wanted in zip((foreground, peaks), REPRESENTATIONS["distance"].read(maps[:2]), strict=True):
        np.testing.assert_array_equal(actual, wanted)
    np.testing.assert_array_equal(
        way.separate(maps, SETTINGS), REPRESENTATIONS["distance"].separate(maps[:2], SETTINGS)
    )
    ids = np.unique(truth[truth > 0]).astype(np.int32)
    np.testing.assert_array_equal(vote(truth, ids, pixel_classes, foreground, 0.5), classes[ids])


@pytest.mark.fault
def test_typed_needs_classes_that_are_no_maps_of_its_own() -> None:
    with pytest.raises(HemalumError, match="representation 'typed' needs classes, and there are none"):
        find_representation("typed")
    with pytest.raises(HemalumError, match="has a map 'distance': give the class 'distance' another name"):
        find_representation("typed", ("a", "distance"))


def test_center_maps_of_a_lopsided_nucleus_run_from_edge_to_edge() -> None:
    """A triangle, whose center is nearer to its base: each side has its own scale, written out in loops."""
    labels = np.zeros((12, 20), np.int32)
    for row in range(9):
        labels[1 + row, 2 : 3 + 2 * row] = 1
    maps = REPRESENTATIONS["center_gradient"].encode(labels)
    pixels = [(y, x) for y in range(12) for x in range(20) if labels[y, x]]
    for channel, axis in ((1, 1), (2, 0)):
        coordinates = [pixel[axis] for pixel in pixels]
        center = sum(coordinates) / len(coordinates)
        for pixel in pixels:
            offset = pixel[axis] - center
            side = center - min(coordinates) if offset < 0 else max(coordinates) - center
            assert maps[(channel, *pixel)] == pytest.approx(offset / side, abs=1e-6)
