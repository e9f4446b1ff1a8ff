"""Two-stage enhancement on the loop: what each phase trains, what stays as it is, and the control."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.losses.cross_entropy import BinaryCrossEntropy
from hemalum.models.file import load_card
from hemalum.networks import Network
from hemalum.networks.two_stage import TwoStage
from hemalum.systems import build_system
from hemalum.systems.phases import Phase
from hemalum.systems.system import network_options
from hemalum.systems.two_stage import TwoStageEnhancement
from hemalum.training import fit
from hemalum.training.recipe import Recipe
from hemalum.training.train import train
from hemalum.training.weights import copy_weights

BASES = {
    "unet": {"name": "unet", "options": {"widths": [4, 8], "norm": True}},
    "unet_plus_plus": {"name": "unet_plus_plus", "options": {"widths": [4, 6, 8], "norm": True, "dropout": 0.5}},
    "micro_net": {"name": "micro_net", "options": {"base": 2}},
}


def recipe_of(base: str = "unet", **options: Any) -> Recipe:
    system = {"name": "two_stage", "base": BASES[base], "steps": 4} | options
    system["network"] = {"width": 4} | options.get("network", {})
    system["optimizer"] = {"lr": 0.01} | options.get("optimizer", {})
    keys = {"name": "mini", "mpp": 0.5, "tile": 32, "batch": 2, "validate_every": 2, "checkpoint_every": 2}
    return Recipe.model_validate(keys | {"system": system})


def weights_by_phase(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Tensor]]]:
    """The network's state when a phase begins and after its steps, for each phase of the runs that follow."""
    states: list[tuple[str, dict[str, Tensor]]] = []
    freeze, end_phase = fit.freeze, fit._end_phase

    def freeze_and_note(network: Network, phase: Phase) -> list[nn.Parameter]:
        states.append((phase.name, copy_weights(network)))
        return freeze(network, phase)

    def note_and_end_phase(run: fit.RunState) -> None:
        states.append((states[-1][0], copy_weights(run.network)))
        end_phase(run)

    monkeypatch.setattr(fit, "freeze", freeze_and_note)
    monkeypatch.setattr(fit, "_end_phase", note_and_end_phase)
    return states


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("base", list(BASES))
def test_each_phase_changes_its_own_part_alone(
    base: str, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = weights_by_phase(monkeypatch)
    path = train(recipe_of(base, network={"batch_norm": True}), [mini], tmp_path / "run")
    assert [name for name, _ in states] == ["base", "base", "enhance", "enhance", "joint", "joint"]
    moved = [changed(states[index][1], states[index + 1][1]) for index in (0, 2, 4)]
    assert {name.partition(".")[0] for name in moved[0]} == {"base"}
    # the frozen base is in eval mode: not even the running statistics of its batch norm move
    assert {name.partition(".")[0] for name in moved[1]} == {"enhance"}
    assert any("running_mean" in name for name in moved[1])
    running = {name for name in states[0][1] if "running_mean" in name}
    assert running & moved[0] == {name for name in running if name.startswith("base.")}
    assert {name.partition(".")[0] for name in moved[2]} == {"base", "enhance"}
    assert running <= moved[2]
    assert not [name for name in moved[2] if name.startswith("base.aux_heads.")]
    assert load_card(path).network.name == "two_stage"


def test_the_dropout_of_the_frozen_base_is_off(mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same: list[bool] = []
    forward = TwoStage.forward

    def watched(network: TwoStage, images: Tensor) -> Any:
        result = forward(network, images)
        if network.training and not network.base.training:
            assert result.aux_logits == ()
            same.append(torch.equal(result.extras["stage1_logits"], network.base(images)))
        return result

    monkeypatch.setattr(TwoStage, "forward", watched)
    train(recipe_of("unet_plus_plus"), [mini], tmp_path / "run")
    assert same == [True] * 4


def test_the_base_is_trained_and_judged_by_its_own_map(mini: Path, tmp_path: Path) -> None:
    """The base phase of two stages is the training of the base alone: the same losses, step by step."""
    logs = []
    for form in ("base", "two_stage"):
        train(recipe_of(form=form), [mini], tmp_path / form)
        lines = [json.loads(line) for line in (tmp_path / form / "log.jsonl").read_text().splitlines()]
        logs.append([line[key] for line in lines if line["phase"] == "base" for key in ("loss", "val_loss")])
    assert len(logs[0]) == 4
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


def test_a_phase_ends_when_the_validation_loss_does_not_fall(mini: Path, tmp_path: Path) -> None:
    """With a rate that spoils the weights nothing gets better after the first validation or two."""
    recipe = recipe_of(steps=40, optimizer={"lr": 3.0}, patience=2)
    train(recipe, [mini], tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    for phase in ("base", "enhance", "joint"):
        losses = [line["val_loss"] for line in lines if line["phase"] == phase]
        if len(losses) < 20:  # ended early: the least loss lies exactly two validations back
            assert losses.index(min(losses)) == len(losses) - 3
    assert len(lines) < 60


def test_the_control_trains_the_base_for_as_many_steps(mini: Path, tmp_path: Path) -> None:
    two, control, base = (recipe_of(form=form, joint_steps=3) for form in ("two_stage", "control", "base"))
    assert (two.steps, control.steps, base.steps) == (11, 11, 4)
    assert [phase.name for phase in control.phases] == ["base", "continue", "continue_joint"]
    assert (control.network, base.network.name) == (base.network, "unet")
    card = load_card(train(control, [mini], tmp_path / "run"))
    assert card.network.name == "unet"
    assert card.training is not None
    assert card.training.steps == 11


def test_control_and_two_stages_are_chosen_from_as_many_validations(mini: Path, tmp_path: Path) -> None:
    """More candidates for the one would be more chances for it: the maximum of noise grows with their number."""
    counts = []
    for form in ("two_stage", "control"):
        train(recipe_of(form=form, steps=4, enhance_steps=6, joint_steps=4), [mini], tmp_path / form)
        lines = [json.loads(line) for line in (tmp_path / form / "log.jsonl").read_text().splitlines()]
        phases = dict.fromkeys(line["phase"] for line in lines)
        counts.append([sum(line["phase"] == phase for line in lines) for phase in phases])
    assert counts[0] == counts[1]
    assert len(counts[0]) == 3


def test_a_run_that_was_killed_ends_with_the_same_weights(mini: Path, tmp_path: Path) -> None:
    recipe = recipe_of("unet_plus_plus")
    train(recipe, [mini], tmp_path / "uninterrupted")

    class Killed(Exception):
        pass

    def kill_at(last: int) -> Any:
        def on_progress(step: int, *_: Any) -> None:
            if step == last:
                raise Killed

        return on_progress

    for last in (5, 9):  # in the second phase, then in the third
        with pytest.raises(Killed):
            train(recipe, [mini], tmp_path / "killed", resume=last > 5, on_progress=kill_at(last))
    train(recipe, [mini], tmp_path / "killed", resume=True)
    uninterrupted, resumed = (
        load_file(tmp_path / name / "model.safetensors") for name in ("uninterrupted", "killed")
    )
    assert changed(uninterrupted, resumed) == set()


def test_options_go_where_they_belong() -> None:
    loss = {"name": "border_bce", "stage1_weight": 0.5}
    micro = recipe_of("micro_net", loss=loss, network={"binarize": True})
    base, enhance, joint = (phase.loss for phase in micro.phases)
    assert (base.name, base.aux_logits, base.stage1_weight) == ("border_bce", "by_epoch", 0)
    assert (enhance.aux_logits, joint.aux_logits, joint.stage1_weight) == ("none", "none", 0.5)
    assert micro.network.options["binarize"]
    assert recipe_of("unet_plus_plus").phases[0].loss.aux_logits == "mean"
    assert recipe_of("micro_net", loss={"aux_logits": "mean"}).phases[0].loss.aux_logits == "mean"
    phases = build_system({"name": "two_stage"}).to_recipe()["phases"]
    assert [(phase.optimizer.name, phase.optimizer.lr, phase.until.monitor) for phase in phases] == [
        ("adam", 1e-4, "loss")
    ] * 3
    assert [phase.start for phase in phases] == ["last", "best", "best"]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (
            {"stage_toggles": {"enhanse": True}},
            r"the network has no stage toggle 'enhanse', did you mean 'enhanced'\?",
        ),
        (
            {"stage_toggles": {"enhanced": False}},
            "is the last one and has enhanced off, which the trained model has on",
        ),
    ],
)
def test_switches_that_are_not_possible(phase: dict[str, Any], message: str, mini: Path, tmp_path: Path) -> None:
    recipe = recipe_of()
    last = recipe.phases[-1].model_copy(update=phase)
    with pytest.raises(HemalumError, match=message):
        train(recipe.model_copy(update={"phases": [*recipe.phases[:-1], last]}), [mini], tmp_path / "run")


@pytest.mark.fault
def test_a_network_without_parts_has_no_switches(mini: Path, tmp_path: Path) -> None:
    recipe = recipe_of(form="base")
    phase = recipe.phases[0].model_copy(update={"stage_toggles": {"enhanced": False}})
    with pytest.raises(HemalumError, match="no stage toggle 'enhanced'; this network has none"):
        train(recipe.model_copy(update={"phases": [phase]}), [mini], tmp_path / "run")


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (["*"], ["base.up", "base.aux_heads.0", "enhance.0"]),
        (["base.*"], ["base.up", "base.aux_heads.0"]),
        (["*", "!base.aux_heads.*"], ["base.up", "enhance.0"]),
        (["!base.*"], []),
    ],
)
def test_patterns_of_what_trains(train: list[str], expected: list[str]) -> None:
    phase = Phase(name="x", train=train, until={"steps": 1})
    assert [name for name in ("base.up", "base.aux_heads.0", "enhance.0") if phase.trains(name)] == expected


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": {"base": {"name": "unet"}}}, "the base stands beside network, not in it"),
        (
            {"network": {"widht": 4}, "form": "base"},
            "network 'two_stage' has no option 'widht', did you mean 'width'",
        ),
        ({"loss": "dice"}, "system 'two_stage', 'loss'"),
        ({"loss": {"name": "dice"}}, "the loss is bce or border_bce, not dice"),
        ({"loss": {"aux_logit": "mean"}}, "loss 'bce' has no option 'aux_logit', did you mean 'aux_logits'"),
        ({"width": 4}, r"system 'two_stage' has no option 'width', did you mean 'network.width'\?"),
        ({"base": {"nam": "unet"}}, "system 'two_stage' has no option 'base.nam'"),
    ],
)
def test_options_that_are_not_possible(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        build_system({"name": "two_stage"} | options).to_recipe()


def test_defaults_are_the_reading_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "systems" / "two_stage.md").read_text(encoding="utf-8")
    nested = {*network_options("two_stage"), *BinaryCrossEntropy.model_fields} - {"embedding"}
    names = {*TwoStageEnhancement.model_fields, *nested, "lr"} - {"name"}
    assert [name for name in sorted(names) if f"`{name}" not in page] == []


@pytest.mark.slow
def test_overfits_four_real_tiles(four_tiles: Dataset, tmp_path: Path) -> None:
    """All three phases and the model file, on four tiles of TNBC that are trained on and validated on."""
    base = {"name": "unet", "options": {"widths": [12, 24, 48], "norm": True}}
    steps = {"steps": 200, "enhance_steps": 40, "joint_steps": 80, "patience": None}
    system = {"name": "two_stage", "base": base, "optimizer": {"lr": 0.003}, "network": {"width": 8}} | steps
    keys = {"name": "r", "mpp": 0.25, "tile": 96, "batch": 4, "validate_every": 20, "augment": "none"}
    path = train(Recipe.model_validate(keys | {"system": system}), [four_tiles], tmp_path / "run", threads=1)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(row["phase"] for row in log)) == ["base", "enhance", "joint"]
    assert max(row["dice"] for row in log if row["phase"] == "joint") >= 0.95
    assert load_card(path).network.options["base"]["name"] == "unet"
