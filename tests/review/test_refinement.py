"""Refinement on a review from end to end on a tiny model: what is learned from, what is measured, what is refused."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders.trainings import RECIPE, read_log
from hemalum import cli
from hemalum.data.dataset import Dataset, DatasetInfo, SplitInfo, pixel_hash, write_index, write_sample
from hemalum.errors import HemalumError
from hemalum.experiments.execute import Resources
from hemalum.losses import Distilled
from hemalum.models.file import save_model
from hemalum.models.model import load_model
from hemalum.nuclei.nuclei import Nuclei
from hemalum.review import Item, Project, ReviewedRefinement, correct_item, edits, refine_reviewed
from hemalum.training.recipe import Recipe
from hemalum.training.train import train

TORCH = Resources(engine="torch", accelerator="cpu", threads=1)
ASKED: dict[str, Any] = {"epochs": 1, "lr": 1e-3, "resources": TORCH}


@pytest.fixture(scope="module")
def model(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(Recipe.model_validate(RECIPE), [mini], tmp_path_factory.mktemp("model") / "run", threads=1)


def write_mirrored(mini: Path, folder: Path, count: int = 5) -> Dataset:
    """A dataset folder of images that no model has seen: those of `mini`, mirrored; each is a group of its own."""
    rows = []
    folder.mkdir()
    for number, sample in enumerate(Dataset.open(mini)[:count]):
        mirrored = replace(
            sample, image=np.ascontiguousarray(sample.image[:, ::-1]), instances=sample.instances[:, ::-1].copy(),
            id=f"m{number}", source=f"m{number}", group=f"m{number}", organ=("liver", "brain")[number % 2],
        )  # fmt: skip
        rows.append(write_sample(folder, mirrored))
    rows = [replace(row, split="test") for row in rows]
    split = SplitInfo.of({row.id: row.split for row in rows}, by="image", seed=0)
    info = DatasetInfo(name=folder.name, mpp=0.5, images=count, nuclei=1, split=split)
    write_index(folder, info, rows)
    return Dataset.open(folder)


def begin_review(
    project: Path, model: Path, data: Dataset, corrects: Callable[[Project, Any], Any] | None = None, **facts: Any
) -> Path:
    """A review of the images of a dataset, whose proposals are off by 3 px; each is corrected to the truth."""
    loaded = load_model(model)
    with Project.join(project, source=str(data.path), model=loaded.card.name, model_digest=loaded.digest) as opened:
        for sample in data:
            known = {"mpp": sample.mpp, "mpp_source": sample.mpp_source, "group": sample.group, "organ": sample.organ}
            height, width = sample.instances.shape
            item = Item(sample.id, (height, width), pixel_hash(sample.image), **known | facts)
            opened.journal.add_item(item, Nuclei.from_labels(np.roll(sample.instances, 3, axis=1)))
            if corrects is None:
                correct_item(opened.journal, sample.id, sample.instances)
            else:
                corrects(opened, sample)
    return project


@pytest.fixture(scope="module")
def mirrored(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_mirrored(mini, tmp_path_factory.mktemp("mirrored") / "mirrored")


@pytest.fixture(scope="module")
def project(model: Path, mirrored: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return begin_review(tmp_path_factory.mktemp("review") / "project", model, mirrored)


@pytest.fixture(scope="module")
def refined(model: Path, project: Path, mini: Path, tmp_path_factory: pytest.TempPathFactory) -> ReviewedRefinement:
    """With replay; the guard is the replayed dataset's validation part."""
    return refine_reviewed(model, project, tmp_path_factory.mktemp("refined") / "new", replay=mini, **ASKED)


def test_a_share_of_the_images_is_held_out_for_ever(refined: ReviewedRefinement, project: Path) -> None:
    parts = refined.corrections.parts
    assert sorted(parts.values()) == ["test", "train", "train", "train", "train"]
    noted = json.loads((project / "held_out.json").read_text())
    assert noted == {"parts": dict(parts), "by_image": [], "by_window": []}  # each image is a group of its own
    data = Dataset.open(refined.out / "corrections")
    assert {row.id: row.split for row in data.rows} == dict(parts)
    assert [one.kind for one in refined.compared] == ["held out", "guard"]
    assert refined.compared[0].before.ids == tuple(name for name, part in parts.items() if part == "test")


def test_what_is_learned_from(refined: ReviewedRefinement, model: Path, mini: Path) -> None:
    card = load_model(refined.model).card
    assert card.training is not None
    assert {used.name: used.samples for used in card.training.data} == {
        f"corrections_{refined.corrections.project[:8]}": 4,
        "mini": len(Dataset.open(mini).split("train")),
    }
    before, after = load_model(model).tensors, load_model(refined.model).tensors
    changed = {name.partition(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"lateral", "decoder", "head"}
    recipe = Recipe.model_validate(card.training.settings)
    assert recipe.sampling is not None
    assert recipe.sampling.name == "fixed_shares"
    assert recipe.batch == 2
    # four items of 64 x 64 px have the area of 16 crops of 32 px; one of each batch is of them
    assert refined.steps == card.training.steps == 16


def test_what_was_corrected_is_not_replayed(model: Path, mini: Path, tmp_path: Path) -> None:
    data = Dataset.open(mini)
    rows = (*data.split("train").rows[:3], data.split("val").rows[0])
    project = begin_review(tmp_path / "project", model, replace(data, rows=rows))
    result = refine_reviewed(model, project, tmp_path / "new", replay=mini, guards=[f"{mini}:test"], **ASKED)
    training = load_model(result.model).card.training
    assert training is not None
    assert [used.samples for used in training.data if used.name == "mini"] == [3]
    assert result.notes[0] == "Of --replay, 4 images that were corrected in this review are left out."


@pytest.mark.fault
def test_all_that_would_be_replayed_was_corrected(model: Path, mini: Path, tmp_path: Path) -> None:
    project = begin_review(tmp_path / "project", model, Dataset.open(mini).split("train"))
    assert refuse(model, project, tmp_path / "new", replay=mini) == (
        f"`replay` {mini}: all of its training images were corrected, so none is left of before: leave `replay` out "
        "to distill from the model"
    )


def test_the_curves_of_training_are_of_items_that_are_learned_from(refined: ReviewedRefinement) -> None:
    lines = read_log(refined.out / "training")
    assert len(lines) == 8
    assert [name for name in lines[0] if name.endswith("_pq")] == [
        f"corrections_{refined.corrections.project[:8]}_pq"
    ]


def test_the_guard_is_the_validation_part_of_what_is_replayed(refined: ReviewedRefinement, mini: Path) -> None:
    guard = refined.compared[1]
    assert (guard.name, guard.split) == ("mini", "val")
    assert guard.before.ids == tuple(row.id for row in Dataset.open(mini).split("val").rows)


def test_the_card_names_parent_corrections_and_results(refined: ReviewedRefinement, model: Path) -> None:
    parent, refinement = load_model(model), load_model(refined.model).card.refinement
    assert refinement is not None
    assert refinement.parent == "mini"
    assert refinement.ancestors == [parent.digest]
    assert (refinement.items, refinement.held_out) == (4, 1)
    assert refinement.events == dict(refined.corrections.events)
    assert refinement.events["mark"] == 5
    assert refinement.kept_by == "replay of 6 training images of mini"
    assert refinement.better == refined.decision.better
    assert refinement.decision == refined.line
    assert [change.kind for change in refinement.changes] == ["held out", "guard"]
    assert refinement.changes[1].dice_before == pytest.approx(refined.compared[1].dice.mean_b)


def test_what_is_finished_is_kept(
    refined: ReviewedRefinement, model: Path, project: Path, mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr("hemalum.experiments.refinement_steps.train", fail)
    monkeypatch.setattr("hemalum.experiments.refinement_steps.measure", fail)
    again = refine_reviewed(model, project, refined.out, replay=mini, tolerance=0.5, **ASKED)
    assert again.record == refined.record | {"tolerance": 0.5}
    assert again.compared[0].change == refined.compared[0].change


def test_it_goes_on_where_it_stopped(
    refined: ReviewedRefinement, model: Path, project: Path, mini: Path, tmp_path: Path
) -> None:
    class Stopped(Exception):
        pass

    def stop(step: str, done: int, total: int) -> None:
        if (step, done) == ("training", 9):
            raise Stopped

    with pytest.raises(Stopped):
        refine_reviewed(model, project, tmp_path / "new", replay=mini, on_progress=stop, **ASKED)
    assert not (tmp_path / "new" / "model.safetensors").exists()
    again = refine_reviewed(model, project, tmp_path / "new", replay=mini, **ASKED)
    resumed = load_model(again.model).tensors
    for name, value in load_model(refined.model).tensors.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
    assert again.compared[0].change == refined.compared[0].change


def test_without_replay_the_model_is_distilled_and_nothing_guards(model: Path, project: Path, tmp_path: Path) -> None:
    result = refine_reviewed(model, project, tmp_path / "new", **ASKED)
    card = load_model(result.model).card
    assert card.training is not None
    assert isinstance(Recipe.model_validate(card.training.settings).phases[0].loss, Distilled)
    assert "loss_distillation" in read_log(result.out / "training")[0]
    assert len(result.compared) == 1
    assert result.notes[0].startswith("Nothing guards this refinement: ")
    assert result.record["kept_by"] == "distillation from the model as it was"
    assert result.use == (str(result.model) if result.decision.better else str(model))


def test_neither_replay_nor_distillation(model: Path, project: Path, tmp_path: Path) -> None:
    result = refine_reviewed(model, project, tmp_path / "new", replay="none", **ASKED)
    card = load_model(result.model).card
    assert card.training is not None
    assert not isinstance(Recipe.model_validate(card.training.settings).phases[0].loss, Distilled)
    assert "loss_distillation" not in read_log(result.out / "training")[0]
    assert any(note.startswith("Nothing kept the model from forgetting") for note in result.notes)


def test_what_was_held_out_stays_so_when_more_is_reviewed(model: Path, mirrored: Dataset, tmp_path: Path) -> None:
    first = {"m0", "m1", "m2"}

    def correct_first(project: Project, sample: Any) -> None:
        if sample.id in first:
            correct_item(project.journal, sample.id, sample.instances)

    project = begin_review(tmp_path / "project", model, mirrored, correct_first)
    before = refine_reviewed(model, project, tmp_path / "one", **ASKED).corrections.parts
    with Project.open(project) as opened:
        for sample in mirrored:
            if sample.id not in first:
                correct_item(opened.journal, sample.id, sample.instances)
    after = refine_reviewed(model, project, tmp_path / "two", holdout=0.6, **ASKED).corrections.parts
    assert set(before) == first
    assert {name: after[name] for name in first} == dict(before)
    assert sorted(after.values()) == ["test", "test", "test", "train", "train"]


def test_a_model_can_be_refined_again(refined: ReviewedRefinement, project: Path, tmp_path: Path) -> None:
    result = refine_reviewed(refined.model, project, tmp_path / "again", **ASKED)
    card = load_model(result.model).card
    assert card.refinement is not None
    assert card.refinement.ancestors == [load_model(refined.model).digest, *refined_ancestors(refined)]
    third = load_model(result.model).card.training
    assert third is not None
    assert len(third.earlier) == 2


def refined_ancestors(refined: ReviewedRefinement) -> list[str]:
    refinement = load_model(refined.model).card.refinement
    assert refinement is not None
    return refinement.ancestors


def test_of_one_slide_windows_are_held_out(
    model: Path, mirrored: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = begin_review(tmp_path / "project", model, mirrored[:4], group=None, source="slide.svs")
    result = refine_reviewed(model, project, tmp_path / "new", **ASKED)
    assert sorted(result.corrections.parts.values()) == ["test", "train", "train", "train"]
    line = (
        "Held-out windows are of the same image as some that are learned from (slide.svs): they say less than those "
        "of another."
    )
    assert line in result.notes
    assert line in caplog.text


def test_images_are_read_by_the_caller(model: Path, mirrored: Dataset, tmp_path: Path) -> None:
    project = begin_review(tmp_path / "project", model, mirrored)
    images = {sample.id: sample.image for sample in mirrored}
    asked: list[str] = []

    def read(item: Item) -> Any:
        asked.append(item.name)
        return images[item.name]

    refine_reviewed(model, project, tmp_path / "new", read_image=read, **ASKED)
    assert asked == list(images)


def test_the_program_prints_the_model_to_go_on_with(
    model: Path, project: Path, mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["refine", str(model), "--project", str(project), "-o", str(tmp_path / "new"), "--replay", str(mini)]
    words += ["--guard", f"{mini}:test", "--guard", f"{mini}:val", "--epochs", "1", "--engine", "torch"]
    rc = cli.main(words)
    out = capsys.readouterr().out
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    assert rc == (0 if report["better"] else 3)
    assert out.splitlines()[-1] == report["use"]
    assert report["use"] == (str(tmp_path / "new" / "model.safetensors") if report["better"] else str(model))
    assert [change["split"] for change in report["changes"]] == ["test", "test", "val"]
    page = (tmp_path / "new" / "report.html").read_text()
    for words_there in ("guard mini, val", "By organ: held-out corrections", "drawn anew", report["decision"][:20]):
        assert words_there in page
    assert "<svg" in page
    assert "guard mini, test" in (tmp_path / "new" / "report.md").read_text()
    assert cli.main(["info", str(tmp_path / "new" / "model.safetensors")]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "refined from mini (" in text
    assert "held-out corrections: PQ" in text


def test_a_model_that_got_worse_is_not_called_better(
    model: Path, project: Path, mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new"
    # a rate that nothing survives
    words = ["refine", str(model), "--project", str(project), "-o", str(out), "--lr", "3", "--trainable", "all"]
    words += ["--guard", f"{mini}:all", "--epochs", "1", "--engine", "torch"]
    words[-5] = f"{mini}:test"
    assert cli.main(words) == 3
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == str(model)
    assert "Not better: " in captured.out
    assert (out / "model.safetensors").is_file()
    refinement = load_model(out / "model.safetensors").card.refinement
    assert refinement is not None
    assert not refinement.better


# what a user can get wrong


def refuse(model: Path, project: Path, out: Path, **options: Any) -> str:
    with pytest.raises(HemalumError) as caught:
        refine_reviewed(model, project, out, **ASKED | options)
    return str(caught.value)


@pytest.mark.fault
def test_nothing_is_reviewed(model: Path, mirrored: Dataset, tmp_path: Path) -> None:
    project = begin_review(tmp_path / "project", model, mirrored, lambda project, sample: None)
    assert refuse(model, project, tmp_path / "new") == (
        f"{project}: no item is marked as reviewed, so there are no corrections to refine on: hemalum review "
        f"{mirrored.path} -p {project}"
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.fault
def test_nothing_was_changed(model: Path, mirrored: Dataset, tmp_path: Path) -> None:
    def agree(project: Project, sample: Any) -> None:
        state = project.journal.state(sample.id)
        project.journal.append(sample.id, "Anna", edits.mark(state, "reviewed"), state.version)

    project = begin_review(tmp_path / "project", model, mirrored, agree)
    assert refuse(model, project, tmp_path / "new") == (
        f"{project}: no nucleus was changed in 5 reviewed items, so there are no corrections to refine on"
    )


@pytest.mark.fault
def test_a_scale_that_is_not_known(model: Path, mirrored: Dataset, tmp_path: Path) -> None:
    project = begin_review(tmp_path / "project", model, mirrored, mpp=None)
    assert refuse(model, project, tmp_path / "new") == (
        f"{project}: the scale of m0 is not known, which training needs: review it in a project that was begun with "
        "`mpp` NUMBER"
    )


@pytest.mark.fault
def test_a_review_of_another_model(model: Path, project: Path, tmp_path: Path) -> None:
    loaded = load_model(model)
    other = {name: value + 1 if name == "head.bias" else value for name, value in loaded.tensors.items()}
    save_model(tmp_path / "other.safetensors", loaded.card.model_copy(update={"name": "other"}), other)
    assert refuse(tmp_path / "other.safetensors", project, tmp_path / "new") == (
        f"{project}: is a review of another model, 'mini', and 'other' was not refined from it: refine that one, or "
        "review with this one"
    )


@pytest.mark.fault
def test_no_review_there(model: Path, tmp_path: Path) -> None:
    assert refuse(model, tmp_path, tmp_path / "new").startswith(f"{tmp_path}: holds no review; hemalum review SOURCE")


@pytest.mark.fault
def test_an_exported_model(project: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    line = refuse(tmp_path / "model.onnx", project, tmp_path / "new")
    assert line == f"{tmp_path / 'model.onnx'}: is an exported model, which cannot be trained: give its .safetensors"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"tolerance": 1.5}, "`tolerance` is 1.5: want by how much a guard may fall, from 0 to below 1"),
        ({"tolerance": float("nan")}, "`tolerance` is nan: want by how much a guard may fall, from 0 to below 1"),
        ({"holdout": 0}, "`holdout` is 0: want a share between 0 and 1, such as 0.25"),
        ({"lr": 0.0}, "lr must be above 0, not 0.0"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        (
            {"trainable": ["enc"]},
            "`trainable` 'enc': no parameter of network 'compact' matches; its parts are decoder, encoder, head, "
            "lateral",
        ),
    ],
)
def test_numbers_and_patterns(model: Path, project: Path, tmp_path: Path, options: dict[str, Any], line: str) -> None:
    assert refuse(model, project, tmp_path / "new", **options) == line
    assert not (tmp_path / "new").exists()


@pytest.mark.fault
def test_a_guard_without_images_or_labels(model: Path, project: Path, mirrored: Dataset, tmp_path: Path) -> None:
    guard = shutil.copytree(mirrored.path, tmp_path / "guard")
    assert refuse(model, project, tmp_path / "new", guards=[f"{guard}:val"]) == (
        f"`guard` {guard}: no images in part 'val'; give another one, as {guard}:all"
    )
    data = Dataset.open(guard)
    write_index(guard, data.info, [replace(row, nuclei=0) for row in data.rows])
    assert refuse(model, project, tmp_path / "new", guards=[guard]) == (
        f"`guard` {guard}: no image of part 'test' has a labeled nucleus, and without labels nothing can be measured"
    )


@pytest.mark.fault
def test_a_guard_whose_images_are_learned_from(
    model: Path, project: Path, mini: Path, mirrored: Dataset, tmp_path: Path
) -> None:
    ending = ": guard with images that are not trained on"
    assert refuse(model, project, tmp_path / "new", guards=[mirrored.path]) == (
        f"`guard` {mirrored.path}: image m0 of part 'test' is the corrected item m0{ending}"
    )
    first = Dataset.open(mini).split("train").rows[0].id
    assert refuse(model, project, tmp_path / "new", guards=[f"{mini}:train"]) == (
        f"`guard` {mini}: image {first} of part 'train' is one that 'mini' has learned from{ending}"
    )
    assert refuse(model, project, tmp_path / "new", guards=[f"{mini}:train"], replay=mini) == (
        f"`guard` {mini}: image {first} of part 'train' is training image {first} of `replay`{ending}"
    )


@pytest.mark.fault
def test_replay_of_what_the_model_has_never_seen(
    model: Path, project: Path, mirrored: Dataset, tmp_path: Path
) -> None:
    assert refuse(model, project, tmp_path / "new", replay=mirrored.path) == (
        f"`replay` {mirrored.path}: 'mini' has not learned from any of its training images (its card names mini): "
        "give what it was trained on, or leave `replay` out to distill from the model"
    )


@pytest.mark.fault
def test_images_that_are_gone_or_changed(model: Path, mirrored: Dataset, tmp_path: Path) -> None:
    source = shutil.copytree(mirrored.path, tmp_path / "source")
    project = begin_review(tmp_path / "project", model, Dataset.open(source))
    file = source / "images" / "m1.png"
    image = np.array(Image.open(file))
    Image.fromarray(255 - image).save(file)
    assert refuse(model, project, tmp_path / "new") == (
        "m1: is another image than the one that was reviewed; put that one back"
    )
    assert not (tmp_path / "new" / "corrections").exists()
    file.unlink()
    assert "m1" in refuse(model, project, tmp_path / "new")
    shutil.rmtree(source)
    assert refuse(model, project, tmp_path / "new") == (
        f"{project}: the images of this review cannot be opened: {source}: no such file or folder"
    )


@pytest.mark.fault
def test_a_folder_that_holds_something_else(
    refined: ReviewedRefinement, model: Path, project: Path, mini: Path, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    assert refuse(model, project, tmp_path) == (
        f"{tmp_path}: is not empty and holds no reviewed_refinement; choose another folder"
    )
    assert refuse(model, project, refined.out, replay=mini, epochs=2) == (
        f"{refined.out} holds another reviewed_refinement: epochs is 1 there, 2 here"
    )


@pytest.mark.fault
def test_a_note_of_what_is_held_out_that_is_damaged(model: Path, mirrored: Dataset, tmp_path: Path) -> None:
    project = begin_review(tmp_path / "project", model, mirrored)
    lists: dict[str, Any] = {"by_image": [], "by_window": []}
    damaged = [json.dumps({"parts": {"m0": part}} | lists) for part in ("both", [])]
    for text in ("[]", "{", "{}", *damaged, json.dumps({"parts": {}, "by_image": "m0", "by_window": []})):
        (project / "held_out.json").write_text(text)
        line = refuse(model, project, tmp_path / "new")
        assert re.fullmatch(rf"{project / 'held_out.json'}: cannot be read \(.+\); put it back from a copy", line), (
            line
        )


@pytest.mark.fault
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            [],
            "refining is on the corrections of a review, --project PROJECT, or on what a dataset holds, DATASET "
            "--offline: give one",
        ),
        (
            ["--project", "p", "--offline"],
            "refining is on the corrections of a review, --project PROJECT, or on what a dataset holds, DATASET "
            "--offline: give one of them",
        ),
        (["--offline"], "--offline refines on a dataset: give hemalum refine MODEL DATASET --offline -o NEW"),
        (["data", "--offline", "--guard", "x"], "--guard goes with --project, not with --offline"),
        (["--project", "p", "--top", "5"], "--top goes with --offline, not with --project"),
        (
            ["data", "--project", "p"],
            "with --project the images are those of the review: leave out data, or give it as --replay or --guard",
        ),
    ],
)
def test_two_ways_to_refine(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["refine", "model", *words, "-o", "new"]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"
