"""Files of version 0.1: one line that says what a key is called now, or which version reads the file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file, save_file

from hemalum.data.dataset import INFO_FILE, Dataset
from hemalum.errors import HemalumError
from hemalum.settings import RENAMED
from hemalum.training.checkpoint import CHECKPOINT_FILE, read_progress
from hemalum.training.recipe import Recipe, load_recipe
from hemalum.training.train import train

PHASE_KEYS = {"carry", "optimiser", "switches", "unlabelled"}
NESTED = {"levelled": "until", "grey": "augment", "sides": "loss"}


def written(path: Path, recipe: Recipe, changes: dict[str, Any], phase: dict[str, Any]) -> Path:
    content = recipe.model_dump(mode="json")
    content["phases"][0] |= phase
    path.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
    return path


KEYS = [
    "carry",
    "enlarge",
    "finer",
    "grey",
    "keep",
    "labelled",
    "levelled",
    "optimiser",
    "sides",
    "stain_normalisation",
    "switches",
    "unlabelled",
]


@pytest.mark.fault
@pytest.mark.parametrize("key", KEYS)
def test_an_old_key_is_named_with_the_new_one(recipe: Recipe, tmp_path: Path, key: str) -> None:
    changes: dict[str, Any] = {}
    phase: dict[str, Any] = {}
    match NESTED.get(key):
        case "until":
            phase["until"] = {"steps": 1, key: {}}
        case "augment":
            changes["augment"] = {key: 0}
        case "loss":
            phase["loss"] = {"name": "bce", key: "mean"}
        case _:
            (phase if key in PHASE_KEYS else changes)[key] = {}
    path = written(tmp_path / "r.yaml", recipe, changes, phase)
    with pytest.raises(HemalumError, match=rf"'[\w.]*{key}' is called '{RENAMED[key]}' since version 0.2"):
        load_recipe(path)


@pytest.mark.fault
def test_an_old_value_is_named_with_the_new_one(recipe: Recipe, tmp_path: Path) -> None:
    path = written(tmp_path / "r.yaml", recipe, {"input": "grey"}, {})
    with pytest.raises(HemalumError, match=r"'input': 'grey' is called 'gray' since version 0.2$"):
        load_recipe(path)
    path = written(tmp_path / "r.yaml", recipe, {"representation": "centre_gradient"}, {})
    line = r"'representation': 'centre_gradient' is called 'center_gradient' since version 0.2$"
    with pytest.raises(HemalumError, match=line):
        load_recipe(path)


@pytest.mark.fault
@pytest.mark.parametrize("pattern", ["!sides.*", "sides.0.weight", "!heads.*", "!decoder", "aux_head.*"])
def test_a_pattern_that_matches_nothing_is_not_passed_over(
    recipe: Recipe, mini: Path, tmp_path: Path, pattern: str
) -> None:
    path = written(tmp_path / "r.yaml", recipe, {}, {"train": ["*", pattern]})
    line = f"phase 'first': no parameter matches '{pattern}'; the network's parts are "
    with pytest.raises(HemalumError, match=re.escape(line) + ".*decoder, head"):
        train(path, [mini], tmp_path / "run")
    assert not (tmp_path / "run" / CHECKPOINT_FILE).exists()


@pytest.mark.fault
def test_an_old_dataset(mini: Path) -> None:
    info = mini / INFO_FILE
    text = info.read_text(encoding="utf-8")
    try:
        info.write_text(text.replace("format: 2", "format: 1"), encoding="utf-8")
        with pytest.raises(HemalumError, match="dataset format 1, this version reads 2; import again"):
            Dataset.open(mini)
    finally:
        info.write_text(text, encoding="utf-8")


@pytest.mark.fault
def test_an_old_checkpoint(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    train(recipe, [mini], tmp_path / "run")
    path = tmp_path / "run" / CHECKPOINT_FILE
    progress = read_progress(path).model_dump(mode="json", exclude={"format"})
    save_file(load_file(path), path, metadata={"hemalum_progress": json.dumps(progress)})
    with pytest.raises(HemalumError, match="has checkpoint format 1, this hemalum reads format 2"):
        train(recipe, [mini], tmp_path / "run", resume=True)
