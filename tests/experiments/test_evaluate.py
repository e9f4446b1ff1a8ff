import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from builders.trainings import write_source
from hemalum.data.dataset import Dataset, DatasetInfo, SplitInfo, write_index, write_sample
from hemalum.data.importing import import_dataset
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError, counted
from hemalum.experiments.evaluate import Evaluation, evaluate
from hemalum.experiments.segmenters import Segmentation
from hemalum.metrics import hd95, measure_boundary
from hemalum.models.card import Card, NetworkSpec, Training, TrainingSet
from hemalum.models.model import Model
from hemalum.models.seen_images import pack_images
from hemalum.reports.tables import evaluation_tables


def sample(name: str, instances: ArrayLike, **known: Any) -> Sample:
    instances = np.asarray(instances, np.int32)
    image = np.full((*instances.shape, 3), 200, np.uint8)
    return Sample(image, instances, id=name, source=name, group=known.pop("group", name), **known)


ONE = np.kron([[1, 1, 0, 2], [0, 0, 0, 2]], np.ones((4, 4), int))
SAMPLES = [
    sample("a", ONE, group="p1", organ="liver", mpp=0.5),
    sample("b", ONE, group="p2", organ="liver", mpp=0.25),
    sample("c", np.zeros_like(ONE), group="p2", mpp=0.25),
]


def perfect_then_half(one: Sample) -> NDArray[np.int32]:
    """All of "a", one of two nuclei of "b", nothing in "c"."""
    return np.where(one.instances == 2, 0, one.instances) if one.id == "b" else one.instances


def test_summary_by_hand() -> None:
    summary = evaluate(perfect_then_half, SAMPLES).summary
    assert (summary["images"], summary["nuclei_truth"], summary["nuclei_predicted"]) == (3, 4, 3)
    # each nucleus has 32 px: "a" finds 64 of 64, "b" 32 of 64
    pixel = summary["pixel"]
    assert pixel["pooled"]["dice"] == pytest.approx(2 * 96 / (96 + 128))
    assert pixel["per_image"]["dice"] == pytest.approx((1 + 2 * 32 / 96) / 2)  # "c" is undefined
    background = 2 * 64 / (2 * 64 + 32)
    assert pixel["support_weighted"]["dice"] == pytest.approx((1 + 0.5 * (background + 2 / 3) + 1) / 3)
    instance = summary["instance"]
    assert instance["pooled"]["pq"] == pytest.approx(3 / 3.5)
    assert instance["per_image"]["pq"] == pytest.approx((1 + 1 / 1.5) / 2)
    assert instance["pooled"]["aji"] == pytest.approx(96 / 128)
    assert instance["per_image"]["aji_plus"] == pytest.approx((1 + 0.5) / 2)
    assert instance["per_image"]["ap_95"] == pytest.approx((1 + 0.5) / 2)
    assert summary["left_out"] == {"dice": 1, "pq": 1}
    assert "classes" not in summary


def test_boundaries_are_in_px_and_um() -> None:
    result = evaluate(perfect_then_half, SAMPLES)
    far = hd95(measure_boundary(ONE > 0, ONE == 1))
    row = result.per_image[1]
    assert far > 0
    assert (row["hd95_px"], row["hd95_um"]) == pytest.approx((far, far / 4))
    boundary = result.summary["boundary"]
    assert boundary["per_image"]["hd95_um"] == pytest.approx(far / 8)
    assert math.isnan(boundary["pooled"]["hd95_um"])  # pixels of two sizes
    assert boundary["pooled"]["hd95_px"] > 0


def test_tables_by_group_and_organ() -> None:
    summary = evaluate(perfect_then_half, SAMPLES).summary
    groups = {row["name"]: row for row in summary["by_group"]}
    assert {name: row["images"] for name, row in groups.items()} == {"p1": 1, "p2": 2}
    assert groups["p2"]["pq"] == pytest.approx(1 / 1.5)
    assert [(row["name"], row["images"]) for row in summary["by_organ"]] == [("liver", 2)]
    stained = [replace(one, stain=stain) for one, stain in zip(SAMPLES, ("purple", "grey-fluo"), strict=False)]
    by_stain = evaluate(perfect_then_half, stained).summary["by_stain"]
    assert {row["name"]: row["images"] for row in by_stain} == {"purple": 1, "grey-fluo": 1}
    alone = evaluate(perfect_then_half, SAMPLES[1:]).summary  # the patient's images by themselves
    for name in ("dice", "recall", "precision", "aji", "pq", "hd95_px"):
        pixel = dict.fromkeys(("dice", "recall", "precision"), "pixel")
        kind = (pixel | {"hd95_px": "boundary"}).get(name, "instance")
        assert groups["p2"][name] == alone[kind]["per_image"][name]
    for name in ("dice", "recall", "precision"):
        assert groups["p2"][f"{name}_pooled"] == alone["pixel"]["pooled"][name]
    liver = summary["by_organ"][0]
    # all 64 px of one image, half of those of the other
    assert (liver["recall"], liver["recall_pooled"], liver["precision_pooled"]) == (0.75, 96 / 128, 1)
    assert groups["p2"]["pq_pooled"] == alone["instance"]["pooled"]["pq"]
    assert (groups["p2"]["nuclei_truth"], groups["p2"]["nuclei_predicted"]) == (2, 1)


def test_ambiguous_pixels_can_be_left_out() -> None:
    unsure = sample("u", ONE, ambiguous=ONE == 2)
    only_first = [unsure]

    def first(one: Sample) -> NDArray[np.int32]:
        return np.where(one.instances == 1, 1, 0)

    assert evaluate(first, only_first).summary["instance"]["pooled"]["pq"] == pytest.approx(1 / 1.5)
    kept = evaluate(first, only_first, leave_out_ambiguous=True)
    assert kept.summary["instance"]["pooled"]["pq"] == 1
    assert kept.per_image[0]["dice"] == 1
    assert kept.summary["ambiguous"] == "left out"


def test_saved_files_say_the_same(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    result = evaluate(perfect_then_half, SAMPLES, out=out)
    assert sorted(path.name for path in out.iterdir()) == ["per_image.csv", "summary.json"]
    summary = json.loads((out / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["pixel"] == result.summary["pixel"]
    assert summary["boundary"]["pooled"]["hd95_um"] is None
    with (out / "per_image.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert [row["pq"] for row in rows] == ["1.0", str(2 / 3), ""]


@pytest.mark.fault
def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HemalumError, match="cannot write"):
        Evaluation([], {}).save(tmp_path / "file" / "out")


def test_each_image_is_told_as_it_is_done() -> None:
    calls = []
    evaluate(perfect_then_half, SAMPLES, on_progress=lambda number, row: calls.append((number, row["id"])))
    assert calls == [(0, "a"), (1, "b"), (2, "c")]


@pytest.mark.fault
def test_a_segmentation_with_nan_is_refused_with_its_sample() -> None:
    def broken(one: Sample) -> NDArray[np.float64]:
        return np.where(one.instances == 2, math.nan, one.instances)

    with pytest.raises(HemalumError, match="sample a: metrics: prediction has nan in 32 of 128 pixels"):
        evaluate(broken, SAMPLES)


@pytest.mark.fault
def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(HemalumError, match="sample a"):
        evaluate(lambda one: one.instances[1:], SAMPLES)
    with pytest.raises(HemalumError, match="nothing to evaluate"):
        evaluate("classical", [])


def blobs(number: int) -> NDArray[np.int32]:
    labels = np.zeros((64, 64), np.int32)
    for name, (y, x) in enumerate([(12, 12), (14, 44), (44, 20 + number)], start=1):
        labels[y - 8 : y + 8, x - 8 : x + 8] = name
    return labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images of black background and bright squares, through the real import."""
    tiles = []
    for number in range(6):
        labels = blobs(number)
        image = np.repeat(np.where(labels > 0, 150, 5 + number).astype(np.uint8)[..., None], 3, axis=2)
        tiles.append((image, labels.astype(np.uint16), f"p{number}"))
    source = write_source(tmp_path / "source", tiles, "patient")
    import_dataset("folder", source, tmp_path / "data", mpp=0.5, group="patient")
    return tmp_path / "data"


def test_the_classical_floor_on_a_dataset_folder(folder: Path) -> None:
    result = evaluate("classical", folder, split="test")
    part = Dataset.open(folder).split("test")
    assert [row["id"] for row in result.per_image] == [row.id for row in part.rows]
    summary = result.summary
    assert (summary["model"], summary["split"], summary["split_hash"]) == (
        "classical",
        "test",
        part.split_hash,
    )
    assert summary["pixel"]["pooled"]["dice"] > 0.9
    assert summary["nuclei_predicted"] == 3 * len(part)
    assert {row["mpp_used"] for row in result.per_image} == {0.5}
    assert summary["seconds"]["segment_per_mm2"] > 0
    assert evaluate("classical", Dataset.open(folder), split=None).summary["images"] == 6


def test_mpp_auto_hides_the_scale_from_the_segmenter(folder: Path) -> None:
    result = evaluate("classical", folder, split=None, mpp="auto")
    assert {row["mpp_used"] for row in result.per_image} == {None}
    assert {row["mpp"] for row in result.per_image} == {0.5}
    assert {row["mpp_used"] for row in evaluate("classical", folder, mpp=0.4).per_image} == {0.4}


@pytest.mark.parametrize(("mpp", "stated"), [(None, "per image"), ("auto", "auto"), (0.4, 0.4)])
def test_the_summary_says_where_the_scale_is_from(folder: Path, mpp: float | str | None, stated: float | str) -> None:
    assert evaluate("classical", folder, split=None, mpp=mpp).summary["mpp"] == stated


def test_tissues_are_the_organs_of_the_images() -> None:
    summary = evaluate(perfect_then_half, [*SAMPLES, sample("d", ONE, organ="kidney", mpp=0.5)]).summary
    half = 1 / 1.5  # PQ of "b": one of two nuclei; "c" has none, and no organ
    assert summary["binary"]["bpq_tissue"] == pytest.approx(((1 + half) / 2 + 1) / 2)
    assert summary["binary"]["bpq_image"] == pytest.approx((1 + half + 1) / 3)


def test_classes_where_both_sides_have_them(tmp_path: Path) -> None:
    classed = [replace(one, classes=np.array([0, 1, 2], np.int32), organ=f"of {one.id}") for one in SAMPLES[:2]]
    rows = [write_sample(tmp_path, one) for one in classed]
    split = SplitInfo(by="group", fractions=(1, 0, 0), seed=0, sha256="", counts={"train": 2})
    names = {1: "one", 2: "two"}
    write_index(tmp_path, DatasetInfo(name="n", classes=names, images=2, nuclei=4, split=split), rows)

    def swapped_in_b(one: Sample) -> Segmentation:
        classes = [0, 1, 2] if one.id == "a" else [0, 2, 2]
        return Segmentation(one.instances, np.array(classes, np.int32))

    summary = evaluate(swapped_in_b, tmp_path, split="train").summary
    assert summary["class_names"] == names
    assert summary["classes"]["pq_pooled"] == pytest.approx([1 / 1.5, 2 / 2.5])
    assert summary["classes"]["mpq_plus"] == pytest.approx((1 / 1.5 + 2 / 2.5) / 2)
    assert summary["classes"]["mpq_image"] == pytest.approx((1 + (0 + 1 / 1.5) / 2) / 2)
    assert summary["classes"]["mpq_tissue"] == summary["classes"]["mpq_image"]  # one image of each tissue
    blind = evaluate(lambda one: np.where(one.instances == 2, 0, one.instances), tmp_path, split="train").summary
    assert "classes" not in blind
    assert blind["found_by_class"] == {"nuclei": [2, 2], "recall": [1.0, 0.0]}


class BrightEngine:
    """Maps (interior, boundary) that are sure: what is bright is nucleus."""

    name, precision, parallel, batch = "mock", "f32", 1, 1

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        interior = (images[..., 0] > 100).astype(np.float32)
        return np.stack([interior, np.zeros_like(interior)], axis=1)


def model() -> Model:

    card = Card(
        name="bright",
        network=NetworkSpec(name="compact"),
        representation="interior_boundary",
        mpp=0.5,
        halo=0,
        stride=1,
        native_stains=["fluorescence"],
        nucleus_diameter_um=9.0,  # a square of 16 px at 0.5 µm/px
        code_version="0",
    )
    return Model(card, {})


def test_a_learnt_model_runs_at_the_scale_of_each_sample(folder: Path) -> None:
    result = evaluate(model(), folder, split=None, engine=BrightEngine())
    summary = result.summary
    assert (summary["model"], summary["engine"]) == ("bright", "mock f32")
    assert summary["instance"]["pooled"]["pq"] > 0.9
    assert {row["mpp_used"] for row in result.per_image} == {0.5}


def test_a_learnt_model_with_too_few_nuclei_for_an_estimate_finds_nothing(folder: Path) -> None:
    result = evaluate(model(), folder, split=None, engine=BrightEngine(), mpp="auto")
    assert {row["mpp_used"] for row in result.per_image} == {None}
    assert result.summary["nuclei_predicted"] == 0
    assert result.summary["instance"]["pooled"]["pq"] == 0


def test_a_learnt_model_estimates_the_scale_of_a_sample_without_one() -> None:
    labels = np.kron(np.arange(1, 65).reshape(8, 8), np.ones((32, 32), int)).astype(np.int32)
    inside = np.zeros((32, 32), bool)
    inside[8:24, 8:24] = True
    labels[~np.tile(inside, (8, 8))] = 0
    image = np.repeat(np.where(labels > 0, 200, 10).astype(np.uint8)[..., None], 3, axis=2)
    unknown = Sample(image, labels, id="u", source="u", group="u")
    result = evaluate(model(), [unknown], engine=BrightEngine())
    assert result.per_image[0]["mpp"] is None
    assert 0.2 < result.per_image[0]["mpp_used"] < 0.6  # this engine finds squares at every scale
    assert result.summary["instance"]["pooled"]["pq"] > 0.8
    blank = replace(unknown, id="blank", image=np.full_like(image, 10))
    known = replace(unknown, id="known", mpp=0.5, mpp_source="nuclei")
    three = evaluate(model(), [unknown, blank, known], engine=BrightEngine())
    assert [row["mpp_source"] for row in three.per_image] == ["estimate", "too few nuclei", "nuclei"]
    assert three.summary["mpp_sources"] == {"estimate": 1, "too few nuclei": 1, "nuclei": 1}
    assert (
        "scale: per image, estimated for 2 of 3 images, 1 of these with too few nuclei for it, where none counts as "
        "found, set from the true nuclei for 1 of 3"
    ) in evaluation_tables(three.summary)[0][0]
    forced = evaluate(model(), [known], mpp=0.5, engine=BrightEngine())
    assert forced.summary["mpp_sources"] == {"user": 1}
    assert "estimated" not in evaluation_tables(forced.summary)[0][0]


def trained_on(dataset: Dataset, *, hashes: bool, same_split: bool = True, earlier: bool = False) -> Model:
    """A model whose card says that it was trained on the dataset, or that what it started from was."""
    images, validated = (pack_images(row.sha256 for row in dataset.split(part).rows) for part in ("train", "val"))
    used = TrainingSet(
        name=dataset.info.name if same_split else "renamed",
        license="CC0-1.0",
        split_hash=dataset.split_hash if same_split else "other",
        samples=4,
        **({"images": images, "validated": validated} if hashes else {}),
    )
    training = Training(
        recipe="r", recipe_hash="0", command="hemalum train", steps=1, seed=0, date="2026-11-20", data=[used]
    )
    if earlier:
        training = training.model_copy(update={"data": [], "initial": training})
    bright = model()
    return Model(bright.card.model_copy(update={"training": training}), {})


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(("hashes", "same_split"), [(True, True), (True, False), (False, True)])
def test_images_of_the_training_are_told_for_every_split(
    folder: Path, caplog: pytest.LogCaptureFixture, hashes: bool, same_split: bool, earlier: bool
) -> None:
    dataset = Dataset.open(folder)
    trained = trained_on(dataset, hashes=hashes, same_split=same_split, earlier=earlier)
    name, counts = trained.card.name, dataset.info.split.counts
    for split, used in (("train", "learned from"), ("val", "in its validation"), ("test", "")):
        caplog.clear()
        with caplog.at_level("WARNING"):
            summary = evaluate(trained, dataset, split=split, engine=BrightEngine()).summary
        seen = summary["seen_in_training"]
        assert seen["trained"] == (counts["train"] if split == "train" else 0)
        assert seen["validated"] == (counts["val"] if split == "val" else 0)
        title = evaluation_tables(summary)[0][0]
        if not used:
            assert not caplog.records
            assert f"seen in training: none of {counted(counts['test'], 'image')}" in title
            continue
        (line,) = [record.getMessage() for record in caplog.records]
        images = f"{counts[split]} {used}, of {counted(counts[split], 'image')}"
        assert line == (
            f"{name} has seen images of {dataset.info.name}, split {split}: {images}; its scores are not those of "
            "new images"
        )
        assert f"seen in training: {images}" in title


def test_images_are_told_by_their_pixels_in_a_folder_of_any_name(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = Dataset.open(folder)
    renamed = [replace(one, id=f"mine-{number}") for number, one in enumerate(dataset)]
    trained = trained_on(dataset, hashes=True)
    seen = evaluate(trained, renamed, engine=BrightEngine()).summary["seen_in_training"]
    counts = dataset.info.split.counts
    assert (seen["images"], seen["trained"], seen["validated"]) == (len(dataset), counts["train"], counts["val"])
    other = [replace(one, image=255 - one.image) for one in renamed]
    caplog.clear()
    assert evaluate(trained, other, engine=BrightEngine()).summary["seen_in_training"]["trained"] == 0
    assert not caplog.records


def test_a_model_that_does_not_tell_its_images_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = Dataset.open(folder)
    silent = trained_on(dataset, hashes=False, same_split=False)
    result = evaluate(silent, dataset, engine=BrightEngine())
    assert caplog.messages == [
        f"whether {silent.card.name} has seen images of {dataset.info.name}, split test is not known: its file does "
        "not tell the images of renamed"
    ]
    assert (
        "seen in training: not known: its file does not tell the images of renamed"
        in (evaluation_tables(result.summary)[0][0])
    )


def test_what_learns_nothing_has_seen_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    summary = evaluate("classical", folder).summary
    assert summary["seen_in_training"] is None
    assert "seen in training" not in evaluation_tables(summary)[0][0]
    assert not caplog.records
