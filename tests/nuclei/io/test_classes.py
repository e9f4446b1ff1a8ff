"""What files say of classes of nuclei, and that they say nothing where there are none."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from numpy.typing import NDArray
from PIL import Image

from hemalum.errors import HemalumError
from hemalum.nuclei.io.colors import PALETTE, Classes, class_color
from hemalum.nuclei.io.overlay import COLOR, draw_legend, draw_outlines
from hemalum.nuclei.morphology import vote
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import measure

NAMES = ("épithélial", 'a "b"', "rare")


@pytest.fixture
def labels() -> NDArray[np.int32]:
    """Three squares of 5 × 5 px side by side, the first two touching."""
    labels = np.zeros((9, 24), np.int32)
    for number, left in ((1, 2), (2, 7), (3, 15)):
        labels[2:7, left : left + 5] = number
    return labels


@pytest.fixture
def nuclei(labels: NDArray[np.int32]) -> Nuclei:
    """Of classes 2, 1 and 2; nothing is of class 3."""
    class_map = np.array([0, 2, 1, 2], np.float32)[labels]
    return Nuclei.from_parts([measure(labels, class_map=class_map)], shape=labels.shape, class_names=NAMES)


def test_table_and_properties(nuclei: Nuclei) -> None:
    assert nuclei.table.column_names[-1] == "class"
    assert nuclei.table["class"].to_pylist() == [NAMES[1], NAMES[0], NAMES[1]]
    assert nuclei.classes.numbers.tolist() == [2, 1, 2]
    assert nuclei.classes.counts == {NAMES[0]: 1, NAMES[1]: 2, NAMES[2]: 0}
    none = Nuclei.from_parts([], shape=(4, 4), class_names=NAMES)
    assert none.table["class"].to_pylist() == []
    assert none.classes.counts == dict.fromkeys(NAMES, 0)


def test_without_classes_nothing_speaks_of_them(labels: NDArray[np.int32], tmp_path: Path) -> None:
    nuclei = Nuclei.from_labels(labels)
    assert "class" not in nuclei.table.column_names
    assert nuclei.classes is None
    nuclei.to_geojson(tmp_path / "a.geojson")
    document = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))
    assert "classes" not in document["hemalum"]
    assert all(
        feature["properties"]["classification"] == {"name": "Nucleus", "color": [0, 180, 90]}
        for feature in document["features"]
    )


def test_csv_and_parquet_have_the_name(nuclei: Nuclei, tmp_path: Path) -> None:
    nuclei.to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as stream:
        assert [line["class"] for line in csv.DictReader(stream)] == [NAMES[1], NAMES[0], NAMES[1]]
    nuclei.to_parquet(tmp_path / "a.parquet")
    read = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert read["class"].type == pa.string()
    assert read["class"].to_pylist() == [NAMES[1], NAMES[0], NAMES[1]]


def test_geojson_has_a_classification_with_a_color(nuclei: Nuclei, tmp_path: Path) -> None:
    nuclei.to_geojson(tmp_path / "a.geojson")
    document = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))
    classifications = [feature["properties"]["classification"] for feature in document["features"]]
    assert [classification["name"] for classification in classifications] == [NAMES[1], NAMES[0], NAMES[1]]
    assert [tuple(classification["color"]) for classification in classifications] == [
        PALETTE[1],
        PALETTE[0],
        PALETTE[1],
    ]
    assert document["hemalum"]["classes"] == list(NAMES)
    assert document["features"][0]["properties"]["measurements"]["Area px^2"] == 25


def test_outlines_have_the_color_of_the_class(nuclei: Nuclei, labels: NDArray[np.int32], tmp_path: Path) -> None:
    drawn = draw_outlines(np.zeros((9, 24, 3), np.uint8), nuclei.label_map(), classes=nuclei.classes)
    assert tuple(drawn[2, 2]) == PALETTE[1]
    assert tuple(drawn[2, 9]) == PALETTE[0]
    assert tuple(drawn[4, 6]) == PALETTE[1]  # the line between the two is that of the first
    assert tuple(drawn[2, 15]) == PALETTE[1]
    assert not (drawn == COLOR).all(-1).any()
    assert (drawn.any(-1) == draw_outlines(np.zeros_like(drawn), nuclei.label_map()).any(-1)).all()


@pytest.mark.parametrize("width", [24, 300, 3000])
def test_overlay_has_a_legend_below(width: int, tmp_path: Path) -> None:
    labels = np.zeros((40, width), np.int32)
    labels[5:20, 5:20] = 1
    nuclei = Nuclei.from_parts(
        [measure(labels, class_map=(labels * 2).astype(np.float32))], shape=labels.shape, class_names=NAMES
    )
    image = np.full((40, width, 3), 200, np.uint8)
    nuclei.to_overlay(tmp_path / "a.png", image)
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape[1] == width
    assert picture.shape[0] > 40 + 13
    assert (picture[:40] == draw_outlines(image, nuclei.label_map(), classes=nuclei.classes)).all()
    for color in PALETTE[: len(NAMES)]:
        assert (picture[40:] == color).all(-1).any()
    assert np.array_equal(picture[40:], draw_legend(width, nuclei.classes))


def test_more_classes_than_colors() -> None:
    assert class_color(1) == class_color(1 + len(PALETTE))
    classes = Classes(np.zeros(0, np.int32), [f"class {number}" for number in range(14)])
    assert draw_legend(200, classes).shape[1] == 200


@pytest.mark.fault
def test_joining_needs_one_set_of_classes(nuclei: Nuclei) -> None:
    twice = Nuclei.concat([nuclei, nuclei])
    assert twice.class_names == NAMES
    assert twice.classes.counts[NAMES[1]] == 4
    with pytest.raises(HemalumError, match="same classes"):
        Nuclei.concat([nuclei, replace(nuclei, class_names=("x", *NAMES[1:]))])


def test_the_vote_by_hand() -> None:
    labels = np.array([[1, 1, 1, 0, 4, 4, 4, 4]], np.int32)
    class_map = np.array([[3, 2, 2, 1, 1, 2, 2, 1]], np.float32)
    ids = np.array([1, 4], np.int32)
    assert vote(labels, ids, class_map).tolist() == [2, 1]  # of equal votes the first class
    sure = np.array([[0.9, 0.9, 0.1, 0.9, 0.4, 0.5, 0.9, 0.9]], np.float32)
    # without the third pixel 1 is torn between 3 and 2, and 4 without its first is of class 2
    assert vote(labels, ids, class_map, sure, 0.5).tolist() == [2, 2]
    assert vote(labels, ids, class_map, sure, 0.95).tolist() == [0, 0]  # nobody votes: no class
    assert vote(np.zeros((2, 2), np.int32), np.zeros(0, np.int32), np.zeros((2, 2), np.float32)).tolist() == []
