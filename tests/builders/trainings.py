"""Trainings that take seconds: a recipe, its dataset, what the parts of its loop share, and a run that is killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from hemalum.data.importing import import_dataset
from hemalum.training.context import TrainContext
from hemalum.training.recipe import Recipe

RECIPE: dict[str, Any] = {
    "name": "mini",
    "seed": 3,
    "network": {"name": "compact", "options": {"widths": [8, 12, 16], "depths": [0, 1, 1]}},
    "representation": "distance",
    "mpp": 0.5,
    "tile": 32,
    "batch": 2,
    "data": {"mini": {"balance": "group"}},
    "phases": [
        {"name": "first", "until": {"steps": 5}},
        {
            "name": "second",
            "train": ["decoder.*", "head.*"],
            "optimizer": {"name": "sgd", "lr": 0.01},
            "schedule": {"name": "plateau", "patience": 1},
            "until": {"steps": 4},
        },
    ],
    "ema": 0.9,
    "clip": 1.0,
    "validate_every": 2,
    "checkpoint_every": 2,
}

# trains in a process of its own, which dies without any clean-up right after the given step
_KILLED = """
import os, signal, sys
from hemalum.training.recipe import Recipe
from hemalum.training.train import train
recipe, data, out, last = Recipe.model_validate_json(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
def on_progress(step, total, figures):
    if step == last:
        os.kill(os.getpid(), signal.SIGKILL)
train(recipe, [data], out, threads=1, accelerator="cpu", on_progress=on_progress)
"""


def import_mini(folder: Path) -> Path:
    """A dataset folder "mini" of ten images in five groups, at 0.5 µm/px, with dark discs as nuclei."""
    rng = np.random.default_rng(0)
    tiles = []
    y, x = np.mgrid[:64, :64]
    for number in range(10):
        labels = np.zeros((64, 64), np.uint16)
        for index in range(1, 7):
            cy, cx = rng.integers(6, 58, 2)
            labels[(y - cy) ** 2 + (x - cx) ** 2 < 36] = index
        image = np.where(labels[..., None] > 0, [110, 80, 160], [230, 190, 215]) + rng.normal(0, 8, (64, 64, 3))
        tiles.append((image, labels, f"p{number // 2}"))
    source = write_source(folder / "source", tiles, "patient")
    target = folder / "mini"
    import_dataset("folder", source, target, mpp=0.5, group="patient", split=(0.6, 0.2, 0.2), name="mini")
    return target


def write_source(
    source: Path, tiles: Iterable[tuple[NDArray[Any], NDArray[Any], str]], column: str, digits: int = 1
) -> Path:
    """A folder that `hemalum import folder` reads: images, label maps, and an index with one more column."""
    lines = [f"image,label,{column}"]
    for folder in ("images", "labels"):
        (source / folder).mkdir(parents=True)
    for number, (image, labels, value) in enumerate(tiles):
        name = f"{number:0{digits}}.png"
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(source / "images" / name)
        Image.fromarray(labels).save(source / "labels" / name)
        lines.append(f"{name},{name},{value}")
    (source / "index.csv").write_text("\n".join(lines) + "\n")
    return source


def write_short_recipe(folder: Path, recipe: Recipe, name: str, **changes: Any) -> Path:
    """A recipe file that trains for a moment on any dataset, in one phase."""
    content = recipe.model_dump(mode="json", exclude={"budget"})
    content |= {"name": name, "data": {}, "phases": [{"name": "main", "until": {"steps": 4}}], "validate_every": 2}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content | {"small": {"batch": 1}} | changes))
    return path


class OneOfSeveral(Fabric):
    """A Fabric on the CPU that counts processes beside this one which do not run."""

    def __init__(self, rank: int, processes: int) -> None:
        self._rank, self._processes = rank, processes
        super().__init__(accelerator="cpu", devices=1)

    @property
    def global_rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._processes


def make_context(recipe: Recipe, share: tuple[int, int] = (0, 1), **fields: Any) -> TrainContext:
    """What the parts of a training share, in one of several processes; without a folder, unless `fields` have one."""
    return TrainContext(recipe, OneOfSeveral(*share), fields.pop("folder", Path()), **fields)


def train_until_killed(recipe: Recipe, data: Path, out: Path, step: int) -> None:
    """Train up to a step, after which the process is killed."""
    command = [sys.executable, "-c", _KILLED, recipe.model_dump_json(), str(data), str(out), str(step)]
    killed = subprocess.run(command, check=False, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "model.safetensors").exists()


def read_log(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def assert_same_run(actual: Path, expected: Path, atol: float = 0.0) -> None:
    """Two runs have the same files of weights, whose tensors differ by `atol` at most."""
    names = sorted(path.name for path in expected.glob("*.safetensors"))
    assert {"checkpoint.safetensors", "model.safetensors"} < set(names)
    assert sorted(path.name for path in actual.glob("*.safetensors")) == names
    for name in names:
        tensors, wanted = load_file(actual / name), load_file(expected / name)
        assert tensors.keys() == wanted.keys()
        for key, value in wanted.items():
            np.testing.assert_allclose(tensors[key], value, rtol=0, atol=atol, err_msg=f"{name}: {key}")
