"""One id joins the files of a result, and one UUID follows a nucleus through whatever is left out beside it."""

import csv
import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.stores import fill_store, make_store, small_run
from hemalum.data.annotations import read_objects
from hemalum.nuclei.io.object_ids import make_uuids, number_outlines
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.polygons import Polygons
from hemalum.nuclei.store import NucleiStore, export_store


def rectangles() -> Nuclei:
    """Forty rectangles of different sizes in an image of 100 x 160 px, in rows of eight."""
    labels = np.zeros((100, 160), np.int32)
    for number in range(40):
        top, left = 20 * (number // 8) + 2, 20 * (number % 8) + 2
        labels[top : top + 4 + number % 9, left : left + 5 + number % 7] = number + 1
    image = np.full((100, 160, 3), 120, np.uint8)
    return Nuclei.from_labels(labels, image, mpp=0.5, source="scans/a.png")


def written(nuclei: Nuclei, folder: Path, **options: Any) -> dict[str, int]:
    """The id of each object by its UUID, as GeoJSON has them; the same ids are in every other file."""
    folder.mkdir()
    nuclei.to_geojson(folder / "a.geojson", **options)
    nuclei.to_csv(folder / "a.csv")
    nuclei.to_parquet(folder / "a.parquet")
    nuclei.to_labels(folder / "a.tif")
    objects = list(read_objects(folder / "a.geojson"))
    ids = [int(one.measurements["Nucleus ID"]) for one in objects]
    with (folder / "a.csv").open(encoding="utf-8") as stream:
        assert [int(row["id"]) for row in csv.DictReader(stream)] == ids
    assert pyarrow.parquet.read_table(folder / "a.parquet")["id"].to_pylist() == ids
    assert np.unique(tifffile.imread(folder / "a.tif"))[1:].tolist() == sorted(ids)
    id_by_uuid = {str(uuid.UUID(one.id)): number for one, number in zip(objects, ids, strict=True)}
    assert len(id_by_uuid) == len(nuclei)
    return id_by_uuid


WAYS: dict[str, Any] = {
    "limits": lambda nuclei: nuclei.filter(min_area_um2=12),
    "an area": lambda nuclei: nuclei.filter(inside=shapely.box(0, 0, 70, 160)),
    "limits and areas": lambda nuclei: nuclei.filter(max_area_um2=20).filter(outside=shapely.box(0, 0, 50, 60)),
    "rows": lambda nuclei: nuclei[[7, 3, 30]],
    "another order": lambda nuclei: nuclei[::-1],
    "another folder": lambda nuclei: replace(nuclei, source="/mnt/other/a.png"),
    "other notes": lambda nuclei: replace(nuclei, notes={"engine": "onnx f32"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_object_keeps_its_uuid_and_id(way: str, tmp_path: Path) -> None:
    everything, some = rectangles(), WAYS[way](rectangles())
    before, after = written(everything, tmp_path / "before"), written(some, tmp_path / "after")
    assert 0 < len(after) <= len(before) == 40
    assert after.items() <= before.items()


def test_simplified_outlines_are_of_the_same_objects(tmp_path: Path) -> None:
    plain, simple = (written(rectangles(), tmp_path / str(by), simplify=by) for by in (0, 2.0))
    assert plain == simple


def test_uuids_are_of_one_image(tmp_path: Path) -> None:
    nuclei = rectangles()
    before = written(nuclei, tmp_path / "a")
    for number, other in enumerate((replace(nuclei, source="b.png"), replace(nuclei, shape=(200, 200)))):
        assert not before.keys() & written(other, tmp_path / str(number)).keys()
    counted_anew = Nuclei.concat([nuclei[5:]])  # other ids of the same nuclei
    assert set(written(counted_anew, tmp_path / "c")) == set(list(before)[5:])


def test_the_same_nucleus_twice_has_two_uuids(tmp_path: Path) -> None:
    nuclei = rectangles()
    twice = Nuclei.concat([nuclei, nuclei[:3], nuclei[:2]])
    twice.to_geojson(tmp_path / "a.geojson")
    assert len({one.id for one in read_objects(tmp_path / "a.geojson")}) == 45


@settings(max_examples=60, deadline=None)
@given(
    rings=st.lists(
        st.lists(st.integers(0, 2), min_size=6, max_size=8).filter(lambda one: len(one) % 2 == 0), max_size=9
    ),
    data=st.data(),
)
def test_numbers_follow_the_outline_alone(rings: list[list[int]], data: st.DataObject) -> None:
    def outlines(some: list[list[int]]) -> Polygons:
        coords = np.array([value for ring in some for value in ring], np.float32).reshape(-1, 2)
        return Polygons(coords, np.cumsum([0, *(len(ring) // 2 for ring in some)]))

    numbers = number_outlines(outlines(rings))
    assert len(set(numbers.tolist())) == len(rings)
    once = {tuple(ring): ring for ring in rings}
    some = data.draw(st.permutations(list(once.values())))[: data.draw(st.integers(0, len(once)))]
    alone = dict(zip(map(tuple, some), number_outlines(outlines(some)).tolist(), strict=True))
    first = {tuple(ring): number for ring, number in zip(rings[::-1], numbers[::-1].tolist(), strict=True)}
    assert all(alone[ring] == first[ring] for ring in alone)


def test_numbers_of_many_outlines_differ() -> None:
    """Squares at every place of a grid, a quarter of a pixel apart, as outlines of a slide are near to each other."""
    steps = np.arange(250, dtype=np.float32) / 4 + 80_000
    y, x = np.meshgrid(steps, steps, indexing="ij")
    corners = np.array([[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]], np.float32)
    coords = (np.stack([x.ravel(), y.ravel()], 1)[:, None] + corners).reshape(-1, 2)
    numbers = number_outlines(Polygons(coords, 5 * np.arange(x.size + 1)))
    assert len(np.unique(numbers)) == x.size
    high = numbers >> np.uint64(32)  # half of the bits are as good as random: pairs that share them are few
    assert x.size - len(np.unique(high)) < 10
    np.testing.assert_allclose(np.unpackbits(numbers.view(np.uint8)).mean(), 0.5, atol=0.01)
    assert len({bytes(one) for one in make_uuids(b"a", numbers).reshape(-1, 16)}) == x.size


def test_minus_zero_is_zero() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 0]], np.float32)
    other = np.where(square == 0, np.float32(-0.0), square)
    numbers = [number_outlines(Polygons(one, np.array([0, 4]))) for one in (square, other)]
    assert numbers[0] == numbers[1]


def test_a_store_has_one_id_in_every_file(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei", small_run(positive=None))
    ids = store.dataset.to_table(columns=["id"])["id"].to_pylist()
    objects = list(read_objects(export_store(store, "geojson")))
    assert [int(one.measurements["Nucleus ID"]) for one in objects] == ids
    with export_store(store, "csv").open(encoding="utf-8") as stream:
        assert [int(row["id"]) for row in csv.DictReader(stream)] == ids
    assert pyarrow.parquet.read_table(export_store(store, "parquet"))["id"].to_pylist() == ids
    assert set(np.unique(tifffile.imread(export_store(store, "labels"))).tolist()) <= {0, *ids}


def test_a_store_of_another_run_has_the_same_uuids(tmp_path: Path) -> None:
    """A filter, a region and the thresholds that grade belong to the run, and not to the nuclei."""
    first = make_store(tmp_path / "a.nuclei", small_run())
    run = small_run().model_copy(update={"settings": {"filter": {"min_area_um2": 20.0}, "tissue_mask": "1"}})
    second = fill_store(NucleiStore.create(tmp_path / "b.nuclei", run), first.finished[:2])
    before, after = (
        {one.id: one.measurements["Nucleus ID"] for one in read_objects(export_store(store, "geojson"))}
        for store in (first, second)
    )
    assert 0 < len(after) < len(before)
    assert after.items() <= before.items()


def test_large_ids_are_written_to_the_last_digit(tmp_path: Path) -> None:
    from hemalum.nuclei.io.geojson import FeatureWriter

    numbers = [0, 1, 9, 999_999, 1_000_000, 123_456_789, 2**32 + 1, 98_765_432_101, 2**53 - 1]
    table = pyarrow.table({"id": numbers})
    with (tmp_path / "a.geojson").open("wb") as stream:
        writer = FeatureWriter(stream, ["id"], image=b"a")
        square = np.array([[0, 0], [1, 0], [1, 1], [0, 0]], float)
        offsets, unique = 4 * np.arange(len(numbers) + 1), np.arange(len(numbers), dtype=np.uint64)
        writer.write(np.tile(square, (len(numbers), 1)), offsets, table, unique)
        writer.close()
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert [one["properties"]["measurements"]["Nucleus ID"] for one in features] == numbers
