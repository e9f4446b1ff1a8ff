"""The optimizer of a phase: rules by which another takes over, on curves that are written out and in trainings."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from builders.trainings import assert_same_run, read_log
from hemalum.errors import HemalumError
from hemalum.losses import build_loss
from hemalum.losses.boundary import Dice
from hemalum.losses.loss import LossInputs
from hemalum.networks import Outputs
from hemalum.systems import build_system
from hemalum.systems.phases import (
    SGD,
    AdamW,
    Constant,
    Cosine,
    Lion,
    Phase,
    StopCriteria,
    Swats,
    Switch,
    Threshold,
    with_kept_optimizers,
)
from hemalum.targets.representations import Head, find_representation
from hemalum.training.building import check_watched_losses
from hemalum.training.checkpoint import read_progress
from hemalum.training.optimizers import Lion as LionOptimizer
from hemalum.training.phase_optimizer import (
    PhaseOptimizer,
    SwitchState,
    choose_first_rate,
    compute_switched_rate,
    copy_parameters,
    find_optimizer_end,
    measure_step,
    select_optimizer,
    update_swats,
    update_threshold,
)
from hemalum.training.recipe import Recipe
from hemalum.training.train import train


def find_first_true(rule: Threshold, losses: list[float], run_steps: int) -> int | None:
    """The number of losses after which the rule says that it is time."""
    state = SwitchState()
    for number, loss in enumerate(losses, start=1):
        if update_threshold(state, rule, loss, run_steps):
            return number
    return None


def test_threshold_on_a_curve_worked_out_by_hand() -> None:
    # changes over two measurements, each relative to the earlier loss: none, none, 0.6, 0.6, 0.15, 0.025 < 0.05 · 0.6
    curve = [1.0, 0.5, 0.4, 0.2, 0.34, 0.195]
    rule = Threshold(every=0.1, window=2, portion=0.05, smoothing=0.0)
    assert find_first_true(rule, curve, 10) == 6
    # 0.15 is below a quarter of 0.6 only just
    assert find_first_true(rule.model_copy(update={"portion": 0.26}), curve, 10) == 5
    assert find_first_true(rule.model_copy(update={"portion": 0.02}), curve, 10) is None
    # a measurement of two steps is their mean
    twice = [loss + sign for loss in curve for sign in (0.1, -0.1)]
    assert find_first_true(rule.model_copy(update={"every": 0.2}), twice, 10) == 12


def test_the_threshold_is_dynamic() -> None:
    # both fall by a hundredth at the end: much for a curve that never fell faster, nothing for one that halved
    rule = Threshold(every=0.1, window=1, portion=0.05, smoothing=0.0)
    steep = [1.0, 0.5, 0.495]
    gentle = [1.0, 0.99, 0.98, 0.97]
    assert find_first_true(rule, steep, 10) == 3
    assert find_first_true(rule, gentle, 10) is None


def test_smoothing_keeps_one_lucky_measurement_from_switching() -> None:
    falling = [math.exp(-0.1 * n) for n in range(60)]
    falling[20] = falling[19]  # by chance no change at all
    rule = Threshold(every=0.1, window=1, portion=0.05, smoothing=0.0)
    assert find_first_true(rule, falling, 10) == 21
    assert find_first_true(rule.model_copy(update={"smoothing": 0.8}), falling, 10) is None


def test_a_loss_that_levels_off_is_switched_soon_after() -> None:
    curve = [0.2 + math.exp(-n / 4) for n in range(100)]
    due = find_first_true(Threshold(every=0.01), curve, 100)
    assert due is not None
    assert 15 < due < 60


def test_the_threshold_goes_on_from_a_kept_state() -> None:
    curve = [0.2 + math.exp(-n / 4) + 0.01 * math.sin(7 * n) for n in range(100)]
    rule = Threshold(every=0.02)
    due = find_first_true(rule, curve, 100)
    assert due is not None
    state = SwitchState()
    for loss in curve[: due - 1]:
        assert not update_threshold(state, rule, loss, 100)
        state = SwitchState.model_validate_json(state.model_dump_json())  # as a checkpoint keeps it
    assert update_threshold(state, rule, curve[due - 1], 100)


def test_a_loss_around_nothing_does_not_break_the_rule() -> None:
    assert find_first_true(Threshold(every=0.1, window=1, smoothing=0.0), [0.5, 0.0, 0.0, -0.1], 10) == 3


def test_swats_by_hand() -> None:
    rule, state = Swats(beta=0.5, tolerance=0.1), SwitchState()
    # the first estimate is its own mean, which says nothing
    assert update_swats(state, rule, 4.0, -1.0) is None
    assert state.mean == 2.0
    # 2: running mean (0.5 · 2 + 0.5 · 2) / 0.75 = 2.667, a third away
    assert update_swats(state, rule, 2.0, -1.0) is None
    # 2.3: mean 0.5 · 2 + 0.5 · 2.3 = 2.15, corrected by 0.875 to 2.457: within a tenth
    assert update_swats(state, rule, 2.3, -1.0) == pytest.approx(2.15 / 0.875)


@pytest.mark.parametrize("pair", [(0.0, -1.0), (1.0, 0.0), (1.0, math.nan), (math.inf, -1.0)])
def test_swats_passes_over_steps_that_say_nothing(pair: tuple[float, float]) -> None:
    state = SwitchState()
    assert update_swats(state, Swats(), *pair) is None
    assert state == SwitchState()


def test_swats_never_gives_a_negative_rate() -> None:
    state = SwitchState()
    assert all(update_swats(state, Swats(tolerance=0.5), 1.0, 1.0) is None for _ in range(20))


def test_swats_finds_the_rate_of_sgd_itself() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(6, dtype=torch.float64))
    optimizer, state, rate = torch.optim.SGD([weight], lr=0.03), SwitchState(), None
    for _ in range(5):
        before = copy_parameters(optimizer)
        weight.grad = torch.randn_like(weight)
        optimizer.step()
        rate = rate or update_swats(state, Swats(), *measure_step(optimizer, before, decoupled=False))
    assert rate == pytest.approx(0.03)


def test_a_decoupled_decay_is_no_part_of_the_step() -> None:
    weights = [torch.nn.Parameter(torch.tensor([2.0, -3.0], dtype=torch.float64)) for _ in range(2)]
    idle = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = LionOptimizer([weights[0], idle, weights[1]], lr=0.01, weight_decay=0.5)
    before = copy_parameters(optimizer)
    weights[0].grad = torch.tensor([1.0, -4.0], dtype=torch.float64)
    weights[1].grad = torch.tensor([2.0, 0.5], dtype=torch.float64)
    optimizer.step()
    squared, product = measure_step(optimizer, before, decoupled=True)
    assert squared == pytest.approx(4 * 0.01**2)
    assert product == pytest.approx(-0.01 * (1 + 4 + 2 + 0.5))


def test_the_first_rate() -> None:
    assert choose_first_rate(Switch(to=AdamW(lr=0.5), factor=3), 1e-4, None) == pytest.approx(3e-4)
    assert choose_first_rate(Switch(to=SGD(lr=0.5), factor=0.1), 1e-4, None) == pytest.approx(1e-5)
    assert choose_first_rate(Switch(to=AdamW(lr=0.5)), 1e-4, None) == 0.5
    # the paper's: momentum 0.9 takes ten steps' worth of each gradient
    swats = Switch(when=Swats(), to=SGD(momentum=0.9))
    assert choose_first_rate(swats, 1e-4, 2.0) == pytest.approx(0.2)


def test_the_rate_after_a_switch_rises_and_falls_to_nothing_along_a_cosine() -> None:
    state = SwitchState(since=100, rate=0.8)
    rates = [compute_switched_rate(Switch(), state, step, 400) for step in (100, 149, 199, 200, 250, 300, 400)]
    falling = [0.8, 0.4 * (1 + math.cos(math.pi / 4)), 0.4, 0.0]
    assert rates == pytest.approx([0.008, 0.4, 0.8, *falling])
    # a warm-up of 100 steps with 20 left takes 10 of them
    short = [compute_switched_rate(Switch(), state, step, 120) for step in (100, 109, 115, 120)]
    assert short == pytest.approx([0.08, 0.8, 0.4, 0.0])
    constant = Switch(schedule=Constant(warmup=4))
    assert [compute_switched_rate(constant, state, step, 300) for step in (100, 101, 103, 104, 299)] == pytest.approx(
        [0.2, 0.4, 0.8, 0.8, 0.8]
    )
    part = Switch(schedule=Cosine(final=0.5))
    assert compute_switched_rate(part, state, 300, 300) == pytest.approx(0.4)


def test_the_end_is_that_of_the_phases_that_carry_on() -> None:
    def phase(steps: int, total: int | None = None, keep_optimizer: bool = False) -> Phase:
        return Phase(name="p", until=StopCriteria(steps=steps, total=total), keep_optimizer=keep_optimizer)

    phases = [phase(70), phase(100, 100, keep_optimizer=True), phase(50)]
    assert find_optimizer_end(phases, 0, 0) == 100
    assert find_optimizer_end(phases, 1, 20) == 100  # the first ended early
    assert find_optimizer_end(phases, 2, 100) == 150
    assert find_optimizer_end([phase(70), phase(30, keep_optimizer=True)], 0, 0) == 100


def test_which_optimizer_is_at_work() -> None:
    phase = Phase(name="p", optimizer=Lion(), switch=Switch(to=SGD()), until=StopCriteria(steps=5))
    assert select_optimizer(phase, SwitchState()) == Lion()
    assert select_optimizer(phase, SwitchState(since=3, rate=0.1)) == SGD()
    assert select_optimizer(phase.model_copy(update={"switch": None}), SwitchState()) == Lion()


def test_a_phase_carries_optimizer_and_switch_of_the_one_before() -> None:
    first = Phase(name="first", optimizer=Lion(lr=3e-4), switch=Switch(factor=3), until=StopCriteria(steps=5))
    second = Phase(name="second", keep_optimizer=True, until=StopCriteria(steps=5))
    phases = with_kept_optimizers([first, second])
    assert phases[1].optimizer == Lion(lr=3e-4)
    assert phases[1].switch == Switch(factor=3)
    assert with_kept_optimizers(phases) == phases  # as it stands in the run's own copy of the recipe


@pytest.mark.parametrize(
    ("before", "phase", "message"),
    [
        ([], {"keep_optimizer": True}, "phase 'b' carries on, and there is no phase before it"),
        ([{}], {"keep_optimizer": True, "train": ["head.*"]}, "it has to train what 'a' trains"),
        ([{}], {"keep_optimizer": True, "optimizer": {"name": "sgd"}}, "with the optimizer of 'a': leave it out"),
        ([{}], {"keep_optimizer": True, "switch": {}}, "with the switch of 'a': leave it out"),
    ],
)
def test_a_phase_that_cannot_carry_on_is_refused(
    before: list[dict[str, Any]], phase: dict[str, Any], message: str
) -> None:
    made = [Phase.model_validate({"name": "a", "until": {"steps": 1}} | one) for one in before]
    with pytest.raises(ValueError, match=message):
        with_kept_optimizers([*made, Phase.model_validate({"name": "b", "until": {"steps": 1}} | phase)])


@pytest.mark.parametrize("wrong", [{"to": {"name": "adamw"}}, {"to": {"name": "sgd"}, "factor": 0.1}])
def test_swats_leads_to_sgd_at_its_own_rate(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="swats finds a rate for sgd: switch to sgd, without a factor"):
        Switch.model_validate({"when": {"name": "swats"}} | wrong)


THRESHOLD = {
    "when": {"name": "threshold", "every": 0.05, "window": 1, "portion": 0.6, "smoothing": 0.0},
    "to": {"name": "adamw", "weight_decay": 0.1},
    "factor": 3,
    "schedule": {"name": "cosine", "final": 0},
}
SWATS = {"when": {"name": "swats", "beta": 0.5, "tolerance": 0.5}, "to": {"name": "sgd", "momentum": 0.5}}


def optimizer_of(phase: dict[str, Any], end: int) -> PhaseOptimizer:
    made = Phase.model_validate({"name": "p"} | phase)
    return PhaseOptimizer(made, [nn.Parameter(torch.ones(1))], SwitchState(), end, end)


def test_a_cosine_ends_with_a_phase_that_is_left_fewer_steps_than_it_might_have() -> None:
    """A phase of 9 steps at most that begins at step 4 of a run of 10 has 6."""
    phase = {"optimizer": {"name": "sgd", "lr": 2.0}, "schedule": {"name": "cosine", "final": 0}}
    optimizer = optimizer_of(phase | {"until": {"steps": 9, "total": 10}}, 10)
    rates = []
    for phase_step in (0, 3, 6):
        optimizer.set_rate(4 + phase_step, phase_step, 0)
        rates.append(optimizer.figures()["lr"])
    assert rates == pytest.approx([2.0, 1.0, 0.0])


def test_a_factor_takes_the_rate_that_there_is_at_the_switch() -> None:
    """Half-way along a cosine from 0.2 the rate is 0.1, and 3 times that is 0.3."""
    optimizer = optimizer_of(
        {
            "optimizer": {"name": "lion", "lr": 0.2},
            "schedule": {"name": "cosine", "final": 0},
            "switch": {"factor": 3, "when": {"name": "threshold", "every": 0.1, "window": 1, "smoothing": 0}},
            "until": {"steps": 10},
        },
        10,
    )
    for step, loss in enumerate([1.0, 0.8, 0.64, 0.512, 0.4096, 0.4096]):
        optimizer.set_rate(step, step, 0)
        optimizer.step(torch.tensor(loss), step)
    assert optimizer.state.since == 6
    assert optimizer.state.rate == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("to", "rate"),
    [({"name": "sgd", "lr": 0.05}, 0.05), ({"name": "sgd"}, 0.01), ({"name": "adam", "lr": 2e-3}, 2e-3)],
)
def test_what_takes_over_has_the_rate_that_the_recipe_says(to: dict[str, Any], rate: float) -> None:
    settings = build_system({"name": "al_net", "switch": {"to": to}}).to_recipe()["phases"][0].switch
    assert choose_first_rate(settings, 1e-4, None) == rate


def test_handing_over_enlarges_no_step() -> None:
    """AL-Net's switch on gradients of noise around a slope: the longest step is Lion's, but for chance."""
    torch.manual_seed(0)
    phase = build_system({"name": "al_net", "steps": 1000}).to_recipe()["phases"][0]
    lion = phase.optimizer.lr
    weight = nn.Parameter(torch.zeros(1, 200))
    optimizer = PhaseOptimizer(phase, [weight], SwitchState(), 1000, 1000)
    steps: dict[str, list[float]] = {"lion": [], "adamw": []}
    losses = [max(0.2, 1 - step / 100) for step in range(1000)]  # levels off at step 80
    for step, loss in enumerate(losses):
        optimizer.set_rate(step, step, 0)
        weight.grad = torch.randn(1, 200) + 0.3
        before, name = weight.detach().clone(), optimizer.name
        optimizer.step(torch.tensor(loss), step)
        steps[name].append(float((weight.detach() - before).abs().max()))
    since = optimizer.state.since
    assert since is not None
    assert 80 < since < 400
    assert max(steps["lion"]) == pytest.approx(lion, rel=1e-2)
    assert max(steps["adamw"]) < 1.2 * lion
    assert steps["adamw"][0] < 0.02 * lion
    assert steps["adamw"][-1] < 1e-3 * lion


def switching_alone(part: str | None) -> PhaseOptimizer:
    switch = Switch(when=Threshold(part=part, every=0.01, window=5, portion=0.2, smoothing=0.0))
    phase = Phase(name="p", optimizer=Lion(), switch=switch, until=StopCriteria(steps=100))
    return PhaseOptimizer(phase, [nn.Parameter(torch.zeros(1))], SwitchState(), 100, 100)


@pytest.mark.parametrize(("part", "since"), [("dice", None), (None, 38)])
def test_a_term_that_fades_in_does_not_trigger_a_switch_that_watches_dice(
    part: str | None, since: int | None
) -> None:
    """Dice falls by a tenth every 10 steps to the end; from step 35 on a term fades in.

    Two steps later the sum is within 0.5 % of what it was five steps before, where it used to fall by 5 %.
    """
    optimizer = switching_alone(part)
    for step in range(100):
        dice = 0.9 ** (step / 10)
        parts = {"dice": torch.tensor(dice), "gradient": torch.tensor(0.4 * min(1.0, max(0, step - 35) / 20))}
        optimizer.step(optimizer.watched_loss(torch.stack(list(parts.values())).sum(), parts, {}), step)
    assert optimizer.state.since == since


def test_a_weight_that_is_scheduled_is_no_change_of_the_loss() -> None:
    optimizer = switching_alone("dice")
    parts = {"dice": torch.tensor(0.3), "boundary": torch.tensor(0.2)}
    watched = optimizer.watched_loss(torch.tensor(0.5), parts, {"dice_weight": 0.5, "boundary_weight": 0.6})
    assert float(watched) == pytest.approx(0.6)


def test_a_part_that_fades_in_is_watched_without_its_weight() -> None:
    """Each part of AL-Net's loss, where the terms at the contour have a quarter of their weight: as at all of it."""
    loss = build_loss({"name": "al_net", "rebalance": None, "ramp": 0.1})
    truth = torch.zeros(1, 1, 16, 16)
    truth[..., 4:11, 5:12] = 1
    logits = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    heads = (Head("sigmoid", ("foreground",)),)
    watched = []
    for step in (10, 400):
        inputs = LossInputs(
            Outputs.of(logits), truth, heads, {"signed_distance": 1 - 2 * truth}, phase_step=step, run_steps=400
        )
        parts, factors = loss(inputs), loss.factors(inputs)
        total = torch.stack(list(parts.values())).sum()
        watched.append(
            [float(switching_alone(name).watched_loss(total, parts, factors)) for name in ("boundary", "gradient")]
        )
    assert watched[0] == pytest.approx(watched[1])


@pytest.mark.fault
def test_a_watched_part_that_the_network_gives_nothing_for_is_named() -> None:
    line = r"^phase '.*': its switch watches the part 'aux_logits' of the loss, and the network gives nothing that it"
    with pytest.raises(HemalumError, match=line):
        switching_alone("aux_logits").watched_loss(torch.tensor(0.5), {"dice": torch.tensor(0.5)}, {})


def test_a_switch_may_watch_what_only_some_networks_give() -> None:
    until = StopCriteria(steps=4)
    loss = build_loss({"name": "unet3plus"})
    phase = Phase(name="p", loss=loss, until=until, switch=Switch(when=Threshold(part="aux_logits")))
    recipe: Any = SimpleNamespace(phases=[phase])
    check_watched_losses(recipe, find_representation("foreground"))


@pytest.mark.fault
def test_a_switch_that_watches_a_part_that_the_loss_lacks_is_refused(
    recipe: Recipe, mini: Path, tmp_path: Path
) -> None:
    switch = Switch(when=Threshold(part="dise"))
    phases = [recipe.phases[0].model_copy(update={"switch": switch, "name": "p", "loss": Dice()})]
    changed = recipe.model_copy(update={"phases": phases, "representation": "foreground"})
    with pytest.raises(
        HemalumError,
        match=r"^phase 'p': its switch watches the part 'dise' of loss 'dice', which has none of that name, "
        r"did you mean 'dice'\?$",
    ):
        train(changed, [mini], tmp_path / "run")
    assert not (tmp_path / "run").exists()


class StoppedError(Exception):
    pass


def switching(recipe: Recipe, switch: dict[str, Any], steps: int = 12) -> Recipe:
    """The mini recipe with Lion and a switch, over two phases of which the second carries on."""
    content = recipe.model_dump(mode="json")
    content["phases"] = [
        {"name": "first", "optimizer": {"name": "lion", "lr": 0.001}, "schedule": {"name": "constant"},
         "switch": switch, "until": {"steps": steps}},
        {"name": "second", "keep_optimizer": True, "schedule": {"name": "constant"},
         "until": {"steps": 20, "total": 20}},
    ]  # fmt: skip
    return Recipe.model_validate(content | {"validate_every": 1, "checkpoint_every": 1, "validation_images": 1})


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
    train(recipe, [mini], tmp_path / "uninterrupted", threads=1)
    log = read_log(tmp_path / "uninterrupted")
    steps_of_log = [row for row in log if "loss" in row]
    since = next(int(row["switch_step"]) for row in log if "switch_step" in row)
    assert 1 < since < 19
    assert [row["optimizer"] for row in steps_of_log] == ["lion"] * (since - 1) + [switch["to"]["name"]] * (
        21 - since
    )
    # the step that switched, the first one of the new optimizer, its second
    for last in (since, since + 1, since + 2):
        out = tmp_path / f"stopped {last}"

        def stop(step: int, total: int, row: dict[str, float], last: int = last) -> None:
            if step == last:
                raise StoppedError

        with pytest.raises(StoppedError):
            train(recipe, [mini], out, threads=1, on_progress=stop)
        progress = read_progress(out / "checkpoint.safetensors")
        assert progress.step == last - 1
        assert (progress.switch.since is None) == (last == since)
        train(recipe, [mini], out, resume=True, threads=1)
        assert_same_run(out, tmp_path / "uninterrupted")
        rows, expected = (
            [{key: value for key, value in row.items() if key != "steps_per_second"} for row in lines]
            for lines in (read_log(out), log)
        )
        assert rows == expected


def test_the_log_says_rate_optimizer_and_step_of_the_switch(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    train(switching(recipe, THRESHOLD), [mini], tmp_path / "run", threads=1)
    log = [row for row in read_log(tmp_path / "run") if "loss" in row]
    since = next(int(row["switch_step"]) for row in log if "switch_step" in row)
    assert [row["lr"] for row in log[: since - 1]] == [0.001] * (since - 1)
    after = [row["lr"] for row in log[since:]]
    # over both phases to step 20, whichever the switch fell into
    expected = [0.0015 * (1 + np.cos(np.pi * done / (20 - since))) for done in range(20 - since)]
    assert after == pytest.approx(expected)
    assert {row["phase"] for row in log} == {"first", "second"}


def test_a_phase_that_does_not_carry_on_begins_anew(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    content = switching(recipe, THRESHOLD).model_dump(mode="json")
    content["phases"][1] |= {"keep_optimizer": False, "switch": None, "optimizer": {"name": "lion", "lr": 0.002}}
    content["phases"][1]["until"] = {"steps": 1}
    train(Recipe.model_validate(content), [mini], tmp_path / "run", threads=1)
    last = read_log(tmp_path / "run")[-1]
    assert (last["optimizer"], last["lr"]) == ("lion", 0.002)
    assert "switch_step" not in last


def test_the_optimizers_state_is_carried_into_the_next_phase() -> None:
    weight = nn.Parameter(torch.zeros(3))
    phase = Phase.model_validate(
        {"name": "p", "optimizer": {"name": "lion", "lr": 0.5}, "schedule": {"name": "constant"},
         "until": {"steps": 3}}
    )  # fmt: skip
    first = PhaseOptimizer(phase, [weight], SwitchState(), 3, 3)
    first.set_rate(0, 0, 0)
    weight.grad = torch.tensor([1.0, -1.0, 2.0])
    first.step(torch.tensor(1.0), 0)
    second = PhaseOptimizer(phase, [weight], SwitchState(), 3, 3, first)
    assert isinstance(second.optimizer, LionOptimizer)
    torch.testing.assert_close(second.optimizer.state[weight]["momentum"], 0.01 * weight.grad)
    assert not PhaseOptimizer(phase, [weight], SwitchState(), 3, 3).optimizer.state


def test_lion_decays_matrices_only() -> None:
    phase = Phase(name="p", optimizer=Lion(weight_decay=0.5), until=StopCriteria(steps=1))
    phase_optimizer = PhaseOptimizer(
        phase, [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))], SwitchState(), 1, 1
    )
    assert [group["weight_decay"] for group in phase_optimizer.optimizer.param_groups] == [0.5, 0.0]


@pytest.mark.parametrize(("start", "expected"), [(0, 4), (2, 4), (4, 4), (6, 6)])
def test_a_phase_never_ends_before_it_begins(start: int, expected: int) -> None:
    phase = Phase(name="p", until=StopCriteria(steps=9, total=4))
    assert phase.until.last_step(start) == expected
