"""A key in the wrong place of a recipe, or of another file of settings, is named with the place where it belongs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from hemalum.data.dataset import Dataset, DatasetInfo
from hemalum.errors import HemalumError
from hemalum.settings import build_named, explain, key_locations
from hemalum.systems import SYSTEMS
from hemalum.training.recipe import Recipe, load_recipe

pytestmark = pytest.mark.fault

RECIPE: dict[str, Any] = {
    "name": "mine", "network": {"name": "compact"}, "mpp": 0.5, "phases": [{"name": "main", "until": {"steps": 10}}],
}  # fmt: skip


def phase(**changes: Any) -> dict[str, Any]:
    return {"phases": [*RECIPE["phases"], {"name": "second", "until": {"steps": 10}} | changes]}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"loss": "dice"}, "unknown key 'loss'; it belongs into a phase (phases[0].loss)"),
        ({"steps": 10}, "unknown key 'steps'; it belongs into 'until' (phases[0].until.steps)"),
        ({"lr": 0.1}, "unknown key 'lr'; it belongs into 'optimizer' (phases[0].optimizer.lr)"),
        ({"widths": [8]}, "unknown key 'widths'; it belongs into 'options' (network.options.widths)"),
        ({"aux_logits": 1}, "unknown key 'aux_logits'; it belongs into 'loss' (phases[0].loss.aux_logits)"),
        ({"stain": 0.2}, "unknown key 'stain'; it belongs into 'augment' (augment.stain)"),
        ({"weight": 2}, "unknown key 'weight'; it belongs into an entry of 'data' (data.NAME.weight)"),
        ({"path": "a"}, "unknown key 'path'; it belongs into an entry of 'unlabeled' (unlabeled[0].path)"),
        (phase(mpp=1), "unknown key 'phases.1.mpp'; it belongs to the top level (mpp)"),
        (phase(lr=1), "unknown key 'phases.1.lr'; it belongs into 'optimizer' (phases[1].optimizer.lr)"),
        (
            phase(patience=1),
            "unknown key 'phases.1.patience'; it belongs into 'schedule' (phases[1].schedule.patience)",
        ),
        (phase(gamma=1), "unknown key 'phases.1.gamma'; it belongs into 'loss' (phases[1].loss.gamma)"),
        (
            phase(until={"steps": 1, "loss": "dice"}),
            "unknown key 'phases.1.until.loss'; it belongs into a phase (phases[1].loss)",
        ),
        (
            phase(optimizer={"name": "adamw", "warmup": 1}),
            "unknown key 'phases.1.optimizer.adamw.warmup'; it belongs into 'schedule' (phases[1].schedule.warmup)",
        ),
        (
            phase(optimizer={"name": "sgd", "betas": 1}),
            "unknown key 'phases.1.optimizer.sgd.betas'; known: lr, momentum, name, nesterov, weight_decay",
        ),
        ({"augment": {"batch": 3}}, "unknown key 'augment.batch'; it belongs to the top level (batch)"),
        ({"data": {"tnbc": {"mpp": 1}}}, "unknown key 'data.tnbc.mpp'; it belongs to the top level (mpp)"),
        ({"bach": 2}, "unknown key 'bach', did you mean 'batch'?"),
        (
            {"loss": "dice"} | phase(**{"optimiser": {"name": "adamw"}}),
            "unknown key 'loss'; it belongs into a phase (phases[0].loss); and key 'phases.1.optimiser' is called "
            "'optimizer' since version 0.2",
        ),
    ],
)
def test_a_misplaced_key_is_named_with_its_place(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(RECIPE | changes))
    with pytest.raises(HemalumError) as raised:
        load_recipe(path)
    assert str(raised.value) == f"{path}: {line}"


def refused_words(model: Any, content: dict[str, Any]) -> str:
    try:
        model.model_validate(content)
    except ValidationError as error:
        return explain(error, model)
    return ""


@pytest.mark.parametrize("key", sorted(set(key_locations(Recipe)) - set(Recipe.model_fields)))
def test_no_hint_is_the_word_that_was_refused(key: str) -> None:
    """For every nested key of a recipe, at the top level and in a phase that has none of that name."""
    for content, where in ((RECIPE | {key: 1}, key), (RECIPE | phase(**{key: 1}), f"phases.1.{key}")):
        line = refused_words(Recipe, content)
        if where != key and "unknown key" not in line:
            continue  # a phase has that key, and what is wrong with it is its value
        match = re.fullmatch(rf"unknown key '{re.escape(where)}'; it belongs (?:into|to) .* \((.*)\)", line)
        assert match is not None, line
        assert match[1].rpartition(".")[2] == key
        assert match[1] != where


@pytest.mark.parametrize("key", sorted(set(Recipe.model_fields) - {"name", "description"}))
def test_a_key_of_the_top_level_within_is_sent_there(key: str) -> None:
    line = refused_words(Recipe, RECIPE | {"separation": {key: 1}})
    if "'separation." in line and "unknown" in line:
        assert line == f"unknown key 'separation.{key}'; it belongs to the top level ({key})"


@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_options_of_a_system_are_never_hinted_at_themselves(system: str) -> None:
    options = SYSTEMS[system].option_paths()
    for option, path in options.items():
        if path == option:
            continue
        with pytest.raises(HemalumError) as raised:
            build_named("system", {"name": system, option: []}, SYSTEMS)
        assert str(raised.value) == f"system '{system}' has no option '{option}', did you mean '{path}'?"


def test_the_yaml_of_a_dataset_says_the_place_as_well(mini: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    content = yaml.safe_load((mini / "dataset.yaml").read_text())
    for changes, line in (
        ({"counts": {}}, "unknown key 'counts'; it belongs into 'split' (split.counts)"),
        ({"licence": "CC0"}, "unknown key 'licence', did you mean 'license'?"),
        ({"images": "many"}, "'images': Input should be a valid integer, unable to parse string as an integer"),
    ):
        (folder / "dataset.yaml").write_text(yaml.safe_dump(content | changes))
        with pytest.raises(HemalumError) as raised:
            Dataset.open(folder)
        assert str(raised.value) == f"{folder / 'dataset.yaml'}: {line}"
    assert key_locations(DatasetInfo)["seed"] == [("split", "seed")]
