import csv
import gzip
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import shapely
import tifffile
import zarr
from PIL import Image

from builders.stores import fill_store, make_store, small_run
from hemalum.data.annotations import read_objects
from hemalum.errors import HemalumError
from hemalum.nuclei.io import MEASUREMENTS
from hemalum.nuclei.io.colors import INTENSITIES, class_color
from hemalum.nuclei.store import EXPORTS, NucleiStore, export_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> NucleiStore:
    return make_store(tmp_path_factory.mktemp("stores") / "slide.nuclei", small_run(offset=(1000, 2000)))


def rows(store: NucleiStore) -> list[dict[str, Any]]:
    return pa.concat_tables(store.tables()).to_pylist()


@pytest.mark.parametrize("kind", ["detection", "annotation"])
@pytest.mark.parametrize("format", ["geojson", "geojson.gz"])
def test_out_to_qupath_and_back_loses_nothing(store: NucleiStore, kind: str, format: str, tmp_path: Path) -> None:
    path = export_store(store, format, tmp_path / f"a.{format}", kind=kind)
    objects = list(read_objects(path))
    assert len(objects) == store.count
    for one, row in zip(objects, rows(store), strict=True):
        assert one.kind == kind
        ((ring,),) = one.polygons
        expected = shapely.get_coordinates(shapely.from_wkb(row["geometry"]))
        np.testing.assert_allclose(ring, expected, atol=1e-3, rtol=0)
        assert one.class_name == row["class"]
        assert one.color == class_color(store.run.class_names.index(row["class"]) + 1)
        known = {MEASUREMENTS[name]: row[name] for name in MEASUREMENTS if row.get(name) is not None}
        assert {name: np.float32(value) for name, value in one.measurements.items()} == known
    assert len({uuid.UUID(one.id) for one in objects}) == store.count


def test_the_same_nuclei_have_the_same_ids(store: NucleiStore, tmp_path: Path) -> None:
    other = NucleiStore.create(tmp_path / "b.nuclei", store.run)
    fill_store(other, other.missing()[::-1]).finish(notes={"engine": "torch f32"})
    first, second = export_store(store, "geojson", tmp_path / "a.geojson"), export_store(other, "geojson")
    assert second == tmp_path / "b.geojson"
    assert first.read_bytes() == second.read_bytes()
    packed = [export_store(one, "geojson.gz", tmp_path / f"{k}.geojson.gz") for k, one in enumerate((store, other))]
    assert packed[0].read_bytes() == packed[1].read_bytes()
    assert gzip.decompress(packed[0].read_bytes()) == first.read_bytes()
    third = make_store(tmp_path / "c.nuclei", small_run(fingerprint="5" * 64))
    ids = {one.id for one in read_objects(export_store(third, "geojson"))}
    assert not ids & {one.id for one in read_objects(first)}  # of another slide


def test_geojson_says_what_it_is_of(store: NucleiStore, tmp_path: Path) -> None:
    plain, canvas = (
        json.loads(export_store(store, "geojson", tmp_path / "a.geojson", canvas=canvas).read_text(encoding="utf-8"))
        for canvas in (False, True)
    )
    assert plain["hemalum"]["mpp"] == 0.25
    assert plain["hemalum"]["engine"] == "torch f32"
    assert plain["hemalum"]["shape"] == [480, 720]
    assert "complete" not in plain["hemalum"]
    assert canvas["hemalum"]["offset"] == [1000, 2000]
    points = [np.array(one["features"][7]["geometry"]["coordinates"][0]) for one in (plain, canvas)]
    np.testing.assert_allclose(points[1] - points[0], np.broadcast_to([1000, 2000], points[0].shape), atol=1.1e-3)


def test_graded_nuclei_have_their_grade_as_class(tmp_path: Path) -> None:
    graded = make_store(tmp_path / "a.nuclei", small_run(dab=True, positive=(0.25,)))
    path = export_store(graded, "geojson")
    for one, row in zip(read_objects(path), rows(graded), strict=True):
        assert one.class_name == f"{row['class']}: {row['intensity']}"
        assert one.color == INTENSITIES[row["intensity"]]
        assert one.measurements["Nucleus: DAB OD mean"] == pytest.approx(row["dab_mean"])
    counts = json.loads(path.read_text(encoding="utf-8"))["hemalum"]["ihc"]["counts"]
    assert counts["Positive"] == sum(row["intensity"] == "Positive" for row in rows(graded))


def test_simplified_outlines_have_fewer_points(store: NucleiStore, tmp_path: Path) -> None:
    path = export_store(store, "geojson", tmp_path / "a.geojson", simplify=1.0)
    for one, row in zip(read_objects(path), rows(store), strict=True):
        outline = shapely.from_wkb(row["geometry"])
        ring = one.polygons[0][0]
        assert len(ring) < len(shapely.get_coordinates(outline))
        points = shapely.points(shapely.get_coordinates(outline))
        assert shapely.distance(points, shapely.LinearRing(ring)).max() < 1.001


def exported(columns: list[str]) -> list[str]:
    """What the columns of a store are called outside."""
    positions = ["x_px", "y_px", "x_um", "y_um"]
    return ["image", "id", *positions, *(c for c in columns if c not in ("id", "x", "y")), "mpp", "mpp_source"]


def test_csv(store: NucleiStore) -> None:
    path = export_store(store, "csv")
    assert path == store.path.with_name("slide.csv")
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    expected = rows(store)
    assert [int(line["id"]) for line in lines] == [row["id"] for row in expected]
    assert list(lines[0]) == exported([name for name in store.schema.names if name not in ("bbox", "geometry")])
    assert {(line["image"], line["mpp"], line["mpp_source"]) for line in lines} == {("slide.svs", "0.25", "file")}
    assert [float(line["x_um"]) for line in lines] == pytest.approx([row["x"] / 4 for row in expected], abs=1e-4)
    assert [np.float32(line["area_um2"]) for line in lines] == [row["area_um2"] for row in expected]
    assert [line["class"] for line in lines] == [row["class"] for row in expected]


def test_parquet_is_one_geoparquet_file(store: NucleiStore) -> None:
    path = export_store(store, "parquet")
    table = pa.parquet.read_table(path)
    assert table.column_names == exported(store.schema.names)
    same = [name for name in store.schema.names if name not in ("x", "y")]
    expected = [{name: row[name] for name in same} for row in rows(store)]
    assert table.select(same).to_pylist() == expected
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["columns"]["geometry"]["bbox"] == pytest.approx(
        shapely.total_bounds(shapely.from_wkb(table.column("geometry").to_pylist()))
    )
    assert json.loads(table.schema.metadata[b"hemalum"])["model"] == "fast"


@pytest.mark.fault
def test_label_image(store: NucleiStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemalum.nuclei.store.label_image.CHUNK", 200)
    monkeypatch.setattr("hemalum.nuclei.store.label_image.SMALLEST", 200)
    path = export_store(store, "ome-zarr")
    group = zarr.open_group(path, mode="r")
    ome = group.attrs["ome"]
    (multiscale,) = ome["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["y", "x"]
    scales = [dataset["coordinateTransformations"][0]["scale"] for dataset in multiscale["datasets"]]
    assert scales == [[0.25, 0.25], [0.5, 0.5], [1.0, 1.0]]
    nuclei = store.nuclei()
    ids = np.array([0, *sorted(row["id"] for row in rows(store))])
    expected = ids[nuclei.label_map()]
    for number in range(3):
        level = group[str(number)]
        assert level.dtype == np.uint32
        np.testing.assert_array_equal(level[:], expected[:: 2**number, :: 2**number])
    with pytest.raises(HemalumError, match="is there already; remove it or name another"):
        export_store(store, "ome-zarr")


def check_frame(frame: Any, store: NucleiStore) -> None:
    expected = rows(store)
    assert frame.index.name == "id"
    assert frame.index.tolist() == [row["id"] for row in expected]
    assert [shapely.to_wkb(shape) for shape in frame.geometry] == [row["geometry"] for row in expected]
    assert frame["class"].tolist() == [row["class"] for row in expected]
    assert frame["area_um2"].tolist() == [row["area_um2"] for row in expected]


def test_spatialdata_folder(store: NucleiStore) -> None:
    geopandas = pytest.importorskip("geopandas")
    path = export_store(store, "spatialdata")
    group = json.loads((path / "shapes/nuclei/zarr.json").read_text())
    assert group["attributes"]["encoding-type"] == "ngff:shapes"
    outputs = [one["output"]["name"] for one in group["attributes"]["coordinateTransformations"]]
    assert outputs == ["global", "microns"]
    check_frame(geopandas.read_parquet(path / "shapes/nuclei/shapes.parquet"), store)


def test_spatialdata_itself_reads_it(store: NucleiStore, tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    nuclei = spatialdata.read_zarr(export_store(store, "spatialdata", tmp_path / "a.zarr"))["nuclei"]
    check_frame(nuclei, store)


@pytest.mark.fault
def test_thumbnail(store: NucleiStore, tmp_path: Path) -> None:
    picture = np.full((120, 180, 3), (200, 100, 100), np.uint8)
    drawn = np.asarray(Image.open(export_store(store, "thumbnail", tmp_path / "a.png", picture=picture))).astype(int)
    assert drawn.shape == picture.shape
    nuclei = store.nuclei()
    at = (nuclei.table["y"].to_numpy() / 4).astype(int), (nuclei.table["x"].to_numpy() / 4).astype(int)
    numbers = nuclei.classes
    assert numbers is not None
    colors = np.rint(np.array([200, 100, 100]) * 0.4 + np.array([class_color(n) for n in numbers.numbers]) * 0.6)
    inside = (np.array(at) < np.array([[120], [180]])).all(axis=0)
    same = (drawn[at[0][inside], at[1][inside]] == colors[inside]).all(axis=1)
    assert same.mean() > 0.95  # where two meet in a pixel, one of them shows
    assert (drawn == picture).all(axis=2).any()
    small = np.asarray(Image.open(export_store(store, "thumbnail", tmp_path / "b.png")))
    assert small.shape == (480, 720, 3)
    with pytest.raises(HemalumError, match="the picture is 100 x 100 px and the slide 720 x 480"):
        export_store(store, "thumbnail", tmp_path / "c.png", picture=picture[:100, :100])


@pytest.mark.parametrize("format", list(EXPORTS))
def test_without_nuclei_there_is_a_valid_file(format: str, tmp_path: Path) -> None:
    empty = NucleiStore.create(tmp_path / "a.nuclei", small_run())
    empty.finish([])
    path = export_store(empty, format)
    if format.startswith("geojson"):
        assert list(read_objects(path)) == []
    elif format == "csv":
        with path.open(newline="", encoding="utf-8") as stream:
            lines = list(csv.reader(stream))
        assert lines == [exported([name for name in empty.schema.names if name not in ("bbox", "geometry")])]
    elif format in ("parquet", "spatialdata"):
        table = pa.parquet.read_table(path / "shapes/nuclei/shapes.parquet" if path.is_dir() else path)
        assert table.num_rows == 0
        assert table.column_names == (exported(empty.schema.names) if format == "parquet" else empty.schema.names)
        assert json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]["encoding"] == "WKB"
    elif format == "ome-zarr":
        level = zarr.open_group(path, mode="r")["0"]
        assert level.shape == empty.run.shape
        assert not level[:].any()
    elif format == "labels":
        labels = tifffile.imread(path)
        assert labels.shape == empty.run.shape
        assert not labels.any()
    elif format == "overlay":
        drawn = np.asarray(Image.open(path))
        assert (drawn[:480] == 255).all()  # below it is the legend
    else:
        drawn = np.asarray(Image.open(path))
        assert drawn.shape == (480, 720, 3)
        assert (drawn == 255).all()


@pytest.mark.fault
@pytest.mark.parametrize("format", list(EXPORTS))
def test_a_damaged_part_leaves_no_file(format: str, tmp_path: Path) -> None:
    broken = make_store(tmp_path / "a.nuclei")
    broken.part_path((1, 1)).write_bytes(b"PAR1")
    with pytest.raises(HemalumError, match=r"1_1.parquet: is damaged"):
        export_store(broken, format)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nuclei"]


def test_progress_and_an_unfinished_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    some = fill_store(NucleiStore.create(tmp_path / "a.nuclei", small_run()), [(0, 0), (0, 1)])
    shares: list[float] = []
    with caplog.at_level("WARNING"):
        path = export_store(some, "geojson", on_progress=shares.append)
    assert shares == [0.5, 1.0]
    assert "the run is not complete; what is written are the 2 regions that are there" in caplog.text
    assert json.loads(path.read_text(encoding="utf-8"))["hemalum"]["complete"] is False


@pytest.mark.fault
def test_unknown_words(store: NucleiStore, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="unknown format 'geojon', did you mean 'geojson'"):
        export_store(store, "geojon")
    with pytest.raises(HemalumError, match="objects of kind 'cell'; known: annotation, detection"):
        export_store(store, "geojson", tmp_path / "a.geojson", kind="cell")
    assert not list(tmp_path.iterdir())


@pytest.mark.fault
@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("csv", {"kind": "annotation"}, "kind is for geojson and geojson.gz; csv has no use for it"),
        ("parquet", {"simplify": 0.5}, "simplify is for geojson"),
        ("spatialdata", {"canvas": True}, "canvas is for geojson"),
        (
            "geojson",
            {"picture": np.zeros((480, 720, 3), np.uint8)},
            "picture is for thumbnail and overlay; geojson",
        ),
    ],
)
def test_an_option_of_another_format(
    format: str, options: dict[str, Any], message: str, store: NucleiStore, tmp_path: Path
) -> None:
    with pytest.raises(HemalumError, match=message):
        export_store(store, format, tmp_path / "a", **options)
    assert not list(tmp_path.iterdir())
