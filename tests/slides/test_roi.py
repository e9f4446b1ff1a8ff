"""Regions of interest: what a user may name, and what is refused."""

import gzip
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from hemalum.errors import HemalumError
from hemalum.slides import Roi, find_roi, read_roi

SHAPE = (300, 400)  # height and width
SQUARE = [[10, 10], [110, 10], [110, 110], [10, 110], [10, 10]]
HOLE = [[40, 40], [80, 40], [80, 80], [40, 80], [40, 40]]


def feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation"} | properties}


def save(path: Path, *geometries: Any) -> Path:
    content = {"type": "FeatureCollection", "features": [feature(one) for one in geometries]}
    path.write_text(json.dumps(content))
    return path


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def inside(roi: Roi, *points: tuple[float, float]) -> list[bool]:
    x, y = np.array(points, np.float64).T
    return [bool(value) for value in roi.contains(x, y)]


def test_a_rectangle_counts_from_the_upper_left_corner() -> None:
    roi = read_roi("20,30,100,50", SHAPE)
    assert roi.area == 5000
    assert roi.name == "20,30,100,50"
    assert roi.geometry.bounds == (20, 30, 120, 80)
    assert inside(roi, (20.01, 30.01), (119.9, 79.9), (19.9, 50), (50, 80.1)) == [True, True, False, False]
    assert roi.meets(0, 0, 21, 31)
    assert not roi.meets(0, 0, 19, 400)


def test_what_lies_outside_the_slide_is_cut_off() -> None:
    assert read_roi("-50,-50,100,100", SHAPE).area == 2500
    assert read_roi("350,250,1000,1000", SHAPE).geometry.bounds == (350, 250, 400, 300)
    assert read_roi("-1e6,-1e6,1e7,1e7", SHAPE).area == 300 * 400


def test_all_areas_of_a_file_count_and_holes_do_not(tmp_path: Path) -> None:
    multi = {"type": "MultiPolygon", "coordinates": [[[[200, 10], [250, 10], [250, 60], [200, 10]]]]}
    overlapping = polygon([[100, 10], [150, 10], [150, 110], [100, 110], [100, 10]])
    roi = read_roi(save(tmp_path / "a.geojson", polygon(SQUARE, HOLE), multi, overlapping), SHAPE)
    assert roi.area == 100 * 100 - 40 * 40 + 50 * 50 / 2 + 40 * 100
    assert inside(roi, (20, 20), (60, 60), (240, 20), (105, 50), (110, 50), (300, 200)) == [
        True, False, True, True, True, False,
    ]  # fmt: skip
    assert not roi.meets(45, 45, 30, 30)
    with gzip.open(tmp_path / "b.geojson.gz", "wt") as file:
        file.write((tmp_path / "a.geojson").read_text())
    assert read_roi(str(tmp_path / "b.geojson.gz"), SHAPE).geometry.wkt == roi.geometry.wkt


def test_an_outline_along_the_edge_of_the_slide_leaves_areas_only(tmp_path: Path) -> None:
    """The part of it outside touches the slide along a line, which is no area."""
    outline = [[-50, 0], [50, -40], [50, 50], [0, 50], [0, 200], [-50, 200], [-50, 0]]
    roi = read_roi(save(tmp_path / "a.geojson", polygon(outline)), SHAPE)
    assert roi.geometry.geom_type == "Polygon"
    assert inside(roi, (25, 25), (0, 100)) == [True, False]


def test_it_goes_to_another_process() -> None:
    roi = read_roi("20,30,100,50", SHAPE)
    copy = pickle.loads(pickle.dumps(roi))
    assert (copy.geometry.wkt, copy.name) == (roi.geometry.wkt, roi.name)
    assert inside(copy, (50, 50)) == [True]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("area", "outside"),
    [
        ("0,0,400,300", None),
        ("-5,-5,410,310", None),  # drawn generously
        ("100,100,3000,3000", 99),  # of a larger image
        ("0,0,800,600", 75),
        ("0,0,500,300", 20),
    ],
)
def test_an_area_that_reaches_far_beyond_the_image_is_named(
    area: str, outside: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    for what in ("roi", "exclude"):
        caplog.clear()
        read_roi(area, SHAPE, what)
        line = (
            f"{what} '{area}': {outside} % of it lies outside the slide, which is 400 x 300 px, and is cut off; "
            "is it of another one?"
        )
        assert caplog.messages == ([] if outside is None else [line])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("500,10,20,20", "it lies outside the slide, which is 400 x 300 px"),
        ("-30,0,30,20", "it lies outside the slide, which is 400 x 300 px"),
        ("399.9,0,30,5", "it lies outside the slide, which is 400 x 300 px"),
        ("10,10,0,20", "width and height must be at least 1 px"),
        ("10,10,20,-5", "width and height must be at least 1 px"),
        ("nan,10,20,20", "width and height must be at least 1 px"),
        ("0,0,inf,20", "width and height must be at least 1 px"),
        ("a,b,c,d", "want X,Y,WIDTH,HEIGHT in px of level 0, or a GeoJSON file"),
        ("10,10,20", "want X,Y,WIDTH,HEIGHT in px of level 0, or a GeoJSON file"),
        ("missing.geojson", "No such file or directory; want X,Y,WIDTH,HEIGHT or a GeoJSON file"),
    ],
)
def test_what_is_no_region(text: str, message: str) -> None:
    with pytest.raises(HemalumError) as caught:
        read_roi(text, SHAPE)
    assert str(caught.value) == f"roi '{text}': {message}"


def test_files_without_a_region(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"

    def refuse(message: str) -> None:
        with pytest.raises(HemalumError) as caught:
            read_roi(path, SHAPE)
        assert message in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    path.write_bytes(b"")
    refuse("")
    path.write_text("no json")
    refuse("")
    save(path)
    refuse("holds no areas; draw a region in QuPath and export it as GeoJSON")
    save(path, polygon([[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]))
    refuse("feature 1: the outline crosses itself at x 50, y 50; draw the region anew")
    save(path, polygon(SQUARE, [[200, 200], [220, 200], [220, 220], [200, 200]]))
    refuse("feature 1: Hole lies outside shell")
    save(path, {"type": "Point", "coordinates": [5, 5]})
    refuse("feature 1")
    save(path, polygon([[0, 0], [100, 0], [100, float("inf")], [0, 0]]))
    refuse("")
    save(path, polygon([[500, 500], [600, 500], [600, 600], [500, 500]]))
    refuse("it lies outside the slide, which is 400 x 300 px")
    path.write_bytes(b" " * (17 << 20))
    refuse("a file of regions has at most 16,777,216")


@pytest.mark.fault
@pytest.mark.parametrize("text", ["0,0,10", "1,2", "1,2,3,4,5"])
def test_numbers_that_are_no_rectangle(text: str) -> None:
    with pytest.raises(HemalumError, match="want X,Y,WIDTH,HEIGHT in px of level 0, or a GeoJSON file"):
        read_roi(text, (100, 100))


@pytest.mark.fault
def test_a_geometry_alone_is_an_area(tmp_path: Path) -> None:
    square = {"type": "Polygon", "coordinates": [[[10, 10], [30, 10], [30, 30], [10, 30], [10, 10]]]}
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(square))
    assert read_roi(path, (100, 100)).area == 400
    square["coordinates"] = [[[10, 10], [30, 30], [30, 10], [10, 30], [10, 10]]]
    path.write_text(json.dumps(square))
    with pytest.raises(HemalumError, match="crosses itself at x 20, y 20"):
        read_roi(path, (100, 100))


@pytest.mark.fault
def test_a_folder_and_nothing_are_no_region(tmp_path: Path) -> None:
    lines = {
        "": "want X,Y,WIDTH,HEIGHT in px of level 0, or a GeoJSON file",
        "  ": "want X,Y,WIDTH,HEIGHT in px of level 0, or a GeoJSON file",
        tmp_path: "is a folder; want X,Y,WIDTH,HEIGHT or a GeoJSON file",
        str(tmp_path): "is a folder; want X,Y,WIDTH,HEIGHT or a GeoJSON file",
    }
    for text, line in lines.items():
        for name in ("roi", "exclude"):
            with pytest.raises(HemalumError) as caught:
                find_roi(SHAPE, **{name: text})
            assert str(caught.value) == f"{name} '{text}': {line}"
    with pytest.raises(HemalumError, match=r"^roi 'a.b': .*; want X,Y,WIDTH,HEIGHT or a GeoJSON file$"):
        read_roi("a\0b", SHAPE)


@pytest.mark.fault
@pytest.mark.parametrize(
    "text", ["[" * 20_000, '{"a":' * 20_000, '{"features": [{"a": ' + "[" * 20_000 + "]" * 20_000 + "}]}"]
)
def test_nesting_without_end_is_no_region(text: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.geojson"
    path.write_text(text)
    with pytest.raises(HemalumError, match=rf"^{re.escape(str(path))}: not (JSON|GeoJSON)[^\n]*$"):
        read_roi(path, SHAPE)


@pytest.mark.fault
@pytest.mark.parametrize("coordinates", [None, [], [[]]])
def test_a_geometry_without_an_area(coordinates: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": coordinates}))
    with pytest.raises(HemalumError, match=r"a\.geojson: (holds no areas; draw a region|not GeoJSON)"):
        read_roi(path, SHAPE)


BOX = shapely.box(20, 30, 120, 80)
FORMS: dict[str, Any] = {
    "text": "20,30,100,50",
    "text with spaces": " 20, 30, 100, 50 ",
    "path": Path("20,30,100,50"),
    "tuple": (20, 30, 100, 50),
    "list of floats": [20.0, 30.0, 100.0, 50.0],
    "numbers of NumPy": (np.int64(20), np.float32(30), np.int16(100), np.uint8(50)),
    "array": np.array([20, 30, 100, 50]),
    "polygon": BOX,
    "multipolygon": shapely.MultiPolygon([BOX]),
    "region": Roi(BOX, "mine"),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_region_in_each_form(form: str) -> None:
    inside, rest = find_roi(SHAPE, FORMS[form]), find_roi(SHAPE, None, FORMS[form])
    assert inside is not None
    assert rest is not None
    assert inside.geometry.equals(BOX)
    assert rest.area == 300 * 400 - 5000
    assert inside.name.replace(" ", "") in ("20,30,100,50", "Polygonofshapely", "MultiPolygonofshapely", "mine")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("area", "line"),
    [
        ((0, 0, 10), "'(0, 0, 10)': want X,Y,WIDTH,HEIGHT in px of level 0, or a GeoJSON file"),
        (5, "'5': want X,Y,WIDTH,HEIGHT in px of level 0, or a GeoJSON file"),
        (b"0,0,9,9", "'b'0,0,9,9'': want X,Y,WIDTH,HEIGHT in px of level 0, or a GeoJSON file"),
        ({"x": 1}, "'{'x': 1}': want X,Y,WIDTH,HEIGHT in px of level 0, or a GeoJSON file"),
        ((0, 0, 0, 9), "'(0, 0, 0, 9)': width and height must be at least 1 px"),
        ((900, 0, 9, 9), "'900,0,9,9': it lies outside the slide, which is 400 x 300 px"),
        (shapely.box(900, 0, 909, 9), "'Polygon of shapely': it lies outside the slide, which is 400 x 300 px"),
        (shapely.Point(5, 5), ": want a polygon or multipolygon of shapely in px, not Point"),
        (shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9)]), ": the area is not valid: Self-intersection[4.5 4.5]"),
    ],
)
def test_what_is_no_region_in_python(area: Any, line: str) -> None:
    for name in ("roi", "exclude"):
        with pytest.raises(HemalumError) as caught:
            find_roi(SHAPE, **{name: area})
        assert str(caught.value) == f"{name}{'' if line.startswith(':') else ' '}{line}"


def test_the_share_of_a_window_that_lies_inside() -> None:
    roi = read_roi("10,20,40,40", (100, 100))
    assert roi.share_in(10, 20, 40, 40) == 1
    assert roi.share_in(30, 20, 40, 40) == pytest.approx(0.5)
    assert roi.share_in(60, 70, 30, 30) == 0


@pytest.mark.fault
def test_a_text_too_long_for_a_name_is_no_file() -> None:
    with pytest.raises(HemalumError, match="File name too long; want X,Y,WIDTH,HEIGHT or a GeoJSON file"):
        read_roi("{" + "a" * 300 + "}", (100, 100))
