import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from builders.scenes import draw_crowd
from hemalum.errors import HemalumError
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import Part, measure
from hemalum.nuclei.settings import SeparationSettings
from hemalum.targets.representations import REPRESENTATIONS


def separated(seed: int = 0, shape: tuple[int, int] = (120, 140)) -> NDArray[np.int32]:
    way = REPRESENTATIONS["distance"]
    return way.separate(way.encode(draw_crowd(seed, shape)), SeparationSettings())


def stained(shape: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(60, 240, (*shape, 3)).astype(np.uint8)


def test_label_map_on_the_same_grid_is_the_separated_one() -> None:
    labels = separated()
    nuclei = Nuclei.from_parts([measure(labels)], shape=labels.shape)
    drawn = nuclei.label_map()
    assert drawn.dtype == np.uint32
    assert (drawn == labels).all()
    assert nuclei.count == len(nuclei) == labels.max() == nuclei.table.num_rows
    assert nuclei.table["id"].to_pylist() == list(range(1, nuclei.count + 1))


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0])
def test_label_map_at_the_size_of_the_input(scale: float) -> None:
    labels = separated()
    shape = (round(120 * scale), round(140 * scale))
    nuclei = Nuclei.from_parts([measure(labels)], shape=shape, scale=(scale, scale), mpp=0.5 / scale)
    drawn = nuclei.label_map()
    assert drawn.shape == shape
    areas = np.bincount(drawn.ravel(), minlength=nuclei.count + 1)[1:]
    np.testing.assert_allclose(areas, nuclei.table["area_px"].to_numpy(), rtol=0.12, atol=4 * scale)
    # centroids in input px fall on the nucleus they belong to, for nuclei as round as these
    x, y = nuclei.table["x"].to_numpy().astype(int), nuclei.table["y"].to_numpy().astype(int)
    assert (drawn[y, x] == nuclei.table["id"].to_numpy()).mean() > 0.98
    np.testing.assert_allclose(nuclei.table["area_um2"].to_numpy(), np.bincount(labels.ravel())[1:] * 0.25)


def test_parts_in_any_order_give_the_same_as_the_whole() -> None:
    labels, image = separated(3), stained((120, 140))
    expected = Nuclei.from_parts([measure(labels, image)], shape=labels.shape, mpp=0.5)
    # three bands, each with the nuclei that end in it, the last band first
    last_row = np.array([np.flatnonzero((labels == n).any(1)).max() for n in range(1, labels.max() + 1)])
    band = np.concatenate([[-1], last_row // 45])
    parts = [
        measure(np.where(band[labels] == k, labels, 0)[top:], image[top:], origin=(top, 0))
        for k, top in [(2, 40), (0, 0), (1, 0)]
    ]
    joined = Nuclei.from_parts(parts, shape=labels.shape, mpp=0.5)
    assert joined.table.equals(expected.table)
    np.testing.assert_array_equal(joined.outlines.coords, expected.outlines.coords)
    np.testing.assert_array_equal(joined.outlines.offsets, expected.outlines.offsets)


@pytest.mark.parametrize("parts", [[], [measure(np.zeros((4, 6), np.int32))]])
def test_no_nuclei(parts: list[Part]) -> None:
    nuclei = Nuclei.from_parts(parts, shape=(4, 6), mpp=0.25)
    assert nuclei.count == 0
    assert nuclei.density_per_mm2 == 0
    assert not nuclei.label_map().any()
    assert len(nuclei.polygons()) == 0
    assert nuclei.table.schema.equals(Nuclei.from_labels(np.ones((3, 3), int)).table.schema)


def test_density_needs_a_scale() -> None:
    labels = separated()
    assert Nuclei.from_labels(labels).density_per_mm2 is None
    nuclei = Nuclei.from_labels(labels, mpp=0.5)
    assert nuclei.density_per_mm2 == pytest.approx(nuclei.count / (60 * 70 * 1e-6))
    assert nuclei.mpp_source == "user"


def test_um_columns_are_null_without_a_scale() -> None:
    table = Nuclei.from_labels(separated()).table
    assert table["area_um2"].null_count == table.num_rows
    assert table["area_px"].null_count == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.int64, bool])
def test_from_labels_takes_any_integers_and_splits_pieces(dtype: DTypeLike) -> None:
    labels = np.zeros((10, 12), dtype)
    labels[1:3, 1:3] = labels[6:8, 6:9] = 1
    nuclei = Nuclei.from_labels(labels)
    assert nuclei.table["area_px"].to_pylist() == [4, 6]


def test_from_labels_keeps_more_than_65535_nuclei() -> None:
    labels = np.zeros((540, 540), np.uint32)
    labels[::2, ::2] = np.arange(1, 270 * 270 + 1).reshape(270, 270)
    nuclei = Nuclei.from_labels(labels)
    assert nuclei.count == 72_900
    assert (nuclei.label_map() == labels).all()


@pytest.mark.fault
def test_from_labels_names_misfits() -> None:
    with pytest.raises(HemalumError, match="as large as the image"):
        Nuclei.from_labels(np.zeros((4, 4), int), np.zeros((5, 4, 3), np.uint8))


@pytest.mark.fault
def test_concat_counts_on() -> None:
    labels = separated()
    upper, lower = np.where(labels <= 10, labels, 0), np.where(labels > 10, labels, 0)
    parts = [Nuclei.from_labels(part, mpp=0.5) for part in (upper, lower)]
    joined = Nuclei.concat(parts)
    assert joined.table["id"].to_pylist() == list(range(1, labels.max() + 1))
    assert (joined.label_map() == labels).all()
    with pytest.raises(HemalumError, match="one image"):
        Nuclei.concat([parts[0], Nuclei.from_labels(upper, mpp=0.25)])
    with pytest.raises(HemalumError, match="nothing"):
        Nuclei.concat([])
