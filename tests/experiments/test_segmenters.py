"""Scores by class: from segmenters and from models that know classes, and what the files and tables say."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score

from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.experiments.compare import compare
from hemalum.experiments.evaluate import evaluate
from hemalum.experiments.execute import Resources
from hemalum.experiments.scores import ByClass, score_image, summarize, without_nan
from hemalum.experiments.segmenters import Segmentation, class_ids
from hemalum.inference.segment import segment
from hemalum.reports.comparison.page import write_comparison
from hemalum.reports.tables import evaluation_tables

RED, BLUE, GROUND = (150, 40, 60), (60, 40, 150), (235, 225, 235)
SIDE = 90


def write_set(tmp_path: Path, names: str) -> Path:
    """Six images of 16 squares of 12 × 12 px, in a third of which the upper 4 rows have the other color.

    Ids in the truth: blue 1, red 2; nothing is of class 3.
    """
    source = tmp_path / "source"
    rng = np.random.default_rng(5)
    for number in range(6):
        image = np.full((SIDE, SIDE, 3), GROUND, np.uint8)
        labels, class_map = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
        for index in range(16):
            top, left = 6 + 20 * (index // 4), 6 + 20 * (index % 4)
            kind = int(rng.integers(1, 3))
            image[top : top + 12, left : left + 12] = RED if kind == 2 else BLUE
            if index % 3 == 0:
                image[top : top + 4, left : left + 12] = BLUE if kind == 2 else RED
            labels[top : top + 12, left : left + 12] = index + 1
            class_map[top : top + 12, left : left + 12] = kind
        for folder, pixels in (("images", image), ("labels", labels), ("classes", class_map)):
            (source / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(source / folder / f"{number}.png")
    target = tmp_path / "data"
    import_dataset("folder", source, target, mpp=0.5, class_names=names, split=(0.4, 0.2, 0.4))
    return target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path, "Blue,red")


@pytest.fixture
def with_rare(tmp_path: Path) -> Path:
    return write_set(tmp_path, "Blue,red,rare")


def classed(truth: ArrayLike, classes: ArrayLike) -> Sample:
    """A sample whose label map is `truth` with the class of each id."""
    truth = np.asarray(truth, np.int32)
    image = np.zeros((*truth.shape, 3), np.uint8)
    return Sample(image, truth, id="a", source="a", group="a", mpp=0.5, classes=np.array(classes, np.int32))


def test_pixels_take_the_class_of_their_nucleus_or_their_own(with_rare: Path) -> None:
    """Each nucleus is found whole; of classes, those of every third nucleus are swapped."""

    def swapped(sample: Sample, by_pixel: bool = False) -> Segmentation:
        classes = sample.classes.copy()
        classes[1::3] = 3 - classes[1::3]
        pixels = sample.classes[sample.instances] if by_pixel else None
        return Segmentation(sample.instances, classes, pixel_classes=pixels)

    summary = evaluate(swapped, with_rare, split="test").summary
    truth, prediction = [], []
    for sample in Dataset.open(with_rare).split("test"):
        truth.append(sample.classes[sample.instances].ravel())
        prediction.append(swapped(sample).classes[sample.instances].ravel())
    y_true, y_pred = np.concatenate(truth), np.concatenate(prediction)
    options = {"labels": [1, 2], "average": "macro"}
    assert summary["semantic"]["pooled"]["f1"] == pytest.approx(f1_score(y_true, y_pred, **options))
    assert summary["semantic"]["pooled"]["miou"] == pytest.approx(jaccard_score(y_true, y_pred, **options))
    images = list(zip(truth, prediction, strict=True))
    each = [f1_score(*pair, **options) for pair in images]
    assert summary["semantic"]["per_image"]["f1"] == pytest.approx(np.mean(each))
    by_class = summary["semantic_by_class"]
    assert list(by_class) == ["Blue", "red", "rare"]
    assert by_class["red"]["pooled"]["iou"] == pytest.approx(jaccard_score(y_true == 2, y_pred == 2))
    assert by_class["red"]["true_pixels"] == (y_true == 2).sum()
    assert math.isnan(by_class["rare"]["pooled"]["f1"])
    assert summary["classes_absent"] == ["rare"]
    by_pixel = evaluate(lambda sample: swapped(sample, by_pixel=True), with_rare, split="test").summary
    assert by_pixel["semantic"]["pooled"] == {"precision": 1, "recall": 1, "f1": 1, "miou": 1}
    assert by_pixel["classes"]["mpq_plus"] == summary["classes"]["mpq_plus"]  # nuclei are as they were


def test_a_model_with_classes(folder: Path, two_class_model: Path, tmp_path: Path) -> None:
    result = evaluate(two_class_model, folder, split="test", engine="torch", out=tmp_path / "out")
    summary = result.summary
    assert summary["classes"]["pq_pooled"][:2] == pytest.approx([1, 1], abs=0.06)  # every nucleus of the right class
    assert summary["classes"]["mpq_image"] > 0.95
    # of the pixels, a ninth has the other color: 6 of 16 nuclei, a third of each
    assert summary["semantic"]["pooled"]["recall"] == pytest.approx(1 - 6 / 16 / 3, abs=0.02)
    saved = json.loads((tmp_path / "out" / "summary.json").read_text())
    for part in ("semantic", "semantic_by_class", "classes_absent"):
        assert saved[part] == summary[part]
    with (tmp_path / "out" / "per_image.csv").open() as stream:
        row = next(csv.DictReader(stream))
    assert 0.8 < float(row["semantic_f1"]) < 1
    assert float(row["semantic_iou_red"]) < float(row["semantic_f1_red"])


def test_tables_say_it(with_rare: Path, tmp_path: Path) -> None:
    result = evaluate(
        lambda one: Segmentation(one.instances, one.classes), with_rare, split="test", out=tmp_path / "out"
    )
    with (tmp_path / "out" / "per_image.csv").open() as stream:
        row = next(csv.DictReader(stream))
    assert (row["semantic_f1"], row["semantic_f1_rare"]) == ("1.0", "")
    saved = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert saved["semantic_by_class"]["rare"]["pooled"]["f1"] is None
    tables = {headers[0]: (headers, rows) for _, (headers, rows) in evaluation_tables(result.summary)}
    headers, rows = tables["pixels by class"]
    assert headers == ["pixels by class", "precision", "recall", "f1", "miou"]
    assert [row[0] for row in rows] == ["pooled", "mean over images"]
    headers, rows = tables["class"]
    assert headers[:2] == ["class", "true pixels"]
    assert [row[0] for row in rows] == ["Blue", "red", "rare (absent: in no mean)"]
    assert rows[2][2:] == ["–"] * 8
    assert any(row[0] == "PQ pooled, red" for row in tables["classes"][1])
    plain = evaluate("classical", with_rare, split="test").summary
    assert not {"class", "pixels by class", "classes"} & {headers[0] for _, (headers, _) in evaluation_tables(plain)}


@pytest.mark.fault
def test_names_decide_and_differing_ones_are_refused(tmp_path: Path, two_class_model: Path) -> None:
    assert class_ids(["red", "blue"], {4: "BLUE", 7: "red"}, "m", "d").tolist() == [0, 7, 4]
    assert class_ids([], {1: "a"}, "m", "d") is None
    assert class_ids(["a", "b"], {}, "m", "d") is None
    with pytest.raises(HemalumError) as caught:
        class_ids(["a", "b"], {1: "b", 2: "c"}, "m", "d")
    assert str(caught.value) == (
        "model m and dataset d have different classes of nuclei: only m has 'a'; only d has 'c'; what means the same "
        "must be called the same (dataset.yaml holds the names of the dataset's)"
    )
    with pytest.raises(HemalumError, match="only data has 'rare'"):
        evaluate(two_class_model, write_set(tmp_path, "blue,red,rare"), engine="torch")


def test_a_class_predicted_where_the_truth_has_none() -> None:
    """The truth has one nucleus of class 1; the prediction another of class 2 beside it."""
    sample = classed([[1, 1, 0, 0, 0, 0]], [0, 1])
    labels = np.array([[1, 1, 0, 2, 2, 2]])
    by_class = ByClass(sample.classes, np.array([0, 1, 2], np.int32), {1: "one", 2: "two"})
    summary = summarize([score_image(sample.instances, labels, classes=by_class)])
    assert summary["semantic"]["pooled"]["f1"] == 1
    assert summary["classes_absent"] == ["two"]
    assert summary["classes"]["mpq_plus"] == 0.5  # there false alarms of such a class count


def test_a_comparison_has_them_by_class(folder: Path, two_class_model: Path, tmp_path: Path) -> None:
    methods = [f"two={two_class_model}", "classical", f"again={two_class_model}"]
    comparison, failed = compare(methods, [folder], tmp_path / "out", resources=Resources("cpu", 1, "torch"))
    assert not failed
    two, classical, _ = comparison.runs
    assert two.summary["semantic"]["pooled"]["miou"] > 0.7
    assert two.summary["classes"]["mpq_image"] > 0.95
    assert "semantic" not in classical.summary
    write_comparison(comparison)
    with (tmp_path / "out" / "tables" / "scores.csv").open() as stream:
        lines = [line for line in csv.DictReader(stream) if line["kind"] == "semantic"]
    values = {(line["method"], line["metric"], line["averaging"]): line["value"] for line in lines}
    assert float(values["two", "miou", "pooled"]) == two.summary["semantic"]["pooled"]["miou"]
    assert (
        float(values["two", "iou, red", "per_image"]) == two.summary["semantic_by_class"]["red"]["per_image"]["iou"]
    )
    assert {method for method, *_ in values} == {"two", "again"}
    with (tmp_path / "out" / "tables" / "tests.csv").open() as stream:
        tested = {(line["method"], line["metric"]) for line in csv.DictReader(stream) if line["against"] == "two"}
    assert ("again", "semantic_miou") in tested
    assert ("classical", "pq") in tested
    assert ("classical", "semantic_miou") not in tested
    report = (tmp_path / "out" / "report.md").read_text()
    assert "mIoU of pixels by class, pooled over all pixels, mean over classes without background" in report
    assert "IoU of pixels, mean over images, red" in report


@pytest.mark.fault
def test_classifications_of_geojson_are_classes(folder: Path, two_class_model: Path, tmp_path: Path) -> None:
    """What `segment` writes, read back as the result of another tool, scores as the model does."""
    model = evaluate(two_class_model, folder, split="test", engine="torch").summary
    out = tmp_path / "out"
    out.mkdir()
    for sample in Dataset.open(folder):
        segment(sample.image, two_class_model, mpp=0.5, engine="torch").to_geojson(out / f"{sample.id}.geojson")
    summary = evaluate(out, folder, split="test").summary
    assert without_nan(summary["classes"]) == without_nan(model["classes"])  # no organs: nothing by tissue
    # every pixel has the class of its nucleus
    assert summary["semantic"]["pooled"]["miou"] > 0.97 > model["semantic"]["pooled"]["miou"]
    for path in out.iterdir():
        path.write_text(path.read_text().replace('"red"', '"Positive"').replace('"blue"', '"Negative"'))
    assert "classes" not in evaluate(out, folder, split="test").summary
    for path in out.iterdir():
        path.write_text(path.read_text().replace('"name":"Positive"', '"names":["RED"]'))
    with pytest.raises(
        HemalumError, match="classification 'Negative' is no class of the dataset; classes are Blue, red"
    ):
        evaluate(out, folder, split="test")
