"""The program that trains the shipped models on a machine with a GPU, on miniatures and the CPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from hemalum.data.dataset import Dataset
from hemalum.models.file import load_card, load_model_file
from hemalum.training.recipe import open_recipe

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tools" / "train_shipped.py"
SCRIPT = ROOT / "tools" / "train_shipped.sh"


def call(*command: Path | str, python: Path | str = sys.executable) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": str(python), "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def folders(mini: Path, tmp_path: Path) -> list[Path]:
    """The dataset `mini` under the name of each set that the shipped models are trained on."""
    made = []
    for name in open_recipe("accurate").data:
        folder = tmp_path / "data" / name
        shutil.copytree(mini, folder)
        info = yaml.safe_load((folder / "dataset.yaml").read_text())
        (folder / "dataset.yaml").write_text(yaml.safe_dump(info | {"name": name}))
        made.append(folder)
    return made


def test_a_pack_is_train_and_val_no_finer_than_needed(mini: Path, tmp_path: Path) -> None:
    fine = tmp_path / "fine"
    shutil.copytree(mini, fine)
    index = (fine / "index.csv").read_text()
    assert ",0.5," in index
    (fine / "index.csv").write_text(index.replace(",0.5,", ",0.1,"))
    for folder, factor in ((mini, 1.0), (fine, 0.5)):
        done = call(sys.executable, PROGRAM, "pack", folder, "-o", tmp_path / "packed")
        assert done.returncode == 0, done.stderr
        source, packed = Dataset.open(folder), Dataset.open(tmp_path / "packed" / "mini")
        assert [row.id for row in packed.rows] == [row.id for row in source.rows if row.split != "test"]
        by_id = {row.id: index for index, row in enumerate(source.rows)}
        for index, row in enumerate(packed.rows):
            sample, original = packed[index], source[by_id[row.id]]
            side = round(64 * factor)
            assert sample.image.shape == (side, side, 3)
            assert sample.mpp == pytest.approx(max(original.mpp or 0, 0.2))
            resized = Image.fromarray(original.instances.astype(np.int32)).resize(
                (side, side), Image.Resampling.NEAREST
            )
            np.testing.assert_array_equal(sample.instances, np.asarray(resized))
            plain = Image.fromarray(original.image).resize((side, side), Image.Resampling.BILINEAR)
            blocks = (
                (sample.image.astype(float) - np.asarray(plain)).reshape(side // 8, 8, side // 8, 8, 3).mean((1, 3))
            )
            assert np.abs(blocks).max() < 6  # JPEG loses the miniature's colored noise, not its colors


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = call(SCRIPT, "run", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr == "error: no GPU here: run this on a machine with one, or give --accelerator cpu\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack"], "error: name the dataset folders: tools/train_shipped.sh pack data/tnbc …"),
        (["run", "OUT", "--accelerator", "cpu", "--pack", "/no/such"], "error: /no/such is missing: run"),
        (
            ["run", "OUT", "--accelerator", "cpu", "--models", "fast=x", "--pack", "/"],
            "error: --models 'fast=x': want",
        ),
        (
            ["run", "OUT", "--accelerator", "cpu", "--models", "fast=0", "--pack", "/"],
            "error: --models 'fast=0': want",
        ),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = call(SCRIPT, *(str(tmp_path / "out") if word == "OUT" else word for word in arguments))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(message)
    assert not (tmp_path / "out").exists()


def test_a_python_without_the_packages_is_named(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    python.chmod(0o755)
    done = call(SCRIPT, "run", tmp_path / "out", python=python)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {python} lacks what training needs (ModuleNotFoundError: No module named")
    assert not (tmp_path / "out").exists()


def test_a_word_that_it_does_not_know_shows_how_it_is_used() -> None:
    done = call(SCRIPT, "trian")
    assert done.returncode == 2
    assert "tools/train_shipped.sh run OUT" in done.stderr


def test_a_model_that_fails_is_named(mini: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    done = call(
        SCRIPT, "run", tmp_path / "out", "--accelerator", "cpu", "--models", "fast", "--pack", tmp_path / "pack"
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: failed: fast; see {tmp_path / 'out'}/NAME.txt"
    assert "error: " in (tmp_path / "out" / "fast.txt").read_text()


def test_a_model_starts_from_the_shipped_weights_of_its_network(folders: list[Path], tmp_path: Path) -> None:
    """Which they are is said here by what does not fit: the small form has another network."""
    out = tmp_path / "out"
    done = call(
        SCRIPT, "run", out, "--models", "fast,accurate", "--pack", folders[0].parent, "--accelerator", "cpu",
        "--steps", "1", "--budget", "small", "--start", "shipped",
    )  # fmt: skip
    assert done.returncode == 2
    assert "failed: fast, accurate;" in done.stderr.splitlines()[-1]
    for name in ("fast", "accurate"):
        last_line = (out / f"{name}.txt").read_text().splitlines()[-1]
        assert f"weights/{name}.safetensors does not fit the recipe's network" in last_line


@pytest.mark.slow
def test_ten_steps_on_a_cpu(folders: list[Path], tmp_path: Path) -> None:
    packed, out = tmp_path / "packed", tmp_path / "out"
    done = call(sys.executable, PROGRAM, "pack", *folders, "-o", packed)
    assert done.returncode == 0, done.stderr
    done = call(
        SCRIPT, "run", out, "--accelerator", "cpu", "--steps", "10", "--budget", "small", "--pack", packed
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("accurate", "fast"):
        card, tensors = load_model_file(out / f"{name}.safetensors")
        assert load_card(out / f"{name}.safetensors") == card
        assert card.training is not None
        assert card.training.steps == 10
        assert {used.name for used in card.training.data} == {folder.name for folder in folders}
        assert {value.dtype for value in tensors.values()} <= {np.dtype(np.float16), np.dtype(np.int64)}
        steps = [json.loads(line)["step"] for line in (out / f"{name}.jsonl").read_text().splitlines()]
        assert steps == [4, 8, 10]
        scores = json.loads((out / f"{name}.json").read_text())
        assert scores.keys() == {folder.name for folder in folders}
        assert all(0 <= score["dice"] <= 1 and 0 <= score["pq"] <= 1 for score in scores.values())
        assert "10/10" in (out / f"{name}.txt").read_text()
