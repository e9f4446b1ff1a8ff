"""Maps on grids small enough to count by hand."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from builders.stores import make_store, small_run, squares_run, store_squares
from hemalum.errors import HemalumError
from hemalum.nuclei.store import NucleiStore, block_means, measure_maps, summarize, write_map_zarr

# 200 x 300 px at 0.5 µm: cells of 50 µm are 100 px, two rows of three
SHAPE = (200, 300)
CENTERS = [(10, 10), (20, 30), (99.999, 99.999), (150, 50), (250, 150)]


@pytest.fixture
def store(tmp_path: Path) -> NucleiStore:
    return store_squares(tmp_path / "a.nuclei", squares_run(SHAPE), CENTERS, areas=[10, 20, 60, 40, 5])


def test_counts_densities_and_areas_of_a_known_grid(store: NucleiStore) -> None:
    maps = measure_maps(store, 50)
    assert maps.counts.tolist() == [[3, 1, 0], [0, 0, 1]]
    assert maps.side == (50, 50)
    np.testing.assert_allclose(maps.density, [[1200, 400, 0], [0, 0, 400]])  # per 0.0025 mm²
    np.testing.assert_allclose(maps.mean_area, [[30, 40, np.nan], [np.nan, np.nan, 5]])


def test_a_nucleus_on_a_border_of_cells_counts_once_right_of_it_or_below(tmp_path: Path) -> None:
    corners = [(100, 50), (50, 100), (100, 100), (300, 200)]
    maps = measure_maps(store_squares(tmp_path / "a.nuclei", squares_run(SHAPE), corners), 50)
    # the last one lies on the edge of the slide, where no further cell is
    assert maps.counts.tolist() == [[0, 1, 0], [1, 1, 1]]


def test_cells_divide_the_slide(tmp_path: Path) -> None:
    maps = measure_maps(store_squares(tmp_path / "a.nuclei", squares_run((210, 300)), [(10, 209)]), 50)
    assert maps.side == (52.5, 50)
    assert maps.counts.tolist() == [[0, 0, 0], [1, 0, 0]]
    assert maps.density[1, 0] == pytest.approx(1e6 / (52.5 * 50))


def test_where_none_were_looked_for_there_is_no_density(store: NucleiStore) -> None:
    tissue = np.zeros((4, 6), np.bool_)
    tissue[0, 0] = tissue[2:, 2:] = True  # a quarter of the first cell; all of the last two
    maps = measure_maps(store, 50, tissue=tissue)
    assert maps.tissue.tolist() == [[0.25, 0, 0], [0, 1, 1]]
    # the second cell is glass to the mask, but has a nucleus
    np.testing.assert_allclose(maps.density, [[1200, 400, np.nan], [np.nan, 0, 400]])
    assert maps.tissue_known
    masked = squares_run(SHAPE, settings={"tissue_mask": "0" * 64})
    assert not measure_maps(store_squares(store.path.with_name("b.nuclei"), masked, CENTERS), 50).tissue_known


@pytest.mark.fault
def test_a_region_of_interest_limits_the_maps(tmp_path: Path) -> None:
    run = squares_run(SHAPE, settings={"roi": "POLYGON ((0 0, 150 0, 150 100, 0 100, 0 0))"})
    maps = measure_maps(store_squares(tmp_path / "a.nuclei", run, [(10, 10)]), 50)
    np.testing.assert_allclose(maps.tissue, [[1, 0.5, 0], [0, 0, 0]])
    np.testing.assert_allclose(maps.density, [[400, 0, np.nan], [np.nan, np.nan, np.nan]])
    run = squares_run(SHAPE, settings={"roi": "no shape"})
    with pytest.raises(HemalumError, match=r"b\.nuclei: its region of interest cannot be read"):
        measure_maps(store_squares(tmp_path / "b.nuclei", run, []), 50)


def test_classes_also_one_that_is_missing(tmp_path: Path) -> None:
    run = squares_run(SHAPE, class_names=("a", "b", "c"))
    store = store_squares(tmp_path / "a.nuclei", run, CENTERS, classes=["a", "c", "c", "a", "c"])
    maps = measure_maps(store, 50)
    layers = {layer.name: layer.values for layer in maps.layers()}
    assert list(layers) == ["density", "area", "class: a", "class: b", "class: c"]
    np.testing.assert_allclose(layers["class: a"], [[1 / 3, 1, np.nan], [np.nan, np.nan, 0]])
    np.testing.assert_allclose(layers["class: b"], [[0, 0, np.nan], [np.nan, np.nan, 0]])
    assert maps.majority.tolist() == [[3, 1, 0], [0, 0, 3]]
    assert measure_maps(store, 200).majority.tolist() == [[3]]
    tied = store_squares(tmp_path / "b.nuclei", run, CENTERS[:2], classes=["c", "b"])
    assert measure_maps(tied, 50).majority[0, 0] == 2  # of equally many, the class that is named first


def test_share_of_positive_nuclei(tmp_path: Path) -> None:
    run = squares_run(SHAPE, dab=True, positive=(0.2, 0.4, 0.6))
    store = store_squares(tmp_path / "a.nuclei", run, CENTERS, dab=[0.1, 0.3, 0.7, 0.1, 0.5])
    (positive,) = (layer for layer in measure_maps(store, 50).layers() if layer.name == "positive")
    np.testing.assert_allclose(positive.values, [[2 / 3, 0, np.nan], [np.nan, np.nan, 1]])
    assert summarize(store).by_grade.tolist() == [[2, 1, 1, 1]]


def test_an_empty_store(tmp_path: Path) -> None:
    store = store_squares(tmp_path / "a.nuclei", squares_run(SHAPE), [])
    maps = measure_maps(store, 50)
    assert maps.counts.sum() == 0
    assert np.isnan(maps.mean_area).all()
    summary = summarize(store, ["area_um2"])
    assert summary.count == 0
    assert np.isnan(summary.measures["area_um2"].quantiles([0.5])).all()


def test_a_coarser_grid_is_one_of_larger_cells(tmp_path: Path) -> None:
    run = small_run(dab=True, positive=(0.3,))  # 480 x 720 px at 0.25 µm
    store = make_store(tmp_path / "a.nuclei", run)
    tissue = np.random.default_rng(0).random((12, 18)) > 0.3
    fine, coarse = measure_maps(store, 10, tissue=tissue), measure_maps(store, 20, tissue=tissue)
    merged = fine.coarser(2)
    np.testing.assert_array_equal(merged.counts, coarse.counts)
    for one, other in zip(merged.layers(), coarse.layers(), strict=True):
        if one.name != "density":
            np.testing.assert_allclose(one.values, other.values, rtol=1e-6)
    # density stays per area in which nuclei were looked for
    searched = fine.searched.reshape(6, 2, 9, 2).sum(axis=(1, 3)) * 1e-4
    np.testing.assert_allclose(
        merged.density, np.where(searched > 0, coarse.counts / np.maximum(searched, 1e-9), np.nan)
    )


def test_means_of_a_mask_by_cells() -> None:
    mask = np.zeros((5, 4), np.bool_)
    mask[2] = True
    # the middle row of five is touched by both of two cells
    np.testing.assert_allclose(block_means(mask, (2, 2)), np.full((2, 2), 1 / 3))
    np.testing.assert_array_equal(block_means(mask, (10, 8))[:, 0], [0, 0, 0, 0, 1, 1, 0, 0, 0, 0])


@pytest.mark.fault
def test_zarr_has_levels_in_micrometers(store: NucleiStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemalum.nuclei.store.map_zarr.SMALLEST", 2)
    maps = measure_maps(store, 50)
    group = zarr.open_group(write_map_zarr(maps, tmp_path / "maps.ome.zarr"), mode="r")
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    (multiscale,) = ome["multiscales"]
    assert [(axis["name"], axis.get("unit")) for axis in multiscale["axes"]] == [
        ("c", None), ("y", "micrometer"), ("x", "micrometer"),
    ]  # fmt: skip
    first, second = (dataset["coordinateTransformations"] for dataset in multiscale["datasets"])
    assert first[0]["scale"] == [1, 50, 50]
    assert second[0]["scale"] == [1, 100, 100]
    assert first[1]["translation"] == [0, 24.75, 24.75]  # from the center of the first px, 0.25 µm inside
    assert [channel["label"] for channel in ome["omero"]["channels"]] == ["density", "area"]
    assert group["0"].dtype == np.float32
    np.testing.assert_array_equal(group["0"][0], maps.density)
    np.testing.assert_array_equal(group["1"][1], np.float32([[(90 + 40) / 4, 5]]))
    with pytest.raises(HemalumError, match="is there already"):
        write_map_zarr(maps, tmp_path / "maps.ome.zarr")


@pytest.mark.fault
def test_what_no_grid_can_be(store: NucleiStore, tmp_path: Path) -> None:
    for side in (0.0, float("nan"), -5.0):
        with pytest.raises(HemalumError, match="want more than 0"):
            measure_maps(store, side)
    with pytest.raises(HemalumError, match=r"cells of 0\.01 µm: 150,000,000 of them"):
        measure_maps(store, 0.01)
    without = store_squares(tmp_path / "b.nuclei", squares_run(SHAPE, mpp=None), [])
    with pytest.raises(HemalumError, match=r"b\.nuclei: the scale of its slide is not known"):
        measure_maps(without)


@pytest.mark.fault
def test_quantiles_are_numpys(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei")
    areas = store.dataset.to_table(columns=["area_um2"]).column(0).to_numpy().astype(np.float64)
    spread = summarize(store, ["area_um2"]).measures["area_um2"]
    shares = [0, 0.005, 0.25, 0.5, 0.75, 0.995, 1]
    step = (areas.max() - areas.min()) / 65536
    np.testing.assert_allclose(spread.quantiles(shares), np.quantile(areas, shares), rtol=0, atol=step)
    edges = np.array([50.0, 100, 200, 250])
    expected, _ = np.histogram(np.clip(areas, 50, 250), edges)
    assert spread.binned(edges).tolist() == expected.tolist()
    counts = summarize(store).by_class
    assert counts.sum() == store.count
    with pytest.raises(HemalumError, match="no column 'size'"):
        summarize(store, ["size"])
