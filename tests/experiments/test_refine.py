"""Refinement from end to end on a tiny model: what trains, what is compared, what is kept, what is refused."""

import csv
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from hemalum import cli
from hemalum.data.dataset import Dataset, write_index
from hemalum.data.labeled_images import LabeledImages
from hemalum.errors import HemalumError
from hemalum.experiments import refine as refine_module
from hemalum.experiments import refinement_steps
from hemalum.experiments.execute import Resources
from hemalum.experiments.measurement import Measurement, predict
from hemalum.experiments.refine import Refinement, refine
from hemalum.experiments.refinement_recipe import refinement_recipe, training_recipe
from hemalum.experiments.selection import mean_entropy
from hemalum.inference.segment import as_engine
from hemalum.models.file import load_model_file, save_model
from hemalum.models.model import load_model
from hemalum.training import UnlabeledImages

TORCH = Resources(engine="torch", accelerator="cpu")
ASKED = {"top": 2, "epochs": 3, "draws": 2, "lr": 1e-3, "resources": TORCH}


@pytest.fixture(scope="session")
def refined(tiny: Path, organs: Path, tmp_path_factory: pytest.TempPathFactory) -> Refinement:
    return refine(tiny, organs, tmp_path_factory.mktemp("refined") / "out", **ASKED)  # type: ignore[arg-type]


def test_arms_and_subsets(refined: Refinement, organs: Path) -> None:
    assert list(refined.arms) == ["before", "threshold", "refined", "random-1", "random-2"]
    assert list(refined.chosen) == ["refined", "random-1", "random-2"]
    ids = {row.id for row in Dataset.open(organs).split("train").rows}
    for subset in refined.chosen.values():
        assert sorted(str(image.organ) for image in subset) == ["brain"] * 2 + ["liver"] * 2
        assert {image.id for image in subset} <= ids
    entropy = {image.id: image.entropy for image in refined.images}
    assert set(entropy) == ids
    for organ in ("brain", "liver"):
        best = sorted((one.entropy for one in refined.images if one.organ == organ), reverse=True)[:2]
        assert sorted((one.entropy for one in refined.chosen["refined"] if one.organ == organ), reverse=True) == best


def test_the_record_has_the_digests_of_the_data(refined: Refinement, organs: Path) -> None:
    data = Dataset.open(organs)
    assert refined.record["data"] == data.digest()
    assert refined.record["test"] == data.split("test").digest()


def test_ambiguous_areas_count_nowhere(tiny: Path, organs: Path, tmp_path: Path) -> None:
    """Labels that differ in ambiguous areas alone give the same refinement."""
    results = []
    for name, filled in (("empty", 0), ("full", 1)):
        folder = shutil.copytree(organs, tmp_path / name)
        data = Dataset.open(folder)
        mask = np.zeros((48, 48), np.uint8)
        mask[:, 28:] = 255
        Image.fromarray(mask).save(folder / "mask.png")
        for row in data.rows:
            labels = np.array(Image.open(folder / row.label))
            labels[:, 30:] = 60 * filled  # further than the edge map looks
            labels[:, 28:30] = 0
            Image.fromarray(labels).save(folder / row.label)
        write_index(folder, data.info, [replace(row, ambiguous="mask.png") for row in data.rows])
        results.append(refine(tiny, folder, tmp_path / f"out-{name}", **ASKED | {"epochs": 1, "draws": 1}))  # type: ignore[arg-type]
    assert results[0].scores == results[1].scores
    assert any("Ambiguous areas count nowhere" in note for note in results[0].notes)
    model, data = load_model(tiny), Dataset.open(tmp_path / "full").split("train")
    engine = as_engine("torch", model)
    for sample, image in zip(data, results[1].images, strict=True):
        kept = predict(sample, model, engine)[1][:, :28]
        assert image.entropy == pytest.approx(mean_entropy(kept))


@pytest.mark.fault
def test_corrected_labels_are_another_refinement(
    refined: Refinement, tiny: Path, organs: Path, tmp_path: Path
) -> None:
    corrected = tmp_path / "organs"
    shutil.copytree(organs, corrected)
    path = corrected / Dataset.open(organs).split("train").rows[0].label
    Image.fromarray(np.roll(np.asarray(Image.open(path)), 7, axis=0)).save(path)
    with pytest.raises(HemalumError, match="holds another refinement: data is "):
        refine(tiny, corrected, refined.out, **ASKED)  # type: ignore[arg-type]


def test_only_what_is_named_has_trained(refined: Refinement, tiny: Path) -> None:
    (_, before), (card, after) = load_model_file(tiny), load_model_file(refined.model)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert not [name for name in changed if name.startswith("encoder.")]
    assert {name.partition(".")[0] for name in changed} == {"up", "decoder", "head", "edge", "film", "embedding"}
    assert card.name == "tiny_refined"
    assert card.organs == ["brain", "liver"]


def test_the_same_number_of_steps_for_every_control(refined: Refinement) -> None:
    assert refined.steps == 3  # three passes over four images in batches of four
    for name in refined.chosen:
        card, _ = load_model_file(refined.out / name / "model.safetensors")
        assert card.training is not None
        assert card.training.steps == 3
        assert [used.samples for used in card.training.data] == [4]


def test_the_card_says_what_the_weights_have_seen(refined: Refinement, tiny: Path) -> None:
    before, after = load_model(tiny).card.training, load_model(refined.model).card.training
    assert before is not None
    assert after is not None
    assert after.data == before.data
    assert after.steps == before.steps + 3
    assert after.initial == before.initial


def test_the_moved_threshold_is_chosen_on_validation_images(refined: Refinement, organs: Path) -> None:
    moved = refined.arms["threshold"].threshold
    np.testing.assert_array_equal(refined.arms["threshold"].positive, refined.arms["before"].positive)
    before = Measurement.load(refined.out / "measured" / "before-val.npz")
    after = Measurement.load(refined.out / "measured" / "refined-val.npz")
    assert len(before) == len(Dataset.open(organs).split("val"))
    wanted = after.scores()["pooled"]["recall"]
    assert replace(before, threshold=moved).scores()["pooled"]["recall"] >= wanted or moved == 0.001
    if moved < 0.999:
        assert replace(before, threshold=moved + 0.001).scores()["pooled"]["recall"] < wanted


def test_the_list_of_images(refined: Refinement) -> None:
    with (refined.out / "uncertainty.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["id", "organ", "entropy", "refined", "random-1", "random-2"]
    marked = {row["id"] for row in rows if row["refined"] == "1"}
    assert marked == {image.id for image in refined.chosen["refined"]}


def test_what_is_finished_is_kept(
    refined: Refinement, tiny: Path, organs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(refined.out, out)
    trained: list[str] = []
    real = refinement_steps.train

    def noted(recipe: object, data: object, folder: Path, **options: object) -> Path:
        trained.append(Path(folder).name)
        return real(recipe, data, folder, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(refinement_steps, "train", noted)
    monkeypatch.setattr(refine_module, "predict", lambda *_: pytest.fail("predicted again"))
    shutil.rmtree(out / "random-2")
    (out / "measured" / "random-2.npz").unlink()
    again = refine(tiny, organs, out, **ASKED)  # type: ignore[arg-type]
    assert trained == ["random-2"]
    assert again.scores == refined.scores
    more = refine(tiny, organs, out, **ASKED | {"draws": 3})  # type: ignore[arg-type]
    assert trained == ["random-2", "random-3"]
    assert list(more.chosen) == ["refined", "random-1", "random-2", "random-3"]
    fewer = refine(tiny, organs, out, **ASKED | {"draws": 1})  # type: ignore[arg-type]
    assert list(fewer.chosen) == list(more.chosen)  # none is thrown away


@pytest.mark.fault
def test_a_folder_with_another_refinement_is_refused(refined: Refinement, tiny: Path, organs: Path) -> None:
    with pytest.raises(HemalumError, match="holds another refinement: top is 2 there, 3 here"):
        refine(tiny, organs, refined.out, **ASKED | {"top": 3})  # type: ignore[arg-type]
    assert yaml.safe_load((refined.out / "refinement.yaml").read_text())["top"] == "2"


@pytest.mark.fault
def test_a_folder_with_something_else_is_refused(tiny: Path, organs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(HemalumError, match="is not empty and holds no refinement"):
        refine(tiny, organs, tmp_path, **ASKED)  # type: ignore[arg-type]


@pytest.mark.fault
def test_a_model_that_does_not_say_how_it_was_trained(organs: Path, tmp_path: Path, dark_model: Path) -> None:
    with pytest.raises(HemalumError, match="model 'dark' does not say how it was trained"):
        refine(dark_model, organs, tmp_path / "out", **ASKED)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.fault
def test_choosing_everything_is_refused(tiny: Path, organs: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="`top` 50 chooses all 12 training images: nothing is selected"):
        refine(tiny, organs, tmp_path / "out", **ASKED | {"top": 50})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_model_of_few_labels_is_refined_on_all_chosen_images(tiny: Path, organs: Path) -> None:
    model, dataset = load_model(tiny), Dataset.open(organs)
    few = {"labeled": LabeledImages(fraction="1/8"), "unlabeled": [UnlabeledImages(path="slides")]}
    recipe = training_recipe(model).model_copy(update=few)
    refined = refinement_recipe(model, recipe, dataset, ["head.*"], 1e-4, 2)
    assert (refined.labeled, refined.unlabeled) == (None, [])
    assert refined.steps == math.ceil(2 * len(dataset.split("train")) / recipe.batch)


@pytest.mark.fault
def test_test_images_must_not_be_training_images(tiny: Path, organs: Path, tmp_path: Path) -> None:
    for part, what in (("train", "training"), ("val", "validation")):
        with pytest.raises(HemalumError, match=rf"image \d+ of part '{part}' is also {what} image"):
            refine(tiny, organs, tmp_path / "out", split=part, **ASKED)  # type: ignore[arg-type]


@pytest.mark.fault
def test_parts_that_are_empty_are_named(tiny: Path, organs: Path, tmp_path: Path) -> None:
    data = Dataset.open(organs)
    no_val = replace(data, rows=tuple(row for row in data.rows if row.split != "val"))
    with pytest.raises(HemalumError, match="no images in part 'val', which refining needs"):
        refine(tiny, no_val, tmp_path / "out", **ASKED)  # type: ignore[arg-type]
    no_test = replace(data, rows=tuple(row for row in data.rows if row.split != "test"))
    with pytest.raises(HemalumError, match="no images in part 'test' to measure on"):
        refine(tiny, no_test, tmp_path / "out", **ASKED)  # type: ignore[arg-type]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"seed": -1}, "seed -1: want a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "seed 4294967296: want a whole number"),
        ({"draws": 0}, "at least one random subset"),
        ({"top": "none"}, "want a number of images per organ"),
        ({"trainable": ["nothing"]}, "`trainable` 'nothing': no parameter"),
    ],
)
def test_bad_numbers(tiny: Path, organs: Path, tmp_path: Path, changed: dict, message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        refine(tiny, organs, tmp_path / "out", **ASKED | changed)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_without_organs_all_images_are_one_group(tiny: Path, organs: Path, tmp_path: Path) -> None:
    data = Dataset.open(organs)
    without = replace(data, rows=tuple(replace(row, organ=None) for row in data.rows))
    result = refine(tiny, without, tmp_path / "out", **ASKED | {"draws": 1})  # type: ignore[arg-type]
    assert len(result.chosen["refined"]) == 2
    assert "The dataset names no organs: its images are one group." in result.notes


def test_an_organ_of_which_all_images_are_taken_is_said(tiny: Path, organs: Path, tmp_path: Path) -> None:
    data = Dataset.open(organs)
    livers = [row for row in data.rows if row.split == "train" and row.organ == "liver"]
    fewer = replace(data, rows=tuple(row for row in data.rows if row not in livers[2:]))
    result = refine(tiny, fewer, tmp_path / "out", **ASKED | {"draws": 1})  # type: ignore[arg-type]
    assert "All images of liver are chosen: there, random images are the same ones." in result.notes


def test_another_dataset_to_measure_on(tiny: Path, organs: Path, mini: Path, tmp_path: Path) -> None:
    result = refine(tiny, organs, tmp_path / "out", test=mini, split="all", **ASKED | {"draws": 1})  # type: ignore[arg-type]
    assert len(result.arms["before"]) == 10


@pytest.mark.fault
def test_a_recipe_of_another_version_is_refused(tiny: Path, organs: Path, tmp_path: Path) -> None:
    card, tensors = load_model_file(tiny)
    assert card.training is not None
    training = card.training.model_copy(update={"settings": {"name": "old", "what": 1}})
    save_model(tmp_path / "old.safetensors", card.model_copy(update={"training": training}), tensors)
    with pytest.raises(HemalumError, match="model 'tiny': its recipe is of another version of hemalum"):
        refine(tmp_path / "old.safetensors", organs, tmp_path / "out", **ASKED)  # type: ignore[arg-type]


@pytest.mark.fault
def test_the_verb(tiny: Path, organs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["refine", str(tiny), str(organs), "-o", str(out), "--top", "2", "--epochs", "1", "--draws", "1"]
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert "refining is on the corrections of a review, --project PROJECT, or on what a dataset holds" in error
    assert not out.exists()
    assert cli.main([*words, "--offline", "--engine", "torch", "--accelerator", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "Recall by organ" in printed
    assert str(out / "model.safetensors") in printed
    assert {path.name for path in out.iterdir()} >= {"report.html", "report.md", "report.json", "uncertainty.csv"}
    assert "hemalum refine" in (out / "report.md").read_text()
