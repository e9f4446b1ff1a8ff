"""Outlines as labels: nuclei told from regions, points and lines, whichever program drew them."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roifile
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.labels import field, photograph, save
from builders.outlines import Feature, feature, features_of, rectangle, rings_of, write_geojson, write_xml
from hemalum.data.annotations import read_drawing, read_drawn_labels
from hemalum.data.check import check_dataset
from hemalum.data.importing import import_dataset
from hemalum.data.readers import folder
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.experiments.evaluate import evaluate
from hemalum.experiments.label_maps import LabelMaps, Truth
from hemalum.experiments.segmenters import Segmentation

pytestmark = pytest.mark.fault

LABELS = field()  # 25 nuclei on 96 x 96 px
SHAPE = (96, 96)
FRAME = rectangle(0, 0, 60, 96)  # three columns of nuclei are in it, the fourth is cut in half
INSIDE = int(sum((np.argwhere(n == LABELS)[:, 1].min() + np.argwhere(n == LABELS)[:, 1].max() + 1) / 2 < 60
                 for n in range(1, 26)))  # fmt: skip


def make_folder(root: Path, features: Any, name: str = "f0.geojson") -> Path:
    save(root / "images" / "f0.png", photograph(LABELS))
    write_geojson(root / "labels" / name, features)
    return root


def read_one(root: Path, **options: Any) -> Sample:
    (sample,) = folder.read(root, **options)
    return sample


def same_nuclei(labels: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two label maps hold the same nuclei, whatever their numbers."""
    pairs = np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1)
    return len(pairs[0]) == len(set(pairs[0])) == len(set(pairs[1])) and bool(((labels > 0) == (expected > 0)).all())


def packed(features: list[Feature], **properties: Any) -> list[Feature]:
    return [one | {"properties": one["properties"] | properties} for one in features]


ANNOTATIONS = features_of(LABELS)
OLD = [{"type": "Feature", "id": "PathDetectionObject", "geometry": one["geometry"],
        "properties": {"isLocked": False, "measurements": [{"name": "Area", "value": 9}]}}
       for one in ANNOTATIONS]  # fmt: skip
CELLS = [
    feature(rectangle(ring[0][0] - 3, ring[0][1] - 1, ring[0][0] + 6, ring[0][1] + 12), "cell")
    | {"nucleusGeometry": {"type": "Polygon", "coordinates": [ring]}}
    for ring in rings_of(LABELS)
]
ALL_IN_ONE = [feature([[ring] for ring in rings_of(LABELS)[start::2]], geometry="MultiPolygon") for start in (0, 1)]
BARE = [{"type": "Feature", "geometry": one["geometry"], "properties": {}} for one in ANNOTATIONS]
POINT = feature([5.0, 5.0], geometry="Point")
POINTS = feature([[5.0, 5.0], [9.0, 9.0]], geometry="MultiPoint")
LINE = feature([[5.0, 5.0], [50.0, 50.0]], geometry="LineString")
TILES = [feature(rectangle(x, 0, x + 32, 32), "tile") for x in (0, 32, 64)]
HOLED = [feature([rectangle(0, 0, 90, 90), rectangle(20, 20, 24, 24)])]

ALL_25: dict[str, tuple[Any, str]] = {
    "annotations": (ANNOTATIONS, "f0.geojson"),
    "detections": (features_of(LABELS, "detection"), "f0.geojson"),
    "cells": (CELLS, "f0.geojson"),
    "no objectType": (BARE, "f0.geojson"),
    "QuPath 0.2": (OLD, "f0.geojson"),
    "QuPath 0.3": ([one | {"properties": {"object_type": "detection"}} for one in ANNOTATIONS], "f0.geojson"),
    "named after the image file": (ANNOTATIONS, "f0.png.geojson"),
    "packed": (ANNOTATIONS, "f0.geojson.gz"),
    "json": (ANNOTATIONS, "f0.json"),
    "packed json": (ANNOTATIONS, "f0.json.gz"),
    "one feature for each class": (ALL_IN_ONE, "f0.geojson"),
    "a list": ({"features": ANNOTATIONS}, "f0.geojson"),
    "collections of geometries": (
        [one | {"geometry": {"type": "GeometryCollection", "geometries": [one["geometry"], POINT["geometry"]]}}
         for one in ANNOTATIONS],
        "f0.geojson",
    ),
    "coordinates with height": (
        [feature([[*point, 0.0] for point in ring]) for ring in rings_of(LABELS)], "f0.geojson",
    ),
    "open rings": ([feature(ring[:-1]) for ring in rings_of(LABELS)], "f0.geojson"),
    "against the clock": ([feature(ring[::-1]) for ring in rings_of(LABELS)], "f0.geojson"),
}  # fmt: skip


@pytest.mark.parametrize(("features", "name"), ALL_25.values(), ids=ALL_25)
def test_every_form_of_outlines_gives_the_same_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, features: Any, name: str
) -> None:
    sample = read_one(make_folder(tmp_path, features, name))
    assert same_nuclei(sample.instances, LABELS)
    assert sample.unannotated is None
    warned = [message for message in caplog.messages if "many parts" not in message]
    assert warned == []


@pytest.mark.parametrize(
    ("others", "left_out"),
    [
        ([feature(rectangle(0, 0, 96, 96))], "1 region"),
        ([feature(rectangle(-20, -9, 130, 99))], "1 region"),
        ([feature(rectangle(1, 2, 95, 94), name="Region*")], "1 region"),
        (HOLED, "1 region"),
        ([POINT, POINTS, LINE], "3 points or lines"),
        ([feature([5.0, 5.0], "detection", geometry="Point")], "1 point or line"),
        ([feature([[[5.0, 5.0], [9.0, 5.0]]], geometry="MultiLineString")], "1 point or line"),
        ([{"type": "Feature", "geometry": None, "properties": {"objectType": "root"}}], "1 tile or core"),
        ([{"type": "Feature", "geometry": None, "properties": {}}], "1 point or line"),
        (TILES, "3 tiles or cores"),
        ([feature(rectangle(0, 0, 96, 96), "tmaCore")], "1 tile or core"),
        ([feature(rectangle(70, 70, 90, 90), name="Ignore*")], "1 ignored area"),
        ([feature(rectangle(0, 0, 96, 96)), POINT, *TILES[:1]], "1 region, 1 point or line, 1 tile or core"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["annotation", "detection"])
def test_what_is_no_nucleus_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, others: list[Feature], left_out: str
) -> None:
    nuclei = features_of(LABELS, kind)
    path = make_folder(tmp_path / "set", [*others, *nuclei])
    sample = read_one(path)
    ignored = "ignored" in left_out
    assert len(np.unique(sample.instances)) == (25 if ignored else 26)
    assert caplog.messages[0] == f"{path}: left out of 1 file, since it is no nucleus: {left_out}"
    caplog.clear()
    write_geojson(tmp_path / "predicted" / "f0.geojson", [*nuclei, *others])
    predicted = LabelMaps(tmp_path / "predicted")(sample)
    assert len(np.unique(predicted)) == 26
    regions = "; regions: feature 26" if "region" in left_out else ""
    assert caplog.messages == [
        f"{tmp_path}/predicted/f0.geojson: left out, since it is no nucleus: {left_out}{regions}"
    ]


def test_a_region_among_nuclei_leaves_scores_as_they_are(tmp_path: Path) -> None:
    write_geojson(tmp_path / "drawn" / "f0.geojson", [feature(rectangle(0, 0, 96, 96)), *ANNOTATIONS])
    save(tmp_path / "truth" / "f0.png", LABELS.astype(np.uint16))
    summary = evaluate(LabelMaps(tmp_path / "drawn"), Truth(tmp_path / "truth")).summary
    (warning,) = summary["label_warnings"]
    assert warning.endswith("f0.geojson: left out, since it is no nucleus: 1 region; regions: feature 1")
    assert summary["pixel"]["pooled"]["dice"] == 1


def test_cells_drawn_around_their_nuclei(tmp_path: Path) -> None:
    around = [[(np.array(ring) - np.mean(ring, axis=0)) * 1.3 + np.mean(ring, axis=0)] for ring in rings_of(LABELS)]
    cells = [feature([ring.tolist() for ring in rings]) for rings in around]
    drawn = read_drawn_labels(write_geojson(tmp_path / "a.geojson", [*ANNOTATIONS, *cells]), SHAPE)
    assert same_nuclei(drawn.labels, LABELS)
    assert drawn.left_out == {"cell": 25}


def test_nucleoli_leave_nuclei_as_they_are(tmp_path: Path) -> None:
    nucleoli = [feature(rectangle(x - 1, y - 1, x + 1, y + 1.5)) for ring in rings_of(LABELS)
                for x, y in [np.mean(ring, axis=0).round().tolist()]]  # fmt: skip
    drawn = read_drawn_labels(write_geojson(tmp_path / "a.geojson", [*ANNOTATIONS, *nucleoli]), SHAPE)
    assert (drawn.left_out, drawn.unannotated) == ({}, None)


@pytest.mark.parametrize("nuclei", [1, 2, 4])
def test_a_rectangle_around_few_nuclei_is_a_region(tmp_path: Path, nuclei: int) -> None:
    near = features_of(LABELS)[:nuclei]
    box = feature(rectangle(1, 1, 18 * nuclei, 18))
    drawn = read_drawn_labels(write_geojson(tmp_path / "a.geojson", [box, *near]), SHAPE)
    assert drawn.left_out == {"region": 1}
    assert drawn.unannotated is not None


def test_boxes_around_nuclei_are_nuclei(tmp_path: Path) -> None:
    boxes = [feature(rectangle(*np.min(ring, axis=0), *np.max(ring, axis=0))) for ring in rings_of(LABELS)]
    boxes.append(feature(rectangle(*(np.array(boxes[3]["geometry"]["coordinates"][0][0]) + 2).tolist(), 66, 12)))
    drawn = read_drawn_labels(write_geojson(tmp_path / "a.geojson", boxes), SHAPE)
    assert drawn.left_out == {}


@pytest.mark.parametrize("name", [None, "Region*", "Region", "ROI", "Tissue"])
@pytest.mark.parametrize("kind", ["annotation", "detection", "cell"])
def test_what_lies_outside_of_regions_is_not_annotated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, name: str | None
) -> None:
    path = make_folder(tmp_path, [feature(FRAME, name=name), *features_of(LABELS, kind)])
    sample = read_one(path)
    assert sample.unannotated is not None
    assert not sample.unannotated[:, :60][LABELS[:, :60] == 0].any()
    kept = set(np.unique(sample.instances)) - {0}
    if kind == "annotation":  # drawn by hand: right wherever it lies
        assert len(kept) == 25
        assert (sample.unannotated[:, 60:] == (LABELS == 0)[:, 60:]).all()
    else:
        assert len(kept) == INSIDE
    outside = "" if kind == "annotation" else f", nor do {25 - INSIDE} nuclei there"
    share = 100 * sample.unannotated.mean()
    assert caplog.messages[-1] == (
        f"{path}: annotated in part: 1 image; outside of their regions and in ignored areas ({share:.0f} %) "
        f"nothing counts{outside}"
    )


def test_regions_that_hold_few_of_the_nuclei_are_no_frame(tmp_path: Path) -> None:
    few = feature(rectangle(0, 0, 96, 22), name="Tumor")  # five of 25 nuclei, as a tissue is drawn
    sample = read_one(make_folder(tmp_path, [few, *ANNOTATIONS]))
    assert (sample.unannotated, len(np.unique(sample.instances))) == (None, 26)
    called = read_one(make_folder(tmp_path, [few | feature(rectangle(0, 0, 96, 22), name="Region*"), *ANNOTATIONS]))
    assert called.unannotated is not None


def test_a_region_that_holds_no_detection_is_no_frame(tmp_path: Path) -> None:
    vessel = feature([[2.0, 2.0], [94.0, 2.0], [94.0, 34.0], [48.0, 35.0], [2.0, 34.0]], name="Vessel")
    detections = features_of(LABELS, "detection")[10:]
    drawn = read_drawn_labels(write_geojson(tmp_path / "a.geojson", [vessel, *detections]), SHAPE)
    assert (drawn.left_out, drawn.unannotated) == ({"region": 1}, None)


def test_ignored_areas_are_not_annotated_and_their_nuclei_are_left_out(tmp_path: Path) -> None:
    area = feature(rectangle(0, 0, 30, 30), name="Ignore*")
    sample = read_one(make_folder(tmp_path, [area, *ANNOTATIONS]))
    assert sample.unannotated is not None
    assert sample.unannotated[:30, :30].all()
    assert len(np.unique(sample.instances)) < 26


def test_an_empty_region_is_an_image_without_nuclei(tmp_path: Path) -> None:
    sample = read_one(make_folder(tmp_path, [feature(rectangle(0, 0, 48, 48), name="Region*")]))
    assert not sample.instances.any()
    assert sample.unannotated is not None
    assert not sample.unannotated[:48, :48].any()


def test_nuclei_drawn_by_hand_beside_detections_are_nuclei(tmp_path: Path) -> None:
    features = [*features_of(LABELS, "detection")[:20], *ANNOTATIONS[20:]]
    assert same_nuclei(read_one(make_folder(tmp_path, features)).instances, LABELS)


def test_large_nuclei_stay_nuclei(tmp_path: Path) -> None:
    giant = field(96, every=48, radius=14)
    small = field(96, every=16, radius=3)
    small[np.isin(small, np.unique(small[giant > 0]))] = 0
    labels = np.where(giant > 0, giant, np.where(small > 0, small + giant.max(), 0)).astype(np.int32)
    sample = read_drawn_labels(write_geojson(tmp_path / "a.geojson", features_of(labels)), SHAPE)
    assert sample.left_out == {}


def test_holes_stay_open_and_lines_that_cross_themselves_make_none(tmp_path: Path) -> None:
    loop = [[10.0, 50.0], [40.0, 50.0], [40.0, 70.0], [20.0, 70.0], [20.0, 40.0], [30.0, 40.0], [30.0, 80.0],
            [10.0, 80.0], [10.0, 50.0]]  # fmt: skip
    path = write_geojson(
        tmp_path / "a.geojson",
        [feature([rectangle(5, 5, 35, 35), rectangle(15, 15, 25, 25)]), feature(loop), features_of(LABELS)[4]],
    )
    labels = read_drawn_labels(path, SHAPE).labels
    assert np.count_nonzero(labels == 1) == 800
    assert (labels[50:70, 20:30] == 2).all()  # wound around twice
    bow = [[60.0, 60.0], [80.0, 80.0], [80.0, 60.0], [60.0, 80.0], [60.0, 60.0]]
    drawn = read_drawn_labels(write_geojson(tmp_path / "b.geojson", [feature(bow)]), SHAPE).labels
    assert 180 <= np.count_nonzero(drawn) <= 220


CLASSES = ["tumor", "lymphocyte", None, {"names": ["tumor", "Positive"]}, {"name": "stroma", "colorRGB": -3670016}]


def test_classes_are_those_of_the_outlines(tmp_path: Path) -> None:
    region = feature(rectangle(0, 0, 96, 96), name="Tissue")
    path = make_folder(tmp_path / "set", [region, *features_of(LABELS, names=CLASSES)])
    dataset = import_dataset("folder", path, tmp_path / "out", mpp=0.25)
    assert dataset.info.classes == {1: "lymphocyte", 2: "stroma", 3: "tumor", 4: "tumor: Positive"}
    (sample,) = dataset
    expected = np.array([3, 1, 0, 4, 2])[np.arange(25) % 5]
    for number in range(1, 26):
        (instance,) = np.unique(sample.instances[number == LABELS])
        assert sample.classes[instance] == expected[number - 1]
    given_names = import_dataset(
        "folder", path, tmp_path / "named", mpp=0.25, class_names="tumor,tumor: Positive,stroma,lymphocyte"
    )
    assert given_names.class_names[1] == "tumor"


@pytest.mark.parametrize(
    "text",
    [
        "tumor", " tumor ", ["tumor"], ["tumor", ""], [" tumor\n"], {"name": " tumor"}, {"names": "tumor"},
        {"name": "tumor", "names": []}, {"names": ["tumor "]}, {"names": ["", "tumor"]},
        {"names": [" "], "name": "tumor"},
    ],
)  # fmt: skip
def test_a_classification_may_be_text_alone(tmp_path: Path, text: Any) -> None:
    features = packed(features_of(LABELS), classification=text)
    assert set(read_drawn_labels(write_geojson(tmp_path / "a.geojson", features), SHAPE).class_names) == {
        None,
        "tumor",
    }


@pytest.mark.parametrize(
    "text", ["", "  ", [], [""], [1], {"name": " "}, {"names": ["", " "]}, {"name": 3}, {}, None, 7]
)
def test_a_classification_without_a_name_is_none(tmp_path: Path, text: Any) -> None:
    features = packed(features_of(LABELS), classification=text)
    assert set(read_drawn_labels(write_geojson(tmp_path / "a.geojson", features), SHAPE).class_names) == {None}


def test_parts_of_a_derived_class_are_joined_as_qupath_shows_them(tmp_path: Path) -> None:
    features = features_of(LABELS, names=[{"names": [" Tumor", "Positive "]}, {"name": "Tumor: Positive"}])
    names = read_drawn_labels(write_geojson(tmp_path / "a.geojson", features), SHAPE).class_names
    assert set(names) == {None, "Tumor: Positive"}


def test_capitals_of_classes_make_no_difference(tmp_path: Path) -> None:
    path = make_folder(tmp_path, features_of(LABELS, names=["Tumor", "STROMA", "Nucleus"]))
    sample = read_one(path, class_names="tumor,stroma")
    assert sample.classes is not None
    assert np.bincount(sample.classes[1:]).tolist() == [8, 9, 8]
    maps = LabelMaps(path / "labels", class_names={1: "tumor", 2: "stroma"})
    result = maps(sample)
    assert isinstance(result, Segmentation)
    assert result.classes is not None
    assert np.bincount(result.classes[1:]).tolist() == [8, 9, 8]


def test_classes_that_differ_in_capitals_stay_apart(tmp_path: Path) -> None:
    path = make_folder(tmp_path, features_of(LABELS, names=["tumor", "Tumor"]))
    for names in (None, "Tumor,tumor"):
        sample = read_one(path, class_names=names)
        assert sample.classes is not None
        assert np.bincount(sample.classes[1:]).tolist() == [0, 12, 13]


def test_a_class_that_is_not_named(tmp_path: Path, error_line: Callable[..., str]) -> None:
    path = make_folder(tmp_path, features_of(LABELS, names=["tumor", "stroma"]))
    assert error_line(lambda: read_one(path, class_names="tumor,other")) == (
        f"{path}/labels/f0.geojson: class 'stroma' is not among class_names tumor, other"
    )


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([POINT, LINE], "holds 2 points or lines and no outline of a nucleus; outline the nuclei"),
        (TILES, "holds 3 tiles or cores and no outline of a nucleus; outline the nuclei"),
        ([feature(FRAME, name="Region*"), POINTS],
         "holds 1 point or line and no outline of a nucleus; outline the nuclei"),
        ([feature(rectangle(100, 0, 150, 90), name="Region*"), *ANNOTATIONS],
         "its regions lie outside of the image; are they of this one?"),
        ({"type": "FeatureCollection"}, "not GeoJSON: want a FeatureCollection or a list of Features"),
        ({"shapes": []}, "not GeoJSON: want a FeatureCollection or a list of Features"),
    ],
)  # fmt: skip
def test_what_holds_no_nuclei_is_refused(
    tmp_path: Path, error_line: Callable[..., str], features: Any, message: str
) -> None:
    path = make_folder(tmp_path, features, "f0.json")
    assert error_line(lambda: read_one(path)) == f"{path}/labels/f0.json: {message}"


def test_other_files_with_common_endings_are_no_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "images" / "f0.png", photograph(LABELS))
    save(tmp_path / "labels" / "f0.png", LABELS.astype(np.uint16))
    for name in ("f0.json", "settings.json", "f0.xml", "export.zip"):
        (tmp_path / "labels" / name).write_text("{}")
    assert same_nuclei(read_one(tmp_path).instances, LABELS)
    assert caplog.messages == []
    assert Truth(tmp_path / "labels").ids == ["f0"]


def test_aperio_layers_are_classes_and_regions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "images" / "f0.png", photograph(LABELS))
    rings = rings_of(LABELS)
    layers = {"Epithelial": rings[:12], "Layer 2": rings[12:], "Region": [FRAME], "": [[[3.0, 3.0], [30.0, 30.0]]]}
    write_xml(tmp_path / "labels" / "f0.xml", layers)
    sample = read_one(tmp_path)
    assert len(np.unique(sample.instances)) == 26
    assert sample.classes is not None
    assert sample.classes.tolist() == [0, *[1] * 12, *[0] * 13]
    assert sample.unannotated is not None
    assert f"{tmp_path}: left out of 1 file, since it is no nucleus: 1 region, 1 point or line" in caplog.messages


def test_an_import_reads_outlines_twice_and_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rings = rings_of(LABELS)
    for number in range(3):
        save(tmp_path / "images" / f"f{number}.png", photograph(LABELS))
        layers = {"Tumor": [*rings, *rings[: number + 2]]}
        path = write_xml(tmp_path / "labels" / f"f{number}.xml", layers)
        path.write_text(path.read_text().replace('<Region Id="1"', '<Region Id="1" NegativeROA="1"', 1))
        save(tmp_path / "labels" / f"f{number}_outlines.png", LABELS.astype(np.uint8))
    passes: list[Path] = []

    def count(path: Path) -> Any:
        passes.append(path)
        return read_drawing(path)

    monkeypatch.setattr("hemalum.data.annotations.drawn_labels.read_drawing", count)
    dataset = import_dataset("folder", tmp_path, tmp_path / "set", mpp=0.25)
    assert dataset.info.classes == {1: "Tumor"}
    assert len(passes) == 6  # names of the classes, and outlines
    first = tmp_path / "labels" / "f0.xml"
    for line in (
        f"{first}: 1 region marked as negative left out (and so 2 other files)",
        f"{first}: 1 of 26 polygons hold no pixel of their own (and so 2 other files)",
        f"{tmp_path}/labels: not read, since nearer label files are there: "
        "f0_outlines.png, f1_outlines.png, f2_outlines.png",
    ):
        assert caplog.messages.count(line) == 1
    assert not [line for line in caplog.messages if "f1.xml" in line]


def test_ellipses_of_imagescope(tmp_path: Path) -> None:
    corners = [[[10.0, 10.0], [30.0, 40.0]]]
    labels = read_drawn_labels(write_xml(tmp_path / "a.xml", {"": corners}, Type="2"), SHAPE).labels
    assert abs(np.count_nonzero(labels) - np.pi * 10 * 15) < 12


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["FREEHAND", "TRACED", "POLYGON", "POINT"])
def test_a_roi_with_a_vertex_that_is_nowhere(tmp_path: Path, kind: str, value: float) -> None:
    with np.errstate(invalid="ignore"):
        roi = roifile.ImagejRoi.frompoints(np.array([[2, 2], [12.5, 2], [12, value], [2, 12]], np.float32))
    roi.roitype = roifile.ROI_TYPE[kind]
    (tmp_path / "a.roi").write_bytes(roi.tobytes())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("0001.roi", roi.tobytes())
    for name, entry in (("a.roi", "a.roi"), ("a.zip", "0001.roi")):
        with pytest.raises(HemalumError) as refused:
            read_drawn_labels(tmp_path / name, SHAPE)
        assert str(refused.value) == (
            f"{tmp_path / name}: entry '{entry}' has a vertex that is no finite number; save the ROI again"
        )


def test_rois_of_imagej(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "images" / "f0.png", photograph(LABELS))
    (tmp_path / "labels").mkdir()
    line = roifile.ImagejRoi.frompoints([[1, 1], [20, 20]])
    line.roitype = roifile.ROI_TYPE.POLYLINE
    with zipfile.ZipFile(tmp_path / "labels" / "f0.zip", "w") as archive:
        for number, ring in enumerate(rings_of(LABELS)):
            archive.writestr(f"{number:04}.roi", roifile.ImagejRoi.frompoints(ring[:-1]).tobytes())
        archive.writestr("line.roi", line.tobytes())
    assert same_nuclei(read_one(tmp_path).instances, LABELS)
    assert f"{tmp_path}: left out of 1 file, since it is no nucleus: 1 point or line" in caplog.messages
    single = tmp_path / "one.roi"
    single.write_bytes(roifile.ImagejRoi.frompoints(rings_of(LABELS)[0][:-1]).tobytes())
    assert (read_drawn_labels(single, SHAPE).labels > 0).tolist() == (LABELS == 1).tolist()


def test_check_names_what_is_left_out(tmp_path: Path) -> None:
    path = make_folder(tmp_path, [feature(FRAME), POINT, *ANNOTATIONS])
    problems = {problem.kind: problem for problem in check_dataset(path)}
    assert problems["objects"].message == (
        "left out, since it is no nucleus: 1 region, 1 point or line; regions: feature 1"
    )
    assert problems["unannotated"].message.startswith("annotated in part: ")
    assert problems["objects"].file == problems["unannotated"].file == "labels/f0.geojson"


FORMS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["annotation", "detection", "cell", ""]),
        "container": st.sampled_from(["collection", "list", "gz"]),
        "classification": st.sampled_from(CLASSES),
        "frame": st.sampled_from([None, (0, 0, 96, 96), (-5, -5, 101, 101), (3, 3, 93, 93)]),
        "extras": st.lists(st.sampled_from([POINT, POINTS, LINE, TILES[0]]), max_size=3),
        "seed": st.integers(0, 5),
        "shuffle": st.randoms(use_true_random=False),
    }
)


@settings(max_examples=25, deadline=None)
@given(FORMS)
def test_any_mixture_gives_the_nuclei_alone(tmp_path_factory: pytest.TempPathFactory, form: dict[str, Any]) -> None:
    labels = field(seed=form["seed"])
    features = features_of(labels, form["kind"], [form["classification"]])
    features += [] if form["frame"] is None else [feature(rectangle(*form["frame"]))]
    features += form["extras"]
    form["shuffle"].shuffle(features)
    name = "a.geojson.gz" if form["container"] == "gz" else "a.geojson"
    path = tmp_path_factory.mktemp("mixture") / name
    write_geojson(path, {"features": features} if form["container"] == "list" else features)
    drawn = read_drawn_labels(path, SHAPE)
    assert same_nuclei(drawn.labels, labels)
    assert drawn.left_out["region"] == (form["frame"] is not None)
