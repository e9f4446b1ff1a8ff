"""Grades and scores of H-DAB nuclei: by hand from the papers' tables."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from numpy.typing import NDArray
from PIL import Image

from hemalum.errors import HemalumError
from hemalum.nuclei.ihc_score import OTSU_FLOOR, Allred, IhcScore, check_positive, grade, otsu_threshold
from hemalum.nuclei.io.colors import INTENSITIES
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import measure


def score(negative: int, weak: int, moderate: int, strong: int) -> IhcScore:
    return IhcScore({"Negative": negative, "1+": weak, "2+": moderate, "3+": strong})


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((10, 0, 0, 0), 0), ((0, 0, 0, 7), 300), ((50, 20, 20, 10), 20 + 40 + 30), ((1, 1, 0, 1), 400 / 3)],
)
def test_h_score(counts: tuple[int, int, int, int], expected: float) -> None:
    assert score(*counts).h_score == pytest.approx(expected)


@pytest.mark.parametrize(
    ("positive", "total", "proportion"),
    [
        (0, 100, 0), (1, 1000, 1), (1, 100, 1), (2, 100, 2), (10, 100, 2), (11, 100, 3), (1, 3, 3), (34, 100, 4),
        (2, 3, 4), (67, 100, 5), (100, 100, 5),
    ],
)  # fmt: skip
def test_proportion_of_allred(positive: int, total: int, proportion: int) -> None:
    allred = score(total - positive, 0, 0, positive).allred
    assert allred == Allred(proportion, 3 if positive else 0)
    assert allred.total == (proportion + 3 if positive else 0)


@pytest.mark.parametrize(
    ("counts", "intensity"),
    [
        ((0, 9, 0, 0), 1),
        ((0, 4, 1, 1), 1),  # mean 1.5
        ((0, 1, 2, 0), 2),  # 5/3 is no longer weak
        ((0, 3, 3, 3), 2),
        ((0, 0, 2, 1), 2),  # 7/3 is not yet strong
        ((0, 0, 1, 1), 3),
        ((90, 0, 0, 1), 3),  # of the positive nuclei alone
    ],
)
def test_intensity_of_allred(counts: tuple[int, int, int, int], intensity: int) -> None:
    assert score(*counts).allred.intensity == intensity


def test_with_one_threshold_there_is_a_share_alone() -> None:
    single = IhcScore({"Negative": 3, "Positive": 1})
    assert (single.positive_share, single.h_score, single.allred) == (0.25, None, None)
    none = score(0, 0, 0, 0)
    assert (none.positive_share, none.h_score, none.allred) == (None, None, None)
    assert str(Allred(3, 2)) == "5 (3 + 2)"


def test_grades() -> None:
    values = np.array([-0.1, 0.1999, 0.2, 0.3999, 0.4, 0.61, np.nan])
    assert grade(values, (0.2, 0.4, 0.6)).tolist() == [1, 1, 2, 2, 3, 4, 0]
    assert grade(values, (0.2,)).tolist() == [1, 1, 2, 2, 2, 2, 0]


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        (None, None), (0.2, (0.2,)), ("0.2", (0.2,)), ("0.2, 0.4,0.6", (0.2, 0.4, 0.6)),
        ([0.1, 0.2, 0.3], (0.1, 0.2, 0.3)), ("Otsu", "otsu"), (1, (1.0,)), (np.float32(0.5), (0.5,)),
    ],
)  # fmt: skip
def test_what_is_asked_for(requested: Any, expected: tuple[float, ...] | str | None) -> None:
    assert check_positive(requested) == expected


@pytest.mark.fault
@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ("0.4,0.2,0.6", "positive 0.4,0.2,0.6: thresholds must rise"),
        ("0.2,0.2,0.6", "thresholds must rise"),
        ("0.2,0.4", "has 2 thresholds: want one, or three"),
        ("", "want a threshold of DAB's optical density such as 0.2"),
        ("brown", "positive 'brown': want a threshold"),
        (0, "positive 0: a threshold is an optical density above 0"),
        (20, "at most 3"),
        (float("nan"), "above 0"),
        ((), "has 0 thresholds"),
    ],
)
def test_what_cannot_be_asked_for(requested: Any, message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        check_positive(requested)


def test_otsu_is_between_two_groups_and_never_background() -> None:
    rng = np.random.default_rng(0)
    two = np.concatenate([rng.normal(0.05, 0.02, 90), rng.normal(0.6, 0.1, 30)])
    assert 0.15 < otsu_threshold(two) < 0.45
    mixed = rng.gamma(1.5, 0.2, 60)
    spread = {}
    for threshold in np.linspace(mixed.min(), mixed.max(), 2001)[1:-1]:
        low, high = mixed[mixed < threshold], mixed[mixed >= threshold]
        spread[threshold] = len(low) * low.var() + len(high) * high.var()  # within groups: least where Otsu parts
    best = min(spread, key=lambda threshold: spread[threshold])
    assert ((mixed < otsu_threshold(mixed)) == (mixed < best)).all()
    assert otsu_threshold(rng.normal(0.03, 0.01, 200)) == OTSU_FLOOR
    assert otsu_threshold(np.array([0.4])) == OTSU_FLOOR
    assert otsu_threshold(np.array([np.nan, 0.4, 0.4])) == OTSU_FLOOR


# nuclei in files and pictures

LIGHT, BROWN, DARK = (200, 190, 220), (170, 125, 95), (75, 35, 20)


@pytest.fixture
def image() -> NDArray[np.uint8]:
    image = np.full((30, 60, 3), 245, np.uint8)
    for number, color in enumerate((LIGHT, BROWN, DARK, DARK)):
        image[8:20, 3 + 14 * number : 13 + 14 * number] = color
    return image


@pytest.fixture
def labels() -> NDArray[np.int32]:
    labels = np.zeros((30, 60), np.int32)
    for number in range(4):
        labels[8:20, 3 + 14 * number : 13 + 14 * number] = number + 1
    return labels


@pytest.fixture
def nuclei(image: NDArray[np.uint8], labels: NDArray[np.int32]) -> Nuclei:
    return Nuclei.from_labels(labels, image, mpp=0.5).with_dab(image)


def test_one_threshold(nuclei: Nuclei) -> None:
    graded = nuclei.graded(0.2)
    assert graded.table.column_names[-1] == "intensity"
    assert graded.table["intensity"].to_pylist() == ["Negative", "Positive", "Positive", "Positive"]
    assert (graded.positive_share, graded.h_score, graded.allred) == (0.75, None, None)
    assert graded.notes["positive"] == [0.2]
    assert graded.graded("0.6").table["intensity"].to_pylist() == ["Negative", "Negative", "Positive", "Positive"]


def test_three_thresholds(nuclei: Nuclei) -> None:
    graded = nuclei.graded((0.1, 0.2, 0.6))
    assert graded.intensities.counts == {"Negative": 1, "1+": 0, "2+": 1, "3+": 2}
    assert graded.h_score == pytest.approx(100 * (2 + 6) / 4)
    assert graded.allred == Allred(5, 3)


def test_otsu_says_so(nuclei: Nuclei) -> None:
    graded = nuclei.graded("otsu")
    assert graded.notes["positive_source"] == "Otsu of the nuclei"
    assert graded.notes["positive"] == list(graded.thresholds)


@pytest.mark.fault
def test_ungraded_nuclei_say_nothing(nuclei: Nuclei, tmp_path: Path) -> None:
    assert nuclei.intensities is None
    assert (nuclei.positive_share, nuclei.h_score, nuclei.allred) == (None, None, None)
    nuclei.to_geojson(tmp_path / "a.geojson")
    document = json.loads((tmp_path / "a.geojson").read_text())
    assert "ihc" not in document["hemalum"]
    assert {f["properties"]["classification"]["name"] for f in document["features"]} == {"Nucleus"}
    with pytest.raises(HemalumError, match="no nuclei are graded"):
        nuclei.ihc_score()
    with pytest.raises(HemalumError, match=r"measure it first, with_dab\(image\)"):
        Nuclei.from_labels(np.eye(4, dtype=np.int32)).graded(0.2)


def test_files(nuclei: Nuclei, tmp_path: Path) -> None:
    graded = nuclei.graded((0.1, 0.2, 0.6))
    graded.to_geojson(tmp_path / "a.geojson")
    document = json.loads((tmp_path / "a.geojson").read_text())
    marks = [feature["properties"]["classification"] for feature in document["features"]]
    assert [mark["name"] for mark in marks] == ["Negative", "2+", "3+", "3+"]
    assert [tuple(mark["color"]) for mark in marks] == [INTENSITIES[mark["name"]] for mark in marks]
    measured = document["features"][1]["properties"]["measurements"]
    assert measured["Nucleus: DAB OD mean"] == pytest.approx(graded.table["dab_mean"][1].as_py(), abs=1e-5)
    assert measured["Nucleus: DAB OD std dev"] == pytest.approx(0, abs=1e-3)
    assert measured["Cytoplasm: DAB OD mean"] == pytest.approx(graded.table["dab_ring_mean"][1].as_py(), abs=1e-5)
    assert document["hemalum"]["ihc"] == {
        "counts": {"Negative": 1, "1+": 0, "2+": 1, "3+": 2},
        "positive_share": 0.75,
        "h_score": 200.0,
        "allred": {"proportion": 5, "intensity": 3, "total": 8},
    }
    graded.to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as stream:
        assert [row["intensity"] for row in csv.DictReader(stream)] == ["Negative", "2+", "3+", "3+"]
    graded.to_parquet(tmp_path / "a.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "a.parquet")["intensity"].to_pylist()[1] == "2+"


def test_overlay_is_red_and_blue_with_a_legend(nuclei: Nuclei, image: NDArray[np.uint8], tmp_path: Path) -> None:
    nuclei.graded(0.2).to_overlay(tmp_path / "a.png", image)
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert tuple(picture[8, 7]) == INTENSITIES["Negative"]
    assert tuple(picture[8, 21]) == INTENSITIES["Positive"]
    for color in (INTENSITIES["Negative"], INTENSITIES["Positive"]):
        assert (picture[30:] == color).all(-1).any()


@pytest.mark.fault
def test_classes_of_the_model_are_kept_beside_the_grades(
    image: NDArray[np.uint8], labels: NDArray[np.int32], tmp_path: Path
) -> None:
    part = measure(labels, image, class_map=np.array([0, 1, 2, 1, 2], np.float32)[labels])
    typed = Nuclei.from_parts([part], shape=labels.shape, mpp=0.5, mpp_source="user", class_names=("a", "b"))
    graded = typed.with_dab(image).graded(0.2)
    assert graded.table.column_names[-5:] == ["dab_mean", "dab_std", "dab_ring_mean", "class", "intensity"]
    assert graded.table["class"].to_pylist() == ["a", "b", "a", "b"]
    assert graded.classes.counts == {"a": 2, "b": 2}
    assert graded.ihc_score("a").counts == {"Negative": 1, "Positive": 1}
    assert graded.ihc_score("b").positive_share == 1
    graded.to_geojson(tmp_path / "a.geojson")
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    names = [feature["properties"]["classification"]["name"] for feature in features]
    assert names == ["a: Negative", "b: Positive", "a: Positive", "b: Positive"]
    with pytest.raises(HemalumError, match="there is no class 'c'; classes: a, b"):
        graded.ihc_score("c")


@pytest.mark.fault
def test_joining_needs_the_same_thresholds(nuclei: Nuclei) -> None:
    graded = nuclei.graded(0.2)
    assert Nuclei.concat([graded, graded]).intensities.counts == {"Negative": 2, "Positive": 6}
    with pytest.raises(HemalumError, match="same thresholds"):
        Nuclei.concat([graded, replace(graded, thresholds=(0.3,))])
