"""Objects of QuPath, and the dataset that is made of them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from PIL import Image

from builders.stores import make_store
from hemalum.data.annotations import read_drawing, read_objects, tell_apart
from hemalum.data.importing import import_dataset
from hemalum.errors import HemalumError
from hemalum.nuclei.io import read_features
from hemalum.nuclei.store import export_store
from hemalum.slides import open_slide

DATA = Path(os.environ.get("HEMALUM_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def feature(kind: str, ring: list[list[float]], name: str | None = None, **members: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": kind}
    if name is not None:
        properties["classification"] = {"name": name, "color": [200, 0, 0]}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": properties} | members


def write(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """600 x 400 px with noise, so that no two places look alike."""
    pixels = np.random.default_rng(0).integers(60, 200, (400, 600, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "slide.png")
    return tmp_path / "slide.png"


def test_both_ways_of_qupath_to_write_colors_and_measurements(tmp_path: Path) -> None:
    old = feature("detection", square(0, 0, 9))
    old["properties"] |= {
        "classification": {"name": "Tumor", "colorRGB": -3670016},
        "measurements": [{"name": "Area", "value": 81}, {"name": "Mean", "value": 0.25}],
    }
    new = feature("detection", square(20, 0, 9))
    new["properties"] |= {
        "classification": {"names": ["Tumor", "Positive"], "color": [200, 0, 0]},
        "measurements": {"Area": 81, "Mean": 0.25, "Note": "text"},
    }
    first, second = read_objects(write(tmp_path / "a.geojson", old, new | {"id": "7"}))
    assert first.measurements == second.measurements == {"Area": 81, "Mean": 0.25}
    assert first.color == second.color == (200, 0, 0)
    assert (first.class_name, second.class_name) == ("Tumor", "Tumor: Positive")
    assert (first.id, second.id) == (None, "7")


def test_a_real_file_reads_as_an_independent_parse_says() -> None:
    path = DATA / "formats/qupath/annotations_with_classes.geojson"
    if not path.is_file():
        pytest.skip(f"no {path}: set HEMALUM_TEST_DATA")
    features = json.loads(path.read_text())["features"]
    objects = list(read_objects(path))
    assert len(objects) == len(features) == 423
    for one, original in zip(objects, features, strict=True):
        assert one.id == original["id"]
        assert one.class_name == original["properties"]["classification"]["name"]
        assert list(one.color or ()) == original["properties"]["classification"]["color"]
        shape = shapely.from_geojson(json.dumps(original["geometry"]))
        got = shapely.MultiPolygon([(polygon[0], polygon[1:]) for polygon in one.polygons])
        assert got.normalize().equals_exact(
            shapely.MultiPolygon([shape] if shape.geom_type == "Polygon" else shape).normalize(), tolerance=0
        )


def test_regions_are_the_annotations_beside_detections(tmp_path: Path) -> None:
    line = feature("annotation", []) | {"geometry": {"type": "LineString", "coordinates": [[0, 0], [5, 5]]}}
    path = write(
        tmp_path / "a.geojson", feature("annotation", square(0, 0, 50)), line, feature("cell", square(3, 3, 9))
    )
    drawing = read_drawing(path)
    nuclei, regions, frames, _, left_out = tell_apart(drawing, None)
    assert left_out == {"region": 1, "point or line": 1}
    assert (nuclei.names, regions.names, frames.names) == (["feature 3"], ["feature 1"], ["feature 1"])
    alone = tell_apart(read_drawing(write(path, feature("annotation", square(0, 0, 50)))), None)
    assert (len(alone.nuclei), len(alone.regions)) == (1, 0)


def test_an_image_of_annotations(image: Path, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.geojson",
        feature("annotation", square(10, 20, 30), "stroma"),
        feature("annotation", square(100, 20, 20), "Nucleus"),
        feature("annotation", square(590, 390, 10), "epithelial"),
    )
    (sample,) = import_dataset("qupath", path, tmp_path / "set", image=image, mpp=0.25)
    assert np.array_equal(sample.image, np.asarray(Image.open(image)))
    expected = np.zeros((400, 600), int)
    expected[20:50, 10:40], expected[20:40, 100:120], expected[390:, 590:] = 1, 2, 3
    np.testing.assert_array_equal(sample.instances, expected)
    dataset = import_dataset("qupath", path, tmp_path / "set", image=image, mpp=0.25, overwrite=True)
    assert dataset.info.classes == {1: "epithelial", 2: "stroma"}
    assert sample.classes is not None
    assert sample.classes.tolist() == [0, 2, 0, 1]
    assert sample.id == "slide_0_0"
    assert sample.source == "slide"


def test_large_images_are_cut_into_tiles_with_nuclei(image: Path, tmp_path: Path) -> None:
    squares = [(10, 10), (195, 95), (590, 390)]
    path = write(tmp_path / "a.geojson", *(feature("detection", square(x, y, 10)) for x, y in squares))
    with open_slide(image, mpp=0.25) as slide:
        dataset = import_dataset("qupath", path, tmp_path / "set", image=slide, tile=100, group="image")
        pixels = np.asarray(Image.open(image))
        covered = np.zeros((400, 600), int)
        for sample in dataset:
            x, y = map(int, sample.id.split("_")[1:])
            assert sample.image.shape == (100, 100, 3)
            assert np.array_equal(sample.image, pixels[y : y + 100, x : x + 100])
            covered[y : y + 100, x : x + 100] = sample.instances
            assert sample.mpp == 0.25
    assert {sample.id for sample in dataset} == {
        "slide_0_0", "slide_100_0", "slide_200_0", "slide_100_100", "slide_200_100", "slide_500_300",
    }  # fmt: skip
    expected = np.zeros((400, 600), bool)
    for x, y in squares:
        expected[y : y + 10, x : x + 10] = True
    np.testing.assert_array_equal(covered > 0, expected)


def test_regions_are_cut_out_and_white_around(image: Path, tmp_path: Path) -> None:
    triangle = [[300.0, 100.0], [400.0, 100.0], [300.0, 200.0], [300.0, 100.0]]
    path = write(
        tmp_path / "a.geojson",
        feature("annotation", square(0, 0, 80)),
        feature("annotation", triangle),
        feature("detection", square(10, 10, 10)),
        feature("detection", square(310, 110, 10)),
        feature("detection", square(385, 185, 10)),  # in the box of the triangle, not in it
        feature("detection", square(500, 300, 10)),
    )
    first, second = import_dataset("qupath", path, tmp_path / "set", image=image, mpp=0.5)
    assert (first.id, second.id) == ("slide_region1_0_0", "slide_region2_300_100")
    assert first.image.shape == (80, 80, 3)
    assert first.instances.max() == second.instances.max() == 1
    assert second.instances[10:20, 10:20].all()
    rows, columns = np.mgrid[:100, :100] + 0.5
    outside = rows + columns > 100.5
    assert (second.image[outside] == 255).all()
    pixels = np.asarray(Image.open(image))[100:200, 300:400]
    assert np.array_equal(second.image[rows + columns < 99.5], pixels[rows + columns < 99.5])


def test_a_store_goes_out_to_qupath_and_comes_back_as_labels(tmp_path: Path) -> None:
    store = make_store(tmp_path / "slide.nuclei")
    Image.fromarray(np.full((*store.run.shape, 3), 230, np.uint8)).save(tmp_path / "slide.png")
    for kind in ("detection", "annotation"):
        path = export_store(store, "geojson", tmp_path / "a.geojson", kind=kind)
        (sample,) = import_dataset("qupath", path, tmp_path / kind, image=tmp_path / "slide.png", mpp=0.25)
        drawn = store.nuclei().label_map()
        assert (
            (sample.instances > 0) == (drawn > 0)
        ).mean() > 0.9999  # a thousandth of a px may move a pixel's center
        assert len(np.unique(sample.instances)) == len(np.unique(drawn))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": None}, "name the image that the objects are of"),
        ({"tile": 10}, "tile 10: at least 64 px"),
        ({"tile": "abc"}, "option tile is 'abc'; want a whole number"),
        ({"tile": True}, "option tile is True; want a whole number"),
        ({"class_names": "stroma"}, "feature 1: class 'tumor' is not among class_names stroma"),
        ({"image": "none.png"}, "none.png"),
        ({"wrong": 1}, "format qupath has no option 'wrong'; it has image, tile, class_names"),
    ],
)
def test_bad_imports(options: dict[str, Any], message: str, image: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.geojson", feature("annotation", square(10, 20, 30), "tumor"))
    with pytest.raises(HemalumError, match=message):
        import_dataset("qupath", path, tmp_path / "set", **({"image": image} | options))
    assert not (tmp_path / "set").exists()


@pytest.mark.fault
def test_objects_of_another_image_are_refused(image: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.geojson", feature("detection", square(10, 20, 700)))
    with pytest.raises(HemalumError, match="feature 1: the polygon spans x 10 to 710, y 20 to 720, its image is 600"):
        import_dataset("qupath", path, tmp_path / "set", image=image)


def test_two_regions_may_begin_at_one_place(image: Path, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.geojson",
        feature("annotation", square(100, 100, 80)),
        feature("detection", square(110, 110, 10)),
        feature("annotation", square(100, 100, 120)),
    )
    samples = list(import_dataset("qupath", path, tmp_path / "set", image=image, mpp=0.5, tile="1024"))
    assert {sample.id: sample.image.shape[0] for sample in samples} == {
        "slide_region1_100_100": 80,
        "slide_region2_100_100": 120,
    }


@pytest.mark.fault
@pytest.mark.parametrize("x", [590, 700, -90, 1e300])
def test_regions_outside_the_image_are_refused(x: float, image: Path, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.geojson", feature("detection", square(10, 20, 9)), feature("annotation", square(x, 0, 50))
    )
    with pytest.raises(HemalumError, match=r"feature 2: the polygon spans x .*, its image is 600 x 400 px"):
        import_dataset("qupath", path, tmp_path / "set", image=image)


@pytest.mark.fault
def test_numbers_that_are_too_large(tmp_path: Path) -> None:
    huge = 10**400
    path = write(tmp_path / "a.geojson", feature("annotation", [[0, 0], [huge, 0], [0, 5], [0, 0]]))  # type: ignore[list-item]
    with pytest.raises(HemalumError, match=r"feature 1: coordinates are not rings .* of finite numbers"):
        list(read_objects(path))
    one = feature("annotation", square(0, 0, 9))
    one["properties"]["measurements"] = {"Area": huge}
    with pytest.raises(HemalumError, match="feature 1: a measurement is a larger number than there can be"):
        list(read_objects(write(path, one)))


def test_a_file_of_annotations_is_read_few_times(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[Path | str] = []

    def counted(path: Path | str) -> Any:
        passes.append(path)
        return read_features(path)

    monkeypatch.setattr("hemalum.data.annotations.qupath.read_features", counted)
    path = write(tmp_path / "a.geojson", feature("annotation", square(10, 20, 9), "stroma"))
    import_dataset("qupath", path, tmp_path / "set", image=image, mpp=0.5)
    assert len(passes) == 2  # names of the classes, and outlines


def test_regions_among_annotations_alone_are_cut_out(image: Path, tmp_path: Path) -> None:
    nuclei = [feature("annotation", square(x, 20, 12), "tumor") for x in range(10, 310, 20)]
    path = write(tmp_path / "a.geojson", feature("annotation", square(0, 0, 200), "Tissue"), *nuclei)
    dataset = import_dataset("qupath", path, tmp_path / "set", image=image, mpp=0.5)
    (sample,) = dataset
    assert (sample.image.shape, len(np.unique(sample.instances))) == ((200, 200, 3), 11)
    assert dataset.info.classes == {1: "tumor"}


def test_ignored_areas_are_not_annotated(image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    point = feature("annotation", []) | {"geometry": {"type": "Point", "coordinates": [5, 5]}}
    nuclei = [feature("detection", square(x, 20, 12)) for x in range(10, 310, 20)]
    path = write(tmp_path / "a.geojson", feature("annotation", square(0, 0, 60), "Ignore*"), point, *nuclei)
    (sample,) = import_dataset("qupath", path, tmp_path / "set", image=image, mpp=0.5)
    assert len(np.unique(sample.instances)) == 13
    assert sample.unannotated is not None
    assert np.count_nonzero(sample.unannotated) == 60 * 60
    assert f"{path}: left out, since it is no nucleus: 1 point or line" in caplog.messages
