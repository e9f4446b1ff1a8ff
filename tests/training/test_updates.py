"""Another optimiser takes over within a training: what the log says of it, and resuming around it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from hemalum.systems.phases import Lion as LionSettings
from hemalum.systems.phases import Phase
from hemalum.training.checkpoint import read_progress
from hemalum.training.lion import Lion
from hemalum.training.recipe import Recipe
from hemalum.training.switching import SwitchState
from hemalum.training.train import train
from hemalum.training.updates import Updates

THRESHOLD = {
    "when": {"name": "threshold", "every": 0.05, "window": 1, "portion": 0.6, "smoothing": 0.0},
    "to": {"name": "adamw", "weight_decay": 0.1},
    "factor": 3,
}
SWATS = {"when": {"name": "swats", "beta": 0.5, "tolerance": 0.5}, "to": {"name": "sgd", "momentum": 0.5}}


class StoppedError(Exception):
    pass


def switching(recipe: Recipe, switch: dict[str, Any], steps: int = 12) -> Recipe:
    """The mini recipe with Lion and a switch, over two phases of which the second carries on."""
    content = recipe.model_dump(mode="json")
    content["phases"] = [
        {"name": "first", "optimiser": {"name": "lion", "lr": 0.001}, "schedule": {"name": "constant"},
         "switch": switch, "until": {"steps": steps}},
        {"name": "second", "carry": True, "schedule": {"name": "constant"}, "until": {"steps": 20, "total": 20}},
    ]  # fmt: skip
    return Recipe.model_validate(content | {"validate_every": 1, "checkpoint_every": 1, "validation_images": 1})


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("switch", "steps"),
    [
        pytest.param(THRESHOLD, 12, id="threshold"),
        pytest.param(THRESHOLD, 1, id="threshold, in the next phase", marks=pytest.mark.slow),
        pytest.param(SWATS, 12, id="swats", marks=pytest.mark.slow),
    ],
)
def test_stopped_around_the_switch_and_resumed_equals_uninterrupted(
    switch: dict[str, Any], steps: int, recipe: Recipe, mini: Path, tmp_path: Path
) -> None:
    recipe = switching(recipe, switch, steps)
    train(recipe, [mini], tmp_path / "whole", threads=1)
    whole = rows(tmp_path / "whole")
    since = next(int(row["switch_step"]) for row in whole if "switch_step" in row)
    assert 1 < since < 19
    assert [row["optimiser"] for row in whole] == ["lion"] * (since - 1) + [switch["to"]["name"]] * (21 - since)
    # the step that switched, the first one of the new optimiser, its second
    for last in (since, since + 1, since + 2):
        out = tmp_path / f"stopped {last}"

        def stop(step: int, total: int, row: dict[str, float], last: int = last) -> None:
            if step == last:
                raise StoppedError

        with pytest.raises(StoppedError):
            train(recipe, [mini], out, threads=1, watch=stop)
        stands = read_progress(out / "checkpoint.safetensors")
        assert stands.step == last - 1
        assert (stands.switch.since is None) == (last == since)
        train(recipe, [mini], out, resume=True, threads=1)
        for name in ("checkpoint.safetensors", "model.safetensors"):
            expected, found = load_file(tmp_path / "whole" / name), load_file(out / name)
            assert expected.keys() == found.keys()
            for key in expected:
                np.testing.assert_array_equal(found[key], expected[key], err_msg=f"{last}, {name}: {key}")
        unlike = {"steps_per_second"}
        assert [{k: v for k, v in row.items() if k not in unlike} for row in rows(out)] == [
            {k: v for k, v in row.items() if k not in unlike} for row in whole
        ]


def test_the_log_says_rate_optimiser_and_step_of_the_switch(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    train(switching(recipe, THRESHOLD), [mini], tmp_path / "run", threads=1)
    found = rows(tmp_path / "run")
    since = next(int(row["switch_step"]) for row in found if "switch_step" in row)
    assert [row["lr"] for row in found[: since - 1]] == [0.001] * (since - 1)
    after = [row["lr"] for row in found[since - 1 :]]
    assert after[0] == pytest.approx(0.003)
    # over both phases to step 20, whichever the switch fell into
    expected = [0.0015 * (1 + np.cos(np.pi * done / (20 - since))) for done in range(20 - since)]
    assert after[1:] == pytest.approx(expected)
    assert {row["phase"] for row in found} == {"first", "second"}


def test_a_phase_that_does_not_carry_on_begins_anew(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    content = switching(recipe, THRESHOLD).model_dump(mode="json")
    content["phases"][1] |= {"carry": False, "switch": None, "optimiser": {"name": "lion", "lr": 0.002}}
    content["phases"][1]["until"] = {"steps": 1}
    train(Recipe.model_validate(content), [mini], tmp_path / "run", threads=1)
    last = rows(tmp_path / "run")[-1]
    assert (last["optimiser"], last["lr"]) == ("lion", 0.002)
    assert "switch_step" not in last


def test_the_optimisers_state_is_carried_into_the_next_phase() -> None:
    weight = nn.Parameter(torch.zeros(3))
    phase = Phase.model_validate(
        {"name": "p", "optimiser": {"name": "lion", "lr": 0.5}, "schedule": {"name": "constant"},
         "until": {"steps": 3}}
    )  # fmt: skip
    before = Updates(phase, [weight], SwitchState(), 3, 3)
    before.set_rate(0, 0, 0)
    weight.grad = torch.tensor([1.0, -1.0, 2.0])
    before.step(torch.tensor(1.0), 0)
    after = Updates(phase, [weight], SwitchState(), 3, 3, before)
    assert isinstance(after.optimiser, Lion)
    torch.testing.assert_close(after.optimiser.state[weight]["momentum"], 0.01 * weight.grad)
    assert not Updates(phase, [weight], SwitchState(), 3, 3).optimiser.state


def test_lion_decays_matrices_only() -> None:
    spec = LionSettings(weight_decay=0.5)
    phase = Phase.model_validate({"name": "p", "optimiser": spec.model_dump(), "until": {"steps": 1}})
    updates = Updates(phase, [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))], SwitchState(), 1, 1)
    assert [group["weight_decay"] for group in updates.optimiser.param_groups] == [0.5, 0.0]
