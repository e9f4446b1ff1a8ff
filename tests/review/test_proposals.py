"""The model's outline at a point: what it separates, what stands out below its threshold, and nothing."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from builders.models import DiskEngine, disks
from builders.reviews import disk_model
from hemalum.errors import HemalumError
from hemalum.nuclei.nuclei import Nuclei
from hemalum.review.edits import add
from hemalum.review.item import Item, ItemState, Start
from hemalum.review.nucleus import pixels_of
from hemalum.review.proposals import MapCache, ModelMaps, read_maps

DIAMETER = 20.0


def disk(y: float, x: float, radius: float, shape: tuple[int, int] = (100, 120)) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside: NDArray[np.bool_] = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return inside


def make_maps() -> tuple[ModelMaps, dict[str, NDArray[np.bool_]]]:
    """A nucleus that is separated, one that is faint, one that is faint and touches the first, and a large cloud."""
    shapes = {"sure": disk(25, 25, 10), "faint": disk(70, 30, 9), "near": disk(25, 42, 8), "cloud": disk(60, 90, 28)}
    probability = np.zeros((100, 120), np.float32)
    for name, value in {"cloud": 0.3, "near": 0.25, "faint": 0.2, "sure": 0.9}.items():
        probability[shapes[name]] = value
    labels = np.where(shapes["sure"], 7, 0).astype(np.int32)
    return ModelMaps(ndimage.gaussian_filter(probability, 0.7), labels, 0.5, DIAMETER), shapes


def iou(ring: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    drawn = pixels_of(ring, (0, 0, mask.shape[1], mask.shape[0]))
    return float((drawn & mask).sum() / (drawn | mask).sum())


def test_the_nucleus_that_is_separated_there() -> None:
    maps, shapes = make_maps()
    for point in ((25.0, 25.0), (33.5, 25.5)):
        ring = maps.propose(*point)
        assert ring is not None
        assert ring.dtype == np.float32
        assert (ring[0] == ring[-1]).all()
        assert iou(ring, shapes["sure"]) == 1


def test_what_is_faint_stands_out_below_the_threshold() -> None:
    maps, shapes = make_maps()
    for point in ((30.0, 70.0), (26.5, 66.5)):
        ring = maps.propose(*point)
        assert ring is not None
        assert iou(ring, shapes["faint"]) > 0.75


def test_a_proposal_keeps_off_what_is_separated() -> None:
    maps, shapes = make_maps()
    ring = maps.propose(44.0, 25.0)
    assert ring is not None
    assert not (pixels_of(ring, (0, 0, 120, 100)) & shapes["sure"]).any()
    assert iou(ring, shapes["near"] & ~shapes["sure"]) > 0.6


def test_a_proposal_is_no_larger_than_a_nucleus() -> None:
    maps, _ = make_maps()
    ring = maps.propose(90.0, 60.0)
    assert ring is not None
    assert 10 < np.ptp(ring[:, 0]) <= 1.3 * DIAMETER + 2
    area = pixels_of(ring, (0, 0, 120, 100)).sum()  # the cloud is larger: what is taken of it is a disk
    assert area == pytest.approx(np.pi * (0.65 * DIAMETER) ** 2, rel=0.1)


def test_nothing_where_the_model_sees_nothing() -> None:
    maps, _ = make_maps()
    assert maps.propose(60.0, 95.0) is None
    assert maps.propose(120.0, 0.0) is None  # a corner is inside


@pytest.mark.fault
def test_a_point_outside() -> None:
    maps, _ = make_maps()
    with pytest.raises(HemalumError, match=r"\(-1, 5\) lies outside of the image \(120 x 100 px\)"):
        maps.propose(-1, 5)


def test_a_proposal_can_be_added() -> None:
    maps, _ = make_maps()
    nuclei = Nuclei.from_labels(maps.labels)
    state = ItemState.first(Item("a", (100, 120), "0"), Start.of(nuclei))
    for point in ((44.0, 25.0), (30.0, 70.0), (90.0, 60.0)):
        ring = maps.propose(*point)
        assert ring is not None
        assert len(add(state, ring).new) == 1


def test_maps_of_an_image() -> None:
    image = disks(120, 140, 16)
    maps = read_maps(image, "a", disk_model(), DiskEngine(), mpp=0.5, stain="he")
    assert maps.probability.shape == maps.labels.shape == (120, 140)
    assert maps.diameter == 16
    assert maps.probability[maps.labels > 0].mean() > 0.8
    assert maps.labels.max() > 5


def test_maps_are_kept_by_their_size() -> None:
    maps, _ = make_maps()
    cache = MapCache(most=2 * maps.size)
    for id in ("a", "b"):
        cache.keep(id, maps)
    assert cache.get("a") is maps
    cache.keep("c", maps)
    assert cache.get("b") is None  # not used for longest
    assert cache.get("a") is maps
    small = MapCache(most=1)
    small.keep("a", maps)
    assert small.get("a") is maps  # one is always kept
