"""Of several phases the best one is delivered, and each keeps a model of its own."""

import json
import logging
from collections.abc import Callable, Iterator
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import nn

from builders.trainings import read_log
from hemalum.errors import HemalumError
from hemalum.losses.loss import Loss
from hemalum.models.file import load_card, load_model_file
from hemalum.models.network import build_network
from hemalum.training.recipe import Recipe, load_recipe
from hemalum.training.train import train
from hemalum.training.validation import Validation


def phases_of(recipe: Recipe, *phases: dict[str, Any], **changes: Any) -> Recipe:
    """The mini recipe with these phases, of 4 steps where they do not say else."""
    full = [{"until": {"steps": 4}, "schedule": {"name": "constant"}} | phase for phase in phases]
    return Recipe.model_validate(recipe.model_dump(mode="json") | {"ema": 0.0, "phases": full} | changes)


def weights(path: Path) -> NDArray[np.float32]:
    return load_file(path)["head.weight"]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[bool]]:
    """Have validations give these scores, one after the other; gives whether each was asked for a loss."""

    def script(*scores: float, key: str = "score") -> list[bool]:
        left: Iterator[float] = iter(scores)
        asked: list[bool] = []

        def score(_: Validation, network: nn.Module, loss: Loss | None = None) -> dict[str, float]:
            asked.append(loss is not None)
            return {"score": 0.5, "dice": 0.5, key: next(left)}

        monkeypatch.setattr(Validation, "score", score)
        return asked

    return script


def test_a_phase_that_makes_things_worse_is_not_delivered(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    ruinous = {"name": "second", "optimizer": {"name": "sgd", "lr": 3.0}}
    gentle = {"name": "first", "optimizer": {"name": "adamw", "lr": 0.01}, "until": {"steps": 40, "monitor": "loss"}}
    changed = phases_of(recipe, gentle, ruinous | {"until": {"steps": 4, "monitor": "loss"}}, clip=None)
    path = train(changed, [mini], tmp_path / "run", threads=1)
    losses = {
        phase: [row["val_loss"] for row in read_log(tmp_path / "run") if row["phase"] == phase]
        for phase in ("first", "second")
    }
    assert min(losses["second"][1:]) > 2 * min(losses["first"])  # that is what it did
    phases = json.loads((tmp_path / "run" / "phases.json").read_text())
    delivered = {one["phase"]: one["loss"] for one in phases["phases"]}[phases["delivered"]]
    assert delivered == pytest.approx(min(losses["first"]), rel=1e-5)
    np.testing.assert_array_equal(weights(path), weights(tmp_path / "run" / "best_first.safetensors"))


def test_a_phase_has_to_surpass_what_it_starts_from(
    recipe: Recipe, mini: Path, tmp_path: Path, scripted: Callable[..., list[bool]]
) -> None:
    # first: 0.2, 0.3; second: 0.3 at its start, then less; at the end both are measured once more
    scripted(0.2, 0.3, 0.3, 0.1, 0.2, 0.3, 0.3)
    patient = {"name": "second", "until": {"steps": 40, "patience": 2}}
    train(phases_of(recipe, {"name": "first"}, patient), [mini], tmp_path / "run")
    rows = [(row["step"], row["phase"], "loss" in row) for row in read_log(tmp_path / "run")]
    assert rows == [
        (2, "first", True),
        (4, "first", True),
        (4, "second", False),
        (6, "second", True),
        (8, "second", True),
    ]
    first, second = (weights(tmp_path / "run" / f"best_{name}.safetensors") for name in ("first", "second"))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("last", "delivered"),
    [
        pytest.param([0.3, 0.2, 0.1], "one", id="the first"),
        pytest.param([0.1, 0.3, 0.2], "two", id="one between"),
        pytest.param([0.1, 0.2, 0.3], "three", id="the last"),
        pytest.param([0.2, 0.2, 0.2], "three", id="of equals the later"),
        pytest.param([0.1, nan, nan], "one", id="no number is worse than any"),
    ],
)
def test_the_best_of_all_phases_is_delivered_and_each_is_kept(
    last: list[float],
    delivered: str,
    recipe: Recipe,
    mini: Path,
    tmp_path: Path,
    scripted: Callable[..., list[bool]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ["one", "two", "three"]
    scripted(0.1, 0.9, 0.1, 0.2, 0.3, 0.1, 0.2, 0.3, *last)
    with caplog.at_level(logging.WARNING):
        path = train(phases_of(recipe, *({"name": name} for name in names)), [mini], tmp_path / "run")
    card = load_card(path)
    assert card.training is not None
    assert card.training.phase == delivered
    np.testing.assert_array_equal(weights(path), weights(tmp_path / "run" / f"model_{delivered}.safetensors"))
    for name in names:
        model = tmp_path / "run" / f"model_{name}.safetensors"
        kept = load_card(model).training
        assert kept is not None
        assert kept.phase == name
        np.testing.assert_array_equal(weights(model), weights(tmp_path / "run" / f"best_{name}.safetensors"))
    phases = json.loads((tmp_path / "run" / "phases.json").read_text())
    assert (phases["monitor"], phases["delivered"]) == ("pq", delivered)
    assert {one["phase"]: one["step"] for one in phases["phases"]} == {"one": 4, "two": 8, "three": 12}
    assert ("best weights of phase" in caplog.text) == (delivered != "three")


def test_phases_are_compared_by_the_last_ones_measure(
    recipe: Recipe, mini: Path, tmp_path: Path, scripted: Callable[..., list[bool]]
) -> None:
    """The first is judged by PQ, the last by its own loss: the least one wins."""
    asked = scripted(0.5, 0.5, 9.0, 3.0, 2.0, 1.0, 2.0, key="val_loss")
    last = {"name": "second", "until": {"steps": 4, "monitor": "loss"}}
    path = train(phases_of(recipe, {"name": "first"}, last), [mini], tmp_path / "run")
    assert asked == [False] * 2 + [True] * 5
    assert load_card(path).training.phase == "first"
    phases = json.loads((tmp_path / "run" / "phases.json").read_text())
    assert [(one["phase"], one["loss"]) for one in phases["phases"]] == [("first", 1.0), ("second", 2.0)]


def test_a_training_of_one_phase_keeps_one_model(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    path = train(phases_of(recipe, {"name": "main"}), [mini], tmp_path / "run")
    assert load_card(path).training.phase is None
    files = sorted(file.name for file in (tmp_path / "run").glob("*.safetensors"))
    assert files == ["best_main.safetensors", "checkpoint.safetensors", "model.safetensors"]
    assert not (tmp_path / "run" / "phases.json").exists()


def test_a_base_that_its_second_stage_makes_worse_is_delivered_alone(mini: Path, tmp_path: Path) -> None:
    """As a network whose second stage is off: the model gives exactly what the base gave."""
    system = {
        "name": "two_stage", "base": {"name": "unet", "options": {"widths": [4, 8], "norm": True}},
        "network": {"width": 4}, "optimizer": {"lr": 0.01}, "steps": 30, "enhance_steps": 2, "joint_steps": 2,
    }  # fmt: skip
    keys = {"name": "mini", "mpp": 0.5, "tile": 32, "batch": 2, "validate_every": 10}
    path = train(Recipe.model_validate(keys | {"system": system}), [mini], tmp_path / "run", threads=1)
    log = read_log(tmp_path / "run")
    least = {
        name: min(row["val_loss"] for row in log if row["phase"] == name) for name in ("base", "enhance", "joint")
    }
    assert least["base"] < min(least["enhance"], least["joint"])  # two steps do not train a second stage
    card, tensors = load_model_file(path)
    assert card.training.phase == "base"
    assert card.network.options["enhanced"] is False
    phases = json.loads((tmp_path / "run" / "phases.json").read_text())
    assert {one["phase"]: one["loss"] for one in phases["phases"]} == pytest.approx(least, rel=1e-5)
    network = build_network(card.network.name, 1, card.network.options).eval()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(network(images), network.base(images))
    joint = load_card(tmp_path / "run" / "model_joint.safetensors")
    assert joint.network.options.get("enhanced", True)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("a", "A"), "'phases': two phases have the name 'A': give each its own"),
        (
            ("a/b",),
            "'phases.0.name': a phase's name is part of file names: letters, digits, _ - and . alone, not 'a/b'",
        ),
        (("",), "a phase's name is part of file names"),
    ],
)
def test_names_of_phases_that_are_no_files_are_refused(
    names: tuple[str, ...], line: str, recipe: Recipe, tmp_path: Path
) -> None:
    content = recipe.model_dump(mode="json", exclude={"budget"})
    content["phases"] = [{"name": name, "until": {"steps": 1}} for name in names]
    (tmp_path / "r.yaml").write_text(json.dumps(content))
    with pytest.raises(HemalumError) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert line in str(caught.value)
