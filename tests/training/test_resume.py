"""A run killed at any step and resumed ends with the same weights, bit for bit."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from hemalum.errors import HemalumError
from hemalum.training.recipe import Recipe
from hemalum.training.train import train

# trains in a process of its own, which dies without any clean-up right after the given step
KILLED = """
import os, signal, sys
from hemalum.training.recipe import Recipe
from hemalum.training.train import train
recipe, data, out, last = Recipe.model_validate_json(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
def watch(step, total, row):
    if step == last:
        os.kill(os.getpid(), signal.SIGKILL)
train(recipe, [data], out, threads=1, watch=watch)
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, mini: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(recipe, [mini], out, threads=1)
    return out


@pytest.mark.parametrize(
    "last",
    [1, 5, pytest.param(3, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow),
     pytest.param(8, marks=pytest.mark.slow)],
)  # fmt: skip
def test_killed_and_resumed_equals_uninterrupted(
    last: int, recipe: Recipe, mini: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, recipe.model_dump_json(), str(mini), str(out), str(last)], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "model.safetensors").exists()
    train(recipe, [mini], out, resume=True, threads=1)
    for name in ("checkpoint.safetensors", "best.safetensors", "model.safetensors"):
        expected, found = load_file(whole / name), load_file(out / name)
        assert expected.keys() == found.keys()
        for key in expected:
            np.testing.assert_array_equal(found[key], expected[key], err_msg=f"{name}: {key}")
    assert _log(out) == _log(whole)


def _log(out: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    # a line that spans the kill averages the losses that the resumed process saw
    return [{k: v for k, v in row.items() if k in ("step", "phase", "score", "mini_pq", "lr")} for row in rows]


def test_a_finished_run_can_be_resumed_without_harm(recipe: Recipe, mini: Path, whole: Path) -> None:
    before = load_file(whole / "model.safetensors")
    train(recipe, [mini], whole, resume=True, threads=1)
    after = load_file(whole / "model.safetensors")
    for key in before:
        np.testing.assert_array_equal(after[key], before[key])


def test_a_run_is_not_overwritten(recipe: Recipe, mini: Path, whole: Path) -> None:
    with pytest.raises(HemalumError, match="already holds a run: give --resume"):
        train(recipe, [mini], whole)


def test_nothing_to_resume(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="nothing to resume"):
        train(recipe, [mini], tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_resume_with_a_changed_recipe(recipe: Recipe, mini: Path, whole: Path) -> None:
    changed = recipe.model_copy(update={"clip": 2.0})
    with pytest.raises(HemalumError, match="the recipe has changed since"):
        train(changed, [mini], whole, resume=True)


def test_resume_with_a_damaged_checkpoint(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"damaged")
    with pytest.raises(HemalumError, match=r"checkpoint.safetensors is not a readable checkpoint"):
        train(recipe, [mini], tmp_path, resume=True)
