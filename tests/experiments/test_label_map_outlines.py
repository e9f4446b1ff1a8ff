"""Label maps drawn from the outlines of a GeoJSON file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemalum.data.annotations import read_drawn_labels
from hemalum.errors import HemalumError


def ring(x: int, y: int, width: int, height: int) -> list[list[int]]:
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]


def geojson(path: Path, *geometries: object, **members: object) -> Path:
    features = [{"type": "Feature", "geometry": geometry} | members for geometry in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def polygon(*rings: object) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def test_a_hole_stays_open_and_parts_are_one_nucleus(tmp_path: Path) -> None:
    hole = polygon(ring(2, 2, 10, 10), ring(5, 5, 4, 4))
    parts = {"type": "MultiPolygon", "coordinates": [[ring(20, 0, 3, 3)], [ring(20, 8, 3, 3)]]}
    labels = read_drawn_labels(geojson(tmp_path / "a.geojson", hole, parts), (16, 32)).labels
    expected = np.zeros((16, 32), int)
    expected[2:12, 2:12] = 1
    expected[5:9, 5:9] = 0
    expected[0:3, 20:23] = expected[8:11, 20:23] = 2
    np.testing.assert_array_equal(labels, expected)


def test_cells_give_their_nucleus_and_annotations_are_left_out(tmp_path: Path) -> None:
    cell = {
        "type": "Feature",
        "geometry": polygon(ring(0, 0, 12, 12)),
        "nucleusGeometry": polygon(ring(4, 4, 3, 3)),
        "properties": {"objectType": "cell"},
    }
    region = {"type": "Feature", "geometry": polygon(ring(0, 0, 16, 16)), "properties": {"objectType": "annotation"}}
    (tmp_path / "a.geojson").write_text(json.dumps([region, cell]))
    assert np.count_nonzero(read_drawn_labels(tmp_path / "a.geojson", (16, 16)).labels) == 9
    (tmp_path / "b.geojson").write_text(json.dumps(region))
    assert np.count_nonzero(read_drawn_labels(tmp_path / "b.geojson", (32, 32)).labels) == 256
    filled = read_drawn_labels(tmp_path / "b.geojson", (16, 16))
    assert (filled.labels.max(), filled.left_out) == (0, {"region": 1})


@pytest.mark.fault
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not GeoJSON"),
        ('{"type": "Topology"}', "not GeoJSON"),
        (
            json.dumps([{"geometry": {"type": "Point", "coordinates": [1, 2]}}]),
            "holds 1 point or line and no outline",
        ),
        (json.dumps([{"geometry": None}]), "holds 1 point or line and no outline"),
        (json.dumps([{"geometry": polygon([[1, 2], [3, 4]])}]), "not rings of at least three points"),
        (json.dumps([{"geometry": polygon([[1, 2], [3, "x"], [4, 4]])}]), "not rings"),
        (json.dumps([{"geometry": polygon([[1, 2], [3, float("nan")], [4, 4]])}]), "finite"),
        (json.dumps([{"geometry": polygon()}]), "not rings"),
        (json.dumps([{"geometry": polygon(ring(0, 0, 90, 5))}]), "spans x 0 to 90, y 0 to 5, its image is 16 x 16"),
        (json.dumps([{"geometry": polygon(ring(-9, 0, 9, 5))}]), "export in px of this very image$"),
    ],
)
def test_what_is_no_outline(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(HemalumError, match=message):
        read_drawn_labels(tmp_path / "a.geojson", (16, 16))


@pytest.mark.fault
def test_outlines_of_the_image_before_it_was_turned(tmp_path: Path) -> None:
    path = geojson(tmp_path / "a.geojson", polygon(ring(2, 2, 40, 9)))
    with pytest.raises(HemalumError) as refused:
        read_drawn_labels(path, (48, 16))
    assert str(refused.value) == (
        f"{path}, feature 1: the polygon spans x 2 to 42, y 2 to 11, its image is 16 x 48 px: export in px of this "
        "very image; with height and width exchanged it fits: was the image turned as its orientation tag says?"
    )


def test_an_empty_collection_is_an_image_without_nuclei(tmp_path: Path) -> None:
    assert not read_drawn_labels(geojson(tmp_path / "a.geojson"), (16, 16)).labels.any()


def test_the_smaller_is_on_top_and_polygons_under_others_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        same = polygon(ring(2, 2, 3, 3))
        drawn = read_drawn_labels(geojson(tmp_path / "a.geojson", same, same, polygon(ring(0, 0, 9, 9))), (16, 16))
    assert np.bincount(drawn.labels.ravel()).tolist() == [175, 0, 9, 72]
    assert "1 of 3 polygons hold no pixel" in caplog.text
