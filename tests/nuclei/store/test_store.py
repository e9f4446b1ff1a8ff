import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import shapely
import yaml
from numpy.typing import NDArray

from builders.scenes import draw_crowd
from builders.stores import fill_store, make_store, small_run
from hemalum.errors import HemalumError
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import measure
from hemalum.nuclei.polygons import Polygons
from hemalum.nuclei.store import (
    NucleiStore,
    StoreRun,
    export_store,
    find_stores,
    from_wkb,
    open_store,
    raster_ids,
    to_wkb,
)
from synthetic_nuclei import synthetic_nuclei, synthetic_run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> NucleiStore:
    return make_store(tmp_path_factory.mktemp("stores") / "slide.nuclei")


def read_all(store: NucleiStore) -> pa.Table:
    """All rows by id."""
    return store.dataset.to_table().sort_by("id")


def all_nuclei(run: StoreRun) -> tuple[Nuclei, NDArray[np.int64]]:
    """The nuclei of all regions as one, and their ids."""
    parts = [synthetic_nuclei(run, (row, column), points=16) for row in range(2) for column in range(3)]
    return Nuclei.concat([nuclei for nuclei, _ in parts]), np.concatenate([ids for _, ids in parts])


def test_what_was_added_is_what_is_read(store: NucleiStore) -> None:
    nuclei, ids = all_nuclei(store.run)
    order = np.argsort(ids)
    table = read_all(store)
    assert store.count == len(store) == nuclei.count == 600
    assert table.column("id").to_pylist() == ids[order].tolist()
    expected = nuclei.table.take(order)
    for name in nuclei.table.column_names[1:]:
        assert table.column(name).to_pylist() == expected.column(name).to_pylist(), name
    outlines = shapely.from_wkb(table.column("geometry").to_pylist())
    assert all(a.equals(b) for a, b in zip(outlines, nuclei.polygons()[order], strict=True))
    boxes = np.array(
        [[row[name] for name in ("xmin", "ymin", "xmax", "ymax")] for row in table.column("bbox").to_pylist()]
    )
    np.testing.assert_array_equal(boxes, shapely.bounds(nuclei.polygons()[order]))  # fmt: skip


def test_the_whole_store_as_nuclei(store: NucleiStore) -> None:
    nuclei, ids = all_nuclei(store.run)
    order = np.argsort(ids)
    read = store.nuclei()
    assert read.shape == store.run.shape
    assert read.class_names == store.run.class_names
    assert read.notes == {"engine": "torch f32"}
    assert read.table.schema.equals(nuclei.table.schema, check_metadata=True)
    assert read.table.column("id").to_pylist() == list(range(1, 601))
    assert read.table.drop_columns(["id"]).equals(nuclei.table.take(order).drop_columns(["id"]))
    np.testing.assert_array_equal(read.outlines.coords, nuclei.outlines.take(order).coords)


def test_columns_are_those_of_nuclei_with_units(store: NucleiStore) -> None:
    labels, image = draw_crowd(0, (60, 60)), np.full((60, 60, 3), 128, np.uint8)
    nuclei = Nuclei.from_labels(labels, image, mpp=0.25).with_dab(image)
    run = small_run(class_names=(), dab=True)
    schema = NucleiStore(Path("a.nuclei"), run.model_dump()).schema
    assert schema.names == [*nuclei.table.column_names, "bbox", "geometry"]
    assert schema.field("area_um2").metadata == {b"unit": "µm²".encode()}
    units = {"_px": "px", "_um": "µm", "px²": "px²", "_um2": "µm²"}
    for field in store.schema:
        for ending, unit in units.items():
            if field.name.endswith(ending) and field.name != "area_px":
                assert field.metadata[b"unit"].decode() == unit


def test_parts_are_geoparquet(store: NucleiStore) -> None:
    metadata = pa.parquet.read_metadata(store.part_path((0, 1)))
    geo = json.loads(metadata.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    column = geo["columns"][geo["primary_column"]]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["Polygon"]
    assert column["covering"]["bbox"]["xmax"] == ["bbox", "xmax"]
    geometries = pa.parquet.read_table(store.part_path((0, 1))).column("geometry").to_pylist()
    np.testing.assert_array_equal(column["bbox"], shapely.total_bounds(shapely.from_wkb(geometries)))


def test_geopandas_reads_parts_and_store(store: NucleiStore) -> None:
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.read_parquet(store.part_path((1, 2)))
    assert len(frame) == 100
    some = geopandas.read_parquet(store.part_path((1, 2)), bbox=(600, 300, 640, 340))
    assert 0 < len(some) < 20
    everything = store.to_geopandas()
    assert len(everything) == 600
    assert everything.geometry.area.min() > 100
    assert len(store.to_geopandas((0, 0, 100, 100))) == store.window(0, 0, 100, 100).num_rows
    assert list(store.to_pandas(["id", "class"]).columns) == ["id", "class"]
    assert "geometry" not in store.to_pandas().columns


@pytest.mark.fault
@pytest.mark.parametrize("package", ["pandas", "geopandas"])
def test_missing_packages_are_named(store: NucleiStore, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(HemalumError, match=rf"{package} needs it: pip install 'hemalum\[tables\]'"):
        getattr(store, f"to_{package}")()


@pytest.mark.parametrize(
    "window",
    [(0, 0, 720, 480), (100, 50, 300, 200), (239, 239, 2, 2), (0, 0, 1, 1), (-50, -50, 60, 60), (700, 400, 999, 999),
     (2000, 0, 10, 10), (3.5, 7.25, 0.5, 100)],
)  # fmt: skip
def test_windows_give_what_touches_them(store: NucleiStore, window: tuple[float, float, float, float]) -> None:
    x, y, width, height = window
    table = read_all(store)
    box = shapely.bounds(shapely.from_wkb(table.column("geometry").to_pylist()))
    touching = (box[:, 0] < x + width) & (box[:, 1] < y + height) & (box[:, 2] > x) & (box[:, 3] > y)
    assert store.window(*window).equals(table.filter(touching))
    centroids = np.column_stack([table.column("x").to_numpy(), table.column("y").to_numpy()])
    inside = ((centroids >= (x, y)) & (centroids < (x + width, y + height))).all(axis=1)
    got = store.window(*window, columns=["id"], centers=True)
    assert got.column("id").to_pylist() == table.filter(inside).column("id").to_pylist()


@pytest.mark.fault
def test_unknown_columns_are_named(store: NucleiStore) -> None:
    for look in (lambda: store.window(0, 0, 9, 9, columns=["area"]), lambda: store.to_pandas(["area"])):
        with pytest.raises(HemalumError, match="no column 'area', did you mean 'area_"):
            look()


def test_centers_put_each_nucleus_in_one_window(store: NucleiStore) -> None:
    windows = [(x, y, 100, 100) for x in range(-100, 800, 100) for y in range(-100, 600, 100)]
    ids = [store.window(*window, columns=["id"], centers=True).column("id").to_pylist() for window in windows]
    assert sorted(itertools.chain(*ids)) == read_all(store).column("id").to_pylist()


@pytest.mark.fault
def test_a_window_as_nuclei_is_in_its_own_pixels(store: NucleiStore) -> None:
    nuclei = store.nuclei((200, 100, 150, 120))
    assert nuclei.shape == (120, 150)
    assert nuclei.notes["window"] == [200, 100, 150, 120]
    table = store.window(200, 100, 150, 120)
    np.testing.assert_allclose(nuclei.table["x"].to_numpy(), table["x"].to_numpy() - 200, atol=1e-9)
    shift = np.array([200, 100, 200, 100])
    np.testing.assert_allclose(shapely.bounds(nuclei.polygons()) + shift, _boxes(table), atol=1e-4)
    assert ((nuclei.label_map() > 0) == (store.nuclei().label_map()[100:220, 200:350] > 0)).all()
    with pytest.raises(HemalumError, match="at least 1 px"):
        store.nuclei((0, 0, 0, 5))


def _boxes(table: pa.Table) -> Any:
    return shapely.bounds(shapely.from_wkb(table.column("geometry").to_pylist()))


def test_order_of_regions_and_repeated_ones_change_nothing(store: NucleiStore, tmp_path: Path) -> None:
    other = NucleiStore.create(tmp_path / "b.nuclei", store.run)
    regions = other.missing()
    fill_store(other, [*regions[::-1], regions[2]])
    for region in regions:
        assert other.part_path(region).read_bytes() == store.part_path(region).read_bytes()


def test_ids_do_not_depend_on_regions() -> None:
    labels = draw_crowd(0, (90, 120))
    part = measure(labels)
    ids = raster_ids(part.first, 120)
    numbers = [int(np.flatnonzero(labels.ravel() == label)[0]) + 1 for label in labels.ravel()[ids - 1]]
    assert ids.tolist() == numbers
    assert len(set(numbers)) == len(part) == len(np.unique(labels)) - 1
    below = np.setdiff1d(labels, labels[:20])
    lower = measure(np.where(np.isin(labels, below), labels, 0)[20:], origin=(20, 0))
    assert len(lower) > 9
    assert set(raster_ids(lower.first, 120)) == set(ids[np.isin(labels.ravel()[ids - 1], below)])
    assert raster_ids(np.array([[100_000, 99_999]], np.int32), 100_000).tolist() == [10_000_100_000]


@pytest.mark.fault
def test_missing_and_finished(tmp_path: Path) -> None:
    store = NucleiStore.create(tmp_path / "a.nuclei", small_run())
    assert store.count == 0
    assert store.window(0, 0, 500, 500).num_rows == 0
    assert store.nuclei().count == 0
    assert store.dataset.to_table().num_rows == 0
    fill_store(store, [(0, 2), (1, 0)])
    assert store.finished == [(0, 2), (1, 0)]
    assert store.missing([(1, 1), (1, 0), (0, 0)]) == [(1, 1), (0, 0)]
    assert len(store.missing()) == 4
    assert store.count == 200
    with pytest.raises(HemalumError, match=r"4 regions are not finished, the first is \(0, 0\)"):
        store.finish()
    again = NucleiStore.create(tmp_path / "a.nuclei", small_run())
    assert again.finished == [(0, 2), (1, 0)]
    assert not again.complete
    again.finish([(0, 2), (1, 0)])
    assert again.complete
    assert open_store(tmp_path / "a.nuclei").complete
    assert "200 nuclei in 2 regions, complete" in repr(open_store(tmp_path / "a.nuclei"))


def test_a_region_without_nuclei_is_finished(tmp_path: Path) -> None:
    store = NucleiStore.create(tmp_path / "a.nuclei", small_run())
    nuclei, ids = synthetic_nuclei(store.run, (0, 0), points=16)
    none = replace(nuclei, table=nuclei.table.slice(0, 0), outlines=nuclei.outlines.take(np.zeros(0, np.int64)))
    store.add((0, 0), none, ids[:0])
    store.add((0, 1), *synthetic_nuclei(store.run, (0, 1), points=16))
    assert store.finished == [(0, 0), (0, 1)]
    assert store.count == 100
    assert store.window(0, 0, 700, 400).num_rows == 100
    store.finish(store.finished)
    assert open_store(store.path).window(0, 0, 700, 400).num_rows == 100


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fingerprint": "2" * 64}, "fingerprint is 2222.* there, 0000"),
        ({"model_digest": "3"}, "model_digest is 3 there, 1111"),
        ({"settings": {"tile": 512}}, "settings.tile is 512 there, 256 here"),
        ({"settings": {"tile": 256, "tta": True}}, "settings.tta is True there, None here"),
        ({"mpp": 0.5}, "mpp is 0.5 there, 0.25 here"),
        ({"class_names": ()}, "class_names is"),
    ],
)
def test_the_store_of_another_run_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    fill_store(NucleiStore.create(tmp_path / "a.nuclei", small_run(**options)), [(0, 0)])
    with pytest.raises(HemalumError, match=f"holds the nuclei of another run .{message}.*choose another folder"):
        NucleiStore.create(tmp_path / "a.nuclei", small_run())


@pytest.mark.fault
def test_another_grid_is_refused(tmp_path: Path) -> None:
    NucleiStore.create(tmp_path / "a.nuclei", small_run())
    with pytest.raises(HemalumError, match=r"grid.rows is 2 there, 4 here"):
        NucleiStore.create(tmp_path / "a.nuclei", synthetic_run(4, 3, 120, shape=(480, 720)))


def test_going_on_with_a_complete_store_keeps_what_it_knows(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei")
    again = NucleiStore.create(store.path, small_run())
    assert again.complete
    assert again.notes == {"engine": "torch f32"}
    assert again.missing() == []


@pytest.mark.fault
def test_bad_additions(tmp_path: Path) -> None:
    store = NucleiStore.create(tmp_path / "a.nuclei", small_run())
    nuclei, ids = synthetic_nuclei(store.run, (0, 0), points=16)
    with pytest.raises(HemalumError, match=r"region \(2, 0\) is not in its grid of 2 x 3"):
        store.add((2, 0), nuclei, ids)
    with pytest.raises(HemalumError, match="missing class; unknown none"):
        store.add((0, 0), replace(nuclei, table=nuclei.table.drop_columns(["class"])), ids)
    with pytest.raises(HemalumError, match="different whole numbers"):
        store.add((0, 0), nuclei, np.zeros(100, int))
    with pytest.raises(HemalumError, match="99 ids: want one of each"):
        store.add((0, 0), nuclei, ids[1:])
    assert store.finished == []


@pytest.mark.fault
@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.mkdir(), "holds no nuclei; results of a slide are in a folder NAME.nuclei"),
        (
            lambda path: _write(path, "format: 2\nshape: [1, 2]\n"),
            "is not the manifest of a store .fingerprint: Field",
        ),
        (lambda path: _write(path, "format: 9\n"), "is of format 9"),
        (lambda path: _write(path, "["), "cannot be read"),
    ],
)
def test_what_is_no_store(breakage: Any, message: str, tmp_path: Path) -> None:
    breakage(tmp_path / "a.nuclei")
    with pytest.raises(HemalumError, match=message):
        open_store(tmp_path / "a.nuclei")


def _write(path: Path, text: str) -> None:
    path.mkdir()
    (path / "nuclei.yaml").write_text(text)


@pytest.mark.fault
@pytest.mark.parametrize("kept", [0, 3, 4, 100, 5000, -9, -1])
def test_a_damaged_part_is_named(kept: int, tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei")
    path = store.part_path((0, 1))
    path.write_bytes(path.read_bytes()[:kept])
    for look in (lambda: open_store(store.path).window(200, 0, 400, 200), lambda: list(store.tables())):
        with pytest.raises(HemalumError, match=r"0_1.parquet: is damaged .*remove it and run again: it alone"):
            look()
    path.unlink()
    again = NucleiStore.create(store.path, store.run)
    assert again.missing() == [(0, 1)]
    assert fill_store(again).count == 600


def test_leftovers_of_killed_processes_do_no_harm(tmp_path: Path) -> None:
    store = NucleiStore.create(tmp_path / "a.nuclei", small_run())
    leftover = store.part_path((0, 0)).with_name(".0_0.12345.part.parquet")
    leftover.write_bytes(b"PAR1")
    assert store.missing()[0] == (0, 0)
    fill_store(store).finish()
    assert leftover.exists()  # somebody may be writing to it
    os.utime(leftover, (0, 0))
    store.finish()
    assert not leftover.exists()
    assert store.count == 600


def test_many_threads_make_one_store(store: NucleiStore, tmp_path: Path) -> None:
    regions = store.finished
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            mine = NucleiStore.create(tmp_path / "a.nuclei", store.run)
            for region in regions[number:] + regions[:number]:
                if region in mine.missing([region]):
                    mine.add(region, *synthetic_nuclei(mine.run, region, points=16))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert read_all(open_store(tmp_path / "a.nuclei")).equals(read_all(store))


def test_nuclei_are_graded(tmp_path: Path) -> None:
    fixed = make_store(tmp_path / "a.nuclei", small_run(dab=True, positive=(0.25,)))
    dab = read_all(fixed).column("dab_mean").to_numpy()
    assert fixed.thresholds == (0.25,)
    assert (
        read_all(fixed).column("intensity").to_pylist()
        == np.where(dab >= np.float32(0.25), "Positive", "Negative").tolist()
    )
    otsu = make_store(tmp_path / "b.nuclei", small_run(dab=True, positive="otsu"))
    (threshold,) = open_store(otsu.path).thresholds
    assert threshold == all_nuclei(otsu.run)[0].graded("otsu").thresholds[0]
    names = np.where(dab >= threshold, "Positive", "Negative").tolist()
    assert read_all(otsu).column("intensity").to_pylist() == names
    assert otsu.nuclei().positive_share == pytest.approx(np.mean(dab >= threshold))
    before = read_all(otsu)
    otsu.finish()
    assert read_all(otsu).equals(before)


@pytest.mark.fault
def test_wkb_of_nothing_and_of_others() -> None:
    empty = Polygons(np.zeros((0, 2), np.float32), np.zeros(1, np.int64))
    assert len(from_wkb(to_wkb(empty))) == 0
    hole = shapely.Point(0, 0).buffer(3).difference(shapely.Point(0, 0).buffer(1))
    with pytest.raises(HemalumError, match="no polygons of one ring"):
        from_wkb(pa.array([shapely.to_wkb(hole)]))


@pytest.mark.fault
def test_finding_stores(store: NucleiStore, tmp_path: Path) -> None:
    assert find_stores(store.path) == [store.path]
    assert find_stores(store.path.parent) == [store.path]
    with pytest.raises(HemalumError, match="no such folder"):
        find_stores(tmp_path / "none")
    with pytest.raises(HemalumError, match=r"holds no folder NAME.nuclei"):
        find_stores(tmp_path)


@pytest.mark.fault
def test_a_complete_store_is_just_the_parts_that_it_lists(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei")
    part = store.part_path((0, 1))
    kept = part.read_bytes()
    looks = (
        lambda: open_store(store.path).count,
        lambda: list(open_store(store.path).tables()),
        lambda: open_store(store.path).dataset,
        lambda: open_store(store.path).window(0, 0, 9, 9),
        lambda: export_store(open_store(store.path), "csv"),
    )
    part.unlink()
    for look in looks:
        with pytest.raises(HemalumError, match=r"a.nuclei: 1 of its 6 parts are missing, the first is 0_1.parquet"):
            look()
    assert "1 of its 6 parts are missing" in repr(open_store(store.path))
    part.write_bytes(kept)
    stray = store.part_path((9, 9))
    stray.write_bytes(kept)
    for look in looks:
        with pytest.raises(
            HemalumError, match=r"a.nuclei: 9_9.parquet is not of this store, whose grid is 2 x 3; remove it"
        ):
            look()
    stray.unlink()
    shutil.rmtree(part.parent)
    with pytest.raises(HemalumError, match=r"6 of its 6 parts are missing"):
        export_store(open_store(store.path), "csv")


@pytest.mark.fault
@pytest.mark.parametrize("index", ["none", "damaged"])
def test_a_part_is_missed_without_the_index_too(index: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei")
    if index == "none":
        (store.path / "regions.parquet").unlink()
    else:
        (store.path / "regions.parquet").write_bytes(b"PAR1")
    assert open_store(store.path).count == 600
    store.part_path((0, 1)).unlink()
    for look in (lambda: open_store(store.path).count, lambda: export_store(open_store(store.path), "csv")):
        with pytest.raises(HemalumError, match=r"a.nuclei: holds 5 parts and was complete with 6; .* run again"):
            look()
    fill_store(NucleiStore.create(store.path, store.run)).finish()
    assert open_store(store.path).count == 600


@pytest.mark.fault
def test_a_part_that_came_later_is_named(tmp_path: Path) -> None:
    store = fill_store(NucleiStore.create(tmp_path / "a.nuclei", small_run()), [(0, 0), (1, 2)])
    store.finish(store.finished)
    shutil.copy(store.part_path((0, 0)), store.part_path((0, 1)))
    with pytest.raises(HemalumError, match=r"a.nuclei: 0_1.parquet came after the store was complete, 1 part in all"):
        list(open_store(store.path).tables())
    assert store.count == 200  # opened before


@pytest.mark.parametrize("change", ["removed", "replaced", "index removed"])
def test_a_store_that_is_gone_on_with_is_complete_again_only_when_finished(change: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei", small_run(dab=True, positive="otsu"))
    before = read_all(store)
    if change == "removed":
        store.part_path((0, 1)).unlink()
        NucleiStore.create(store.path, store.run)
    elif change == "replaced":
        fill_store(open_store(store.path), [(0, 1)])
    else:
        (store.path / "regions.parquet").unlink()
        NucleiStore.create(store.path, store.run)
    again = open_store(store.path)
    assert not again.complete
    assert again.thresholds == ()
    assert again.notes == {"engine": "torch f32"}
    fill_store(again).finish()
    assert open_store(store.path).complete
    assert read_all(open_store(store.path)).equals(before)
    assert read_all(again).column("intensity").null_count == 0


def test_adding_by_a_process_that_does_not_know_that_the_store_is_complete(tmp_path: Path) -> None:
    early = NucleiStore.create(tmp_path / "a.nuclei", small_run())
    make_store(early.path)
    fill_store(early, [(0, 0)])
    assert not open_store(early.path).complete


def _other_schemas(table: pa.Table) -> dict[str, pa.Table]:
    order = table.column_names
    return {
        "lacks the columns class": table.drop_columns(["class"]),
        "has besides the columns note": table.append_column("note", pa.nulls(table.num_rows, pa.string())),
        "lacks the columns geometry; has besides the columns wkb": table.rename_columns([*order[:-1], "wkb"]),
        "column area_px is double where area_px .float. stands": table.set_column(
            order.index("area_px"), "area_px", table.column("area_px").cast(pa.float64())
        ),
        "column x is double where id .int64. stands": table.select([order[1], order[0], *order[2:]]),
    }


@pytest.mark.fault
@pytest.mark.parametrize("number", range(5))
def test_a_part_of_another_schema_is_refused(number: int, tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei")
    path = store.part_path((0, 0))
    message, table = list(_other_schemas(pa.parquet.read_table(path)).items())[number]
    pa.parquet.write_table(table, path)
    looks = (
        lambda: list(open_store(store.path).tables()),
        lambda: open_store(store.path).dataset.to_table(),
        lambda: open_store(store.path).window(0, 0, 99, 99),
        lambda: export_store(open_store(store.path), "parquet"),
    )
    for look in looks:
        with pytest.raises(HemalumError, match=rf"0_0.parquet: {message}.*remove it and run again"):
            look()


@pytest.mark.parametrize("number", range(3))
def test_csv_of_a_part_of_another_schema(number: int, tmp_path: Path) -> None:
    """By a process of its own: pyarrow's writer crashed."""
    store = make_store(tmp_path / "a.nuclei")
    path = store.part_path((0, 0))
    pa.parquet.write_table(list(_other_schemas(pa.parquet.read_table(path)).values())[number + 1], path)
    done = subprocess.run(
        [sys.executable, "-m", "hemalum", "export", store.path, "--to", "csv"], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1


def test_a_part_that_went_through_another_program_is_read(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei")
    expected = store.window(0, 0, 300, 200)
    path = store.part_path((0, 0))
    table = pa.parquet.read_table(path)
    pa.parquet.write_table(table.replace_schema_metadata(None), path, write_statistics=False)
    (store.path / "regions.parquet").unlink()
    again = open_store(store.path)
    assert again.count == 600
    assert again.window(0, 0, 300, 200).equals(expected)


@pytest.mark.parametrize("index", ["none", "damaged", "of another schema", "with nulls"])
def test_without_an_index_the_parts_are_looked_at(
    index: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path / "a.nuclei")
    path = store.path / "regions.parquet"
    table = pa.parquet.read_table(path)
    if index == "none":
        path.unlink()
    elif index == "damaged":
        path.write_bytes(path.read_bytes()[:-20])
    elif index == "of another schema":
        pa.parquet.write_table(table.rename_columns([*table.column_names[:-1], "other"]), path)
    else:
        pa.parquet.write_table(table.set_column(0, "row", pa.array([None] * 6, pa.int32())), path)
    with caplog.at_level("WARNING"):
        assert open_store(store.path).count == 600
    assert "regions.parquet: cannot be read (" in caplog.text
    assert "the parts are looked at one by one" in caplog.text
    assert "remove it" not in caplog.text


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"notes": 5}, "notes: Input should be a valid dictionary"),
        ({"thresholds": 5}, "thresholds"),
        ({"thresholds": [0.1, 0.2, 0.3, 0.4, 0.5]}, "5 thresholds; want 1 or 3"),
        ({"positive": [0.1, 0.2]}, "2 thresholds; want 1 or 3"),
        ({"complete": "perhaps"}, "complete: Input should be a valid boolean"),
        ({"grid": 5}, "grid: Input should be a valid dictionary"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
    ],
)
def test_manifests_that_cannot_be(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei")
    manifest = store.path / "nuclei.yaml"
    manifest.write_text(yaml.safe_dump(yaml.safe_load(manifest.read_text()) | change))
    with pytest.raises(HemalumError, match=rf"nuclei.yaml: is not the manifest of a store \(.*{message}"):
        open_store(store.path)


@pytest.mark.parametrize("name", [".", "../a.nuclei", "parts/.."])
def test_a_store_named_from_within(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "a.nuclei")
    monkeypatch.chdir(store.path)
    assert open_store(name).name == "a"
    assert export_store(open_store(find_stores(name)[0]), "csv").resolve() == tmp_path / "a.csv"
