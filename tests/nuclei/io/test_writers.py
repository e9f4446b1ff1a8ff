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
from numpy.typing import NDArray
from PIL import Image

from hemalum.errors import HemalumError
from hemalum.nuclei.io.geojson import read_note, write_geojson
from hemalum.nuclei.io.overlay import COLOR, draw_legend, draw_outlines
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import measure
from hemalum.nuclei.polygons import Polygons
from hemalum.reports.files import write_csv


def blocks(rows: int = 6, columns: int = 7, size: int = 9, gap: int = 3) -> NDArray[np.int32]:
    labels = np.zeros((rows * (size + gap), columns * (size + gap)), np.int32)
    for n in range(rows * columns):
        y, x = n // columns * (size + gap), n % columns * (size + gap)
        labels[y : y + size - n % 3, x : x + size] = n + 1
    return labels


@pytest.fixture
def labels() -> NDArray[np.int32]:
    return blocks()


@pytest.fixture
def image(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(60, 240, (*labels.shape, 3)).astype(np.uint8)


@pytest.fixture
def nuclei(labels: NDArray[np.int32], image: NDArray[np.uint8]) -> Nuclei:
    return Nuclei.from_labels(labels, image, mpp=0.25, source="slide é.png")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))


def test_geojson_gives_the_polygons_back(nuclei: Nuclei, tmp_path: Path) -> None:
    path = tmp_path / "out.geojson"
    nuclei.to_geojson(path)
    geometries = shapely.from_geojson(json.dumps(read(path)))
    assert len(geometries.geoms) == nuclei.count
    expected = nuclei.polygons()
    assert shapely.is_valid(geometries)
    assert all(a.equals_exact(b, 0.0006) for a, b in zip(geometries.geoms, expected, strict=True))


def test_geojson_has_what_qupath_reads(nuclei: Nuclei, tmp_path: Path) -> None:
    path = tmp_path / "out.geojson"
    nuclei.to_geojson(path)
    document = read(path)
    assert document["type"] == "FeatureCollection"
    assert document["hemalum"]["mpp"] == 0.25
    assert document["hemalum"]["mpp_source"] == "user"
    assert document["hemalum"]["source"] == "slide é.png"
    rows = nuclei.table.to_pylist()
    ids = set()
    for feature, row in zip(document["features"], rows, strict=True):
        assert feature["type"] == "Feature"
        ids.add(uuid.UUID(feature["id"]))
        ring = feature["geometry"]["coordinates"][0]
        assert feature["geometry"]["type"] == "Polygon"
        assert ring[0] == ring[-1]
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        assert properties["classification"]["name"] == "Nucleus"
        assert len(properties["classification"]["color"]) == 3
        measured = properties["measurements"]
        assert np.float32(measured["Area µm^2"]) == row["area_um2"]
        assert np.float32(measured["Hematoxylin OD mean"]) == row["hematoxylin_mean"]
        assert "Probability" not in measured  # unknown for labels from elsewhere
    assert len(ids) == nuclei.count


def test_geojson_of_one_result_is_one_file(nuclei: Nuclei, tmp_path: Path) -> None:
    nuclei.to_geojson(tmp_path / "a.geojson")
    nuclei.to_geojson(tmp_path / "b.geojson")
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_geojson_leaves_out_a_single_unknown_value(nuclei: Nuclei, tmp_path: Path) -> None:
    values = nuclei.table["solidity"].to_numpy().copy()
    values[3] = np.nan
    table = nuclei.table.set_column(nuclei.table.column_names.index("solidity"), "solidity", pyarrow.array(values))
    write_geojson(tmp_path / "a.geojson", nuclei.outlines, table, image=b"")
    features = read(tmp_path / "a.geojson")["features"]
    known = ["Solidity" in feature["properties"]["measurements"] for feature in features]
    assert known == [i != 3 for i in range(nuclei.count)]
    assert "Circularity" in features[3]["properties"]["measurements"]


@pytest.mark.parametrize(
    "value", [0, 0.01, 0.1, 0.5, 9.99, 10, 99.994, 99.995, 100, 12345.67, 131071.99, -0.01, -10.5]
)
def test_coordinates_are_written_to_a_thousandth(value: float, tmp_path: Path) -> None:
    coords = np.array([[value, 0], [value + 1, 0], [value, 2], [value, 0]], np.float32)
    table = pyarrow.table({"id": [1]})
    write_geojson(tmp_path / "a.geojson", Polygons(coords, np.array([0, 4])), table, image=b"")
    ring = read(tmp_path / "a.geojson")["features"][0]["geometry"]["coordinates"][0]
    assert ring[0][0] == pytest.approx(float(np.float32(value)), abs=0.000501)
    assert round(ring[0][0], 3) == ring[0][0]


def test_geojson_of_many_batches(tmp_path: Path) -> None:
    nuclei = Nuclei.from_labels(np.kron(np.eye(100, dtype=np.int32).repeat(2, 0)[::2], np.ones((3, 3), int)))
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 0]], np.float32)
    n = 9000
    coords = (square[None] + np.arange(n)[:, None, None]).reshape(-1, 2).astype(np.float32)
    table = nuclei.table.take(np.zeros(n, int))
    write_geojson(tmp_path / "a.geojson", Polygons(coords, 4 * np.arange(n + 1)), table, image=b"")
    features = read(tmp_path / "a.geojson")["features"]
    assert [f["geometry"]["coordinates"][0][0][0] for f in features] == list(range(n))


@pytest.mark.parametrize("simplify", [0.5, 1.0])
def test_simplified_geojson_has_fewer_points_and_none_far_off(tmp_path: Path, simplify: float) -> None:
    y, x = np.indices((120, 150)) % 30 - 15
    rows, columns = np.indices((120, 150)) // 30
    number = 5 * rows + columns + 1
    nuclei = Nuclei.from_labels(np.where(y**2 + (1 + rows / 4) * x**2 < (3 + number / 2) ** 2, number, 0))
    nuclei.to_geojson(tmp_path / "a.geojson")
    nuclei.to_geojson(tmp_path / "b.geojson", simplify=simplify)
    assert (tmp_path / "b.geojson").stat().st_size < (tmp_path / "a.geojson").stat().st_size
    full, fewer = (
        [shapely.Polygon(one["geometry"]["coordinates"][0]) for one in read(tmp_path / name)["features"]]
        for name in ("a.geojson", "b.geojson")
    )
    assert shapely.is_valid(fewer).all()
    rounded = 2 * 0.5e-3 * 2**0.5  # each file to a thousandth of a px
    assert 0.1 * simplify < shapely.hausdorff_distance(full, fewer).max() <= simplify + rounded
    assert read(tmp_path / "b.geojson")["hemalum"]["simplify_px"] == simplify
    measured = [
        [one["properties"]["measurements"] for one in read(tmp_path / name)["features"]]
        for name in ("a.geojson", "b.geojson")
    ]
    assert measured[0] == measured[1]


@pytest.mark.fault
@pytest.mark.parametrize("simplify", [-0.5, float("nan"), float("inf")])
def test_outlines_are_moved_by_a_number_of_pixels(nuclei: Nuclei, tmp_path: Path, simplify: float) -> None:
    with pytest.raises(HemalumError) as caught:
        nuclei.to_geojson(tmp_path / "a.geojson", simplify=simplify)
    assert str(caught.value) == (f"`simplify` is {simplify:g}: want px by which an outline may be moved, 0 or more")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"no JSON",
        b'{"hemalum":1,"features":[',
        b'{"type":"FeatureCollection","features":[]}',
        b'\xff,"features":[',
    ],
)
def test_a_file_of_another_program_has_no_note(tmp_path: Path, content: bytes) -> None:
    for name in ("a.geojson", "a.geojson.gz"):
        (tmp_path / name).write_bytes(content)
        assert read_note(tmp_path / name) == {}


def exported(columns: list[str]) -> list[str]:
    """What the columns of a table are called outside."""
    positions = ["x_px", "y_px", "x_um", "y_um"]
    others = [name for name in columns if name not in ("id", "x", "y")]
    return ["image", "id", *positions, *others, "mpp", "mpp_source"]


def test_csv(nuclei: Nuclei, tmp_path: Path) -> None:
    nuclei.to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == exported(nuclei.table.column_names)
    for row, expected in zip(rows, nuclei.table.to_pylist(), strict=True):
        assert (row["image"], row["mpp"], row["mpp_source"]) == ("slide é.png", "0.25", "user")
        assert [float(row[name]) for name in ("x_px", "y_px")] == [expected["x"], expected["y"]]
        assert float(row["x_um"]) == pytest.approx(expected["x"] / 4, abs=1e-4)
        assert float(row["y_um"]) == pytest.approx(expected["y"] / 4, abs=1e-4)
        assert row["id"] == str(expected["id"])
        assert float(row["area_um2"]) == pytest.approx(expected["area_um2"])
        assert row["probability"] == ""


def test_parquet_has_table_outlines_and_scale(nuclei: Nuclei, tmp_path: Path) -> None:
    nuclei.to_parquet(tmp_path / "a.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == [*exported(nuclei.table.column_names), "polygon"]
    same = [name for name in nuclei.table.column_names if name not in ("x", "y")]
    assert table.select(same).equals(nuclei.table.select(same))
    ring = np.array(table["polygon"][5].as_py()).reshape(-1, 2)
    np.testing.assert_array_equal(
        ring, nuclei.outlines.coords[nuclei.outlines.offsets[5] : nuclei.outlines.offsets[6]]
    )
    assert table.schema.metadata[b"hemalum.mpp"] == b"0.25"
    assert table.schema.metadata[b"hemalum.mpp_source"] == b"user"


def test_every_table_names_its_image_and_without_a_scale_has_no_microns(nuclei: Nuclei, tmp_path: Path) -> None:
    plain = replace(nuclei, source="a folder/b \udce9.png", mpp=None, mpp_source="none")
    plain.to_csv(tmp_path / "a.csv")
    plain.to_csv(tmp_path / "b.csv", image="sub/b.png")
    for name, image in (("a", "b \\udce9.png"), ("b", "sub/b.png")):
        with (tmp_path / f"{name}.csv").open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert {row["image"] for row in rows} == {image}
        assert {(row["x_um"], row["y_um"], row["mpp"], row["mpp_source"]) for row in rows} == {("", "", "", "none")}


def test_an_estimated_scale_is_marked_in_every_file(nuclei: Nuclei, tmp_path: Path) -> None:
    guess = replace(nuclei, mpp_source="estimate")
    guess.to_geojson(tmp_path / "a.geojson")
    measured = json.loads((tmp_path / "a.geojson").read_text())["features"][0]["properties"]["measurements"]
    assert "Area µm^2 (estimated scale)" in measured
    assert "Area px^2" in measured
    assert not [name for name in measured if "µm" in name and not name.endswith("(estimated scale)")]
    guess.to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8") as stream:
        assert {row["mpp_source"] for row in csv.DictReader(stream)} == {"estimate"}
    guess.to_labels(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert (file.pages[0].resolution, file.pages[0].resolutionunit) == ((1, 1), 1)
        assert file.pages[0].description == "about 0.25 um per px, estimated from the nuclei"


def test_label_tiff(nuclei: Nuclei, labels: NDArray[np.int32], tmp_path: Path) -> None:
    nuclei.to_labels(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages[0]
        assert page.dtype == np.uint16
        assert page.compression == 8  # Adobe deflate
        numerator, denominator = page.tags["XResolution"].value
        assert numerator / denominator == pytest.approx(40_000)  # px per cm at 0.25 µm/px
        assert (page.asarray() == labels).all()


def test_label_tiff_keeps_ids_beyond_16_bits(tmp_path: Path) -> None:
    labels = np.zeros((540, 540), np.uint32)
    labels[::2, ::2] = np.arange(1, 270 * 270 + 1).reshape(270, 270)
    Nuclei.from_labels(labels).to_labels(tmp_path / "a.tif")
    assert tifffile.imread(tmp_path / "a.tif").max() == 72_900


def test_overlay_draws_on_edges_only(
    nuclei: Nuclei, labels: NDArray[np.int32], image: NDArray[np.uint8], tmp_path: Path
) -> None:
    nuclei.to_overlay(tmp_path / "a.png", image)
    drawn = np.asarray(Image.open(tmp_path / "a.png"))
    changed = (drawn != image).any(-1)
    assert (drawn[changed] == COLOR).all()
    assert not changed[labels == 0].any()
    assert changed[7, 14]  # the last row of the second block
    assert not changed[0, 14]  # where the image cuts a nucleus there is no edge of it


@pytest.mark.parametrize("classified", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 71])
def test_overlay_by_bands_is_that_of_the_image(
    rows: int, classified: bool, labels: NDArray[np.int32], image: NDArray[np.uint8], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    names = ("a", "b") if classified else ()
    class_map = np.where(labels > 0, labels % 2 + 1, 0).astype(np.float32)
    part = measure(labels, class_map=class_map if classified else None)
    nuclei = Nuclei.from_parts([part], shape=labels.shape, class_names=names)
    asked: list[int] = []

    def read(start: int, stop: int) -> NDArray[np.uint8]:
        asked.append(stop - start)
        return image[start:stop]

    monkeypatch.setattr("hemalum.nuclei.io.overlay.BAND", rows * labels.shape[1])
    nuclei.to_overlay(tmp_path / "a.png", read)
    expected = draw_outlines(image, nuclei.label_map(), classes=nuclei.classes)
    if nuclei.classes is not None:
        expected = np.concatenate([expected, draw_legend(labels.shape[1], nuclei.classes)])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), expected)
    assert max(asked) <= rows + 2  # with a row on each side


def test_overlay_of_one_block_by_hand() -> None:
    labels = np.zeros((7, 7), np.uint32)
    labels[1:6, 1:6] = 4
    drawn = draw_outlines(np.zeros((7, 7, 3), np.uint8), labels, color=(1, 2, 3))
    ring = np.zeros((7, 7), bool)
    ring[1:6, 1:6] = True
    ring[2:5, 2:5] = False
    assert ((drawn == (1, 2, 3)).all(-1) == ring).all()
    assert (drawn[~ring] == 0).all()


def test_overlay_has_one_line_between_touching_nuclei() -> None:
    labels = np.ones((5, 8), np.uint32)
    labels[:, 4:] = 2
    drawn = draw_outlines(np.zeros((5, 8, 3), np.uint8), labels)
    assert drawn.any(-1).any(0).tolist() == [False, False, False, True, False, False, False, False]


@pytest.mark.fault
def test_overlay_of_another_image_is_refused(nuclei: Nuclei, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"image is \(4, 4, 3\); the nuclei are of"):
        nuclei.to_overlay(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["to_geojson", "to_csv", "to_parquet", "to_labels"])
def test_empty_results_are_written(verb: str, tmp_path: Path) -> None:
    getattr(Nuclei.from_labels(np.zeros((5, 6), int)), verb)(tmp_path / "out.x")
    assert (tmp_path / "out.x").stat().st_size > 0


@pytest.mark.fault
@pytest.mark.parametrize("verb", ["to_geojson", "to_csv", "to_parquet", "to_labels", "to_overlay"])
def test_folder_that_cannot_be_made_is_one_line(
    verb: str, nuclei: Nuclei, image: NDArray[np.uint8], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    extra = [image] if verb == "to_overlay" else []
    with pytest.raises(HemalumError, match="file"):
        getattr(nuclei, verb)(tmp_path / "file" / "out.x", *extra)


def test_failure_leaves_the_old_file(nuclei: Nuclei, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nuclei.to_geojson(tmp_path / "a.geojson")
    before = (tmp_path / "a.geojson").read_bytes()
    monkeypatch.setattr("hemalum.nuclei.io.geojson._write_features", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        nuclei.to_geojson(tmp_path / "a.geojson")
    assert (tmp_path / "a.geojson").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.geojson"]


@pytest.mark.fault
def test_no_cell_of_a_table_is_computed_by_a_spreadsheet(tmp_path: Path) -> None:
    """Names of classes come from the file of a model, which may be anybody's."""
    names = ("=HYPERLINK(1)", "+x", "-x", "@x", "\tx", "plain", "a=b")
    labels = np.zeros((30, 30), np.int32)
    class_map = np.zeros((30, 30), np.float32)
    for number in range(len(names)):
        labels[4 * number : 4 * number + 3, 3:9] = number + 1
        class_map[labels == number + 1] = number + 1
    part = measure(labels, class_map=class_map)
    nuclei = Nuclei.from_parts([part], shape=labels.shape, class_names=names)
    nuclei.to_csv(tmp_path / "n.csv")
    with (tmp_path / "n.csv").open(newline="", encoding="utf-8") as stream:
        written = [row["class"] for row in csv.DictReader(stream)]
    assert written == ["'=HYPERLINK(1)", "'+x", "'-x", "'@x", "'\tx", "plain", "a=b"]
    assert nuclei.table.column("class").to_pylist() == list(names)  # nothing else is changed
    write_csv(tmp_path / "rows.csv", [{"a": "=1", "b": -1.5, "c": None, "d": "3+"}])
    assert (tmp_path / "rows.csv").read_text().splitlines()[1] == "'=1,-1.5,,3+"


@pytest.mark.fault
@pytest.mark.parametrize("simplify", ["x", None, True, [1]])
def test_a_tolerance_that_is_no_number_is_refused_in_a_line(nuclei: Nuclei, tmp_path: Path, simplify: Any) -> None:
    with pytest.raises(HemalumError, match=r"^simplify is .*: want (one|a) number$"):
        nuclei.to_geojson(tmp_path / "a.geojson", simplify=simplify)
