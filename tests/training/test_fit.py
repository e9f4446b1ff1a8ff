"""What the loop does with phases: what trains, when one ends, where the next one starts, and what stops a run."""

import json
from math import nan
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch_file

from hemalum.errors import HemalumError
from hemalum.losses.loss import LossInputs
from hemalum.losses.maps import Maps
from hemalum.models.file import load_card
from hemalum.models.network import build_network
from hemalum.systems.phases import Phase, ScorePlateau, StopCriteria
from hemalum.training.fit import has_plateaued
from hemalum.training.recipe import Recipe
from hemalum.training.train import train
from hemalum.training.validation import Validation


def test_a_phase_trains_only_what_it_names(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    second = recipe.model_copy(update={"phases": recipe.phases[1:], "ema": 0.0})
    train(second, [mini], tmp_path / "run")
    torch.manual_seed(recipe.seed)
    start = build_network("compact", 2, recipe.network.options).state_dict()
    end = load_file(tmp_path / "run" / "best_second.safetensors")
    changed = {name for name, value in start.items() if not np.array_equal(value.numpy(), end[name])}
    assert changed
    assert all(name.startswith(("decoder.", "head.")) for name in changed)
    assert "head.weight" in changed


@pytest.mark.fault
def test_a_phase_that_trains_nothing_is_refused(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    """Of whatever phase, it is refused before the first one begins."""
    for patterns, line in ((["head.*", "!*"], r"head\.\*, !\*"), (["!head*"], r"!head\*")):
        second = recipe.phases[1].model_copy(update={"train": patterns})
        with pytest.raises(HemalumError, match=rf"^phase 'second': no parameter trains by {line}$"):
            train(recipe.model_copy(update={"phases": [recipe.phases[0], second]}), [mini], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_patience_ends_a_phase(recipe: Recipe, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    monkeypatch.setattr(Validation, "score", lambda *_: {"score": next(scores)})
    phase = Phase.model_validate({"name": "p", "until": {"steps": 100, "patience": 2}})
    card = load_card(train(recipe.model_copy(update={"phases": [phase]}), [mini], tmp_path / "run"))
    assert card.training is not None
    assert card.training.steps == 8  # validated every 2 steps; the fourth is the second without a better score


def test_a_score_that_is_no_number_is_never_the_best(
    recipe: Recipe, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = Phase.model_validate({"name": "p", "until": {"steps": 100, "patience": 2}})
    one_phase = recipe.model_copy(update={"phases": [phase]})
    ends = {}
    for scores in ([nan, 0.5, 0.4, 0.3], [0.1, 0.5, 0.4, 0.3], [nan, nan], [0.2, nan, nan], [0.1, 0.2, nan, nan]):
        left = iter(scores)
        monkeypatch.setattr(Validation, "score", lambda *_, left=left: {"score": next(left)})
        folder = tmp_path / str(scores)
        train(one_phase, [mini], folder)  # ends at the last score, by the patience
        assert next(left, None) is None
        ends[str(scores)] = load_file(folder / "best_p.safetensors")["head.weight"]
    after_first, after_second = ends["[0.2, nan, nan]"], ends["[0.1, 0.2, nan, nan]"]
    assert np.abs(after_first - after_second).max() > 0
    for scores in ([nan, 0.5, 0.4, 0.3], [0.1, 0.5, 0.4, 0.3], [nan, nan]):
        np.testing.assert_array_equal(ends[str(scores)], after_second)


def test_a_plateau_lowers_the_rate(
    recipe: Recipe, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `patience` validations without a better score, counted from the last better one or the last lowering."""
    scores = iter([0.5, 0.4, 0.3, 0.6, 0.2, 0.1, 0.1, 0.1, 0.1])
    monkeypatch.setattr(Validation, "score", lambda *_: {"score": next(scores)})
    phase = Phase.model_validate(
        {
            "name": "p",
            "optimizer": {"name": "sgd", "lr": 0.08},
            "schedule": {"name": "plateau", "patience": 2, "factor": 0.5},
            "until": {"steps": 9},
        }
    )
    train(recipe.model_copy(update={"phases": [phase], "validate_every": 1}), [mini], tmp_path / "run")
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    # lowered by the third score, the sixth and the eighth, for the step after
    assert [line["lr"] for line in log] == pytest.approx([0.08] * 3 + [0.04] * 3 + [0.02] * 2 + [0.01])


@pytest.mark.parametrize("ema", [0.9, 0.15])  # above the low decay of the beginning; below it from the second step on
def test_averaged_weights_decay_as_the_recipe_says(recipe: Recipe, mini: Path, tmp_path: Path, ema: float) -> None:
    torch.manual_seed(recipe.seed)
    weights = [build_network("compact", 2, recipe.network.options).state_dict()]
    for steps in (1, 2):
        phase = Phase.model_validate({"name": "p", "schedule": {"name": "constant"}, "until": {"steps": steps}})
        train(recipe.model_copy(update={"phases": [phase], "ema": ema}), [mini], tmp_path / str(steps))
        checkpoint = load_torch_file(tmp_path / str(steps) / "checkpoint.safetensors")
        weights.append({name: checkpoint[f"network.{name}"] for name in weights[0]})
    decays = min(ema, 1 / 10), min(ema, 2 / 11)
    for name in ("head.weight", "head.bias"):
        start, first, second = (tensors[name].double() for tensors in weights)
        average = decays[0] * start + (1 - decays[0]) * first
        average = decays[1] * average + (1 - decays[1]) * second
        torch.testing.assert_close(checkpoint[f"average.{name}"].double(), average, rtol=1e-5, atol=1e-7)


@pytest.mark.fault
def test_not_finite_loss_stops_and_keeps_the_checkpoint(
    recipe: Recipe, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, calls = Maps.__call__, []

    def break_fourth(loss: Maps, inputs: LossInputs) -> dict[str, torch.Tensor]:
        calls.append(1)
        parts = compute(loss, inputs)
        return {name: part * float("nan") if len(calls) == 4 else part for name, part in parts.items()}

    monkeypatch.setattr(Maps, "__call__", break_fourth)
    with pytest.raises(HemalumError, match="the loss is not finite at step 3 of phase 'first'"):
        train(recipe, [mini], tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def find_plateau(rule: ScorePlateau, scores: list[float]) -> int | None:
    """The number of scores after which the rule says that they have leveled off, of a phase that they fill."""
    numbers = range(1, len(scores) + 1)
    return next((n for n in numbers if has_plateaued(rule, scores[:n], n / len(scores))), None)


@pytest.mark.parametrize(
    ("scores", "after"),
    [
        pytest.param([0.1, 0.2, 0.3, 0.4], None, id="rises"),
        pytest.param([0.1, 0.3, 0.4, 0.405, 0.402], 5, id="levels off: two gains of less than 0.01 over 0.4"),
        pytest.param([0.4, 0.4, 0.4], 3, id="flat from the first: one to compare with, and two"),
        pytest.param([0.4, 0.4], None, id="too few to compare"),
        pytest.param([0.4, 0.406, 0.412, 0.418, 0.424], None, id="creeps: 0.012 in two"),
        pytest.param([0.80, 0.86, 0.70, 0.90], None, id="falls and recovers to a new best"),
        pytest.param([0.80, 0.86, 0.70, 0.69, 0.70, 0.69, 0.70], None, id="falls and stays down"),
        pytest.param([0.9, 0.8, 0.7, 0.6, 0.5], None, id="falls all the time"),
        pytest.param([0.80, 0.86, 0.70, 0.855, 0.861], 5, id="falls, recovers to the same best and levels off"),
        pytest.param([0.80, 0.86, 0.83, 0.80, 0.90], None, id="noise of 0.06 is a fall"),
        pytest.param([0.80, 0.86, 0.83, 0.84, 0.85], 4, id="noise of 0.03 is none"),
        pytest.param([0.1, 0.9, 0.9, 0.905, 0.95], 4, id="jumps, then levels off"),
        pytest.param([0.4, nan, nan, nan], None, id="no number"),
    ],
)
def test_scores_level_off(scores: list[float], after: int | None) -> None:
    assert find_plateau(ScorePlateau(patience=2, delta=0.01, fall=0.05, earliest=0.0), scores) == after


def test_no_score_levels_off_before_the_earliest_step() -> None:
    rule = ScorePlateau(patience=2, delta=0.01, earliest=0.5)
    assert not has_plateaued(rule, [0.4] * 5, 0.49)
    assert has_plateaued(rule, [0.4] * 5, 0.5)


def test_a_later_phase_gets_what_an_earlier_one_saves(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    # leveled off at the second validation: a Dice gains less than 2 and falls by less than 1
    flat = ScorePlateau(patience=1, delta=2.0, fall=1.0, earliest=0)
    phases = [
        Phase(name="first", until=StopCriteria(steps=9, score_plateau=flat)),
        Phase(name="second", until=StopCriteria(steps=9, total=10)),
    ]
    changed = recipe.model_copy(update={"phases": phases})
    assert changed.steps == 10
    train(changed, [mini], tmp_path / "run")
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [('"first"' in line, '"second"' in line) for line in log] == [(True, False)] * 2 + [(False, True)] * 4
    assert '"step": 10' in log[-1]


def test_a_phase_that_is_left_no_steps_is_skipped(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    phases = [
        Phase(name="first", until=StopCriteria(steps=4)),
        Phase(name="second", until=StopCriteria(steps=9, total=4)),
    ]
    changed = recipe.model_copy(update={"phases": phases})
    assert changed.steps == 4
    path = train(changed, [mini], tmp_path / "run")
    assert path.is_file()
    assert '"phase": "second"' not in (tmp_path / "run" / "log.jsonl").read_text()


def test_a_phase_may_start_from_the_best_of_the_one_before(
    recipe: Recipe, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # three of the first phase, two of the second, and one of each at the end
    scores = iter([0.5, 0.2, 0.1, 0.3, 0.2, 0.5, 0.3] * 2)
    monkeypatch.setattr(Validation, "score", lambda *_: {"score": next(scores), "dice": 0.0})
    still = {"optimizer": {"name": "sgd", "lr": 1e-12}, "schedule": {"name": "constant"}, "until": {"steps": 2}}
    ends = {}
    for start in ("last", "best"):
        phases = [
            Phase(name="one", until=StopCriteria(steps=6)),
            Phase.model_validate({"name": "two", "start": start} | still),
        ]
        changed = recipe.model_copy(update={"phases": phases, "ema": 0.0})
        train(changed, [mini], tmp_path / start)
        ends[start] = load_file(tmp_path / start / "best_two.safetensors")["head.weight"]
    alone = recipe.model_copy(update={"phases": [Phase(name="one", until=StopCriteria(steps=6))], "ema": 0.0})
    scores = iter([0.5, 0.2, 0.1])
    train(alone, [mini], tmp_path / "alone")
    best = load_file(tmp_path / "alone" / "best_one.safetensors")["head.weight"]
    np.testing.assert_allclose(ends["best"], best, atol=1e-7)
    assert np.abs(ends["last"] - best).max() > 1e-4


def test_the_best_by_loss_is_the_least(
    recipe: Recipe, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.5, 0.2, 0.3, 0.4, 0.1])
    monkeypatch.setattr(Validation, "score", lambda *_: {"score": 0.0, "dice": 0.0, "val_loss": next(losses)})
    phase = Phase(name="p", until=StopCriteria(steps=100, patience=2, monitor="loss"))
    train(recipe.model_copy(update={"phases": [phase]}), [mini], tmp_path / "run")
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 4
