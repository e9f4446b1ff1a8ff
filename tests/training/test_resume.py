"""A run killed at any step and resumed ends with the same weights, bit for bit."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from builders.trainings import assert_same_run, read_log, train_until_killed
from hemalum.errors import HemalumError
from hemalum.manifest import lock_folder
from hemalum.training.recipe import Recipe
from hemalum.training.train import train


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, mini: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "uninterrupted"
    train(recipe, [mini], out, threads=1)
    return out


@pytest.mark.parametrize(
    "last",
    [1, 5, pytest.param(3, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow),
     pytest.param(8, marks=pytest.mark.slow)],
)  # fmt: skip
def test_killed_and_resumed_equals_uninterrupted(
    last: int, recipe: Recipe, mini: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    train_until_killed(recipe, mini, out, last)
    train(recipe, [mini], out, resume=True, threads=1)
    assert_same_run(out, uninterrupted)
    # a line that spans the kill averages the losses that the resumed process saw
    rows, expected = (
        [{key: row[key] for key in ("step", "phase", "score", "mini_pq", "lr")} for row in read_log(run)]
        for run in (out, uninterrupted)
    )
    assert rows == expected


def test_a_finished_run_can_be_resumed_without_harm(recipe: Recipe, mini: Path, uninterrupted: Path) -> None:
    before = load_file(uninterrupted / "model.safetensors")
    train(recipe, [mini], uninterrupted, resume=True, threads=1)
    after = load_file(uninterrupted / "model.safetensors")
    for key in before:
        np.testing.assert_array_equal(after[key], before[key])


@pytest.mark.fault
def test_a_run_is_not_overwritten(recipe: Recipe, mini: Path, uninterrupted: Path) -> None:
    with pytest.raises(HemalumError, match="already holds a run: give `resume`"):
        train(recipe, [mini], uninterrupted)


@pytest.mark.fault
@pytest.mark.parametrize("file", ["model.safetensors", "index.csv", "log.jsonl"])
def test_files_of_others_are_not_overwritten(recipe: Recipe, mini: Path, tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("mine")
    with pytest.raises(HemalumError, match=r"is not empty and holds no training; choose another folder$"):
        train(recipe, [mini], tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(file, "mine")]


def test_a_run_without_a_checkpoint_is_started_anew(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    (tmp_path / "training.yaml").write_text("format: 2\nrecipe: x\ndata: y\n")
    (tmp_path / "recipe.yaml").touch()
    assert train(recipe, [mini], tmp_path).is_file()


@pytest.mark.fault
def test_nothing_to_resume(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="nothing to resume"):
        train(recipe, [mini], tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.fault
def test_resume_with_a_changed_recipe(recipe: Recipe, mini: Path, uninterrupted: Path) -> None:
    changed = recipe.model_copy(update={"clip": 2.0})
    with pytest.raises(HemalumError, match="the recipe has changed since"):
        train(changed, [mini], uninterrupted, resume=True)


@pytest.mark.fault
def test_resume_with_corrected_labels(recipe: Recipe, mini: Path, uninterrupted: Path, tmp_path: Path) -> None:
    corrected = tmp_path / "mini"
    shutil.copytree(mini, corrected)
    path = next((corrected / "labels").iterdir())
    Image.fromarray(np.roll(np.asarray(Image.open(path)), 7, axis=0)).save(path)
    with pytest.raises(HemalumError, match="the data, its labels or its split have changed since"):
        train(recipe, [corrected], uninterrupted, resume=True, threads=1)


@pytest.mark.fault
def test_resume_with_a_damaged_checkpoint(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"damaged")
    with pytest.raises(HemalumError, match=r"checkpoint.safetensors is not a readable checkpoint"):
        train(recipe, [mini], tmp_path, resume=True)


@pytest.mark.fault
def test_two_cannot_train_in_one_folder(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    with lock_folder(tmp_path / "run"), pytest.raises(HemalumError, match=r"run: another process is training there$"):
        train(recipe, [mini], tmp_path / "run")
    train(recipe, [mini], tmp_path / "run")
    with lock_folder(tmp_path / "run"), pytest.raises(HemalumError, match=r"run: another process is training there$"):
        train(recipe, [mini], tmp_path / "run", resume=True)


@pytest.mark.fault
def test_resume_without_its_manifest(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    train(recipe, [mini], tmp_path / "run")
    (tmp_path / "run" / "training.yaml").unlink()
    with pytest.raises(HemalumError, match=r"training\.yaml: cannot be read"):
        train(recipe, [mini], tmp_path / "run", resume=True)
