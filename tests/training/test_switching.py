"""The rules by which another optimiser takes over, on curves that are written out."""

import math

import pytest
import torch
from pydantic import ValidationError

from hemalum.systems.phases import (
    SGD,
    AdamW,
    Constant,
    Cosine,
    Lion,
    Phase,
    Swats,
    Switch,
    Threshold,
    Until,
    carried_on,
)
from hemalum.training.lion import Lion as LionOptimiser
from hemalum.training.switching import (
    SwitchState,
    end_of,
    loss_has_settled,
    measure_step,
    optimiser_of,
    rate_after,
    rate_to_begin_with,
    settled_rate,
    weights_of,
)


def first_true(rule: Threshold, losses: list[float], run_steps: int) -> int | None:
    """The number of losses after which the rule says that it is time."""
    state = SwitchState()
    for number, loss in enumerate(losses, start=1):
        if loss_has_settled(state, rule, loss, run_steps):
            return number
    return None


def test_threshold_on_a_curve_worked_out_by_hand() -> None:
    # changes over two measurements, each relative to the earlier loss: none, none, 0.6, 0.6, 0.15, 0.025 < 0.05 · 0.6
    curve = [1.0, 0.5, 0.4, 0.2, 0.34, 0.195]
    rule = Threshold(every=0.1, window=2, portion=0.05, smoothing=0.0)
    assert first_true(rule, curve, 10) == 6
    # 0.15 is below a quarter of 0.6 only just
    assert first_true(rule.model_copy(update={"portion": 0.26}), curve, 10) == 5
    assert first_true(rule.model_copy(update={"portion": 0.02}), curve, 10) is None
    # a measurement of two steps is their mean
    twice = [loss + sign for loss in curve for sign in (0.1, -0.1)]
    assert first_true(rule.model_copy(update={"every": 0.2}), twice, 10) == 12


def test_the_threshold_is_dynamic() -> None:
    # both fall by a hundredth at the end: much for a curve that never fell faster, nothing for one that halved
    rule = Threshold(every=0.1, window=1, portion=0.05, smoothing=0.0)
    steep = [1.0, 0.5, 0.495]
    gentle = [1.0, 0.99, 0.98, 0.97]
    assert first_true(rule, steep, 10) == 3
    assert first_true(rule, gentle, 10) is None


def test_smoothing_keeps_one_lucky_measurement_from_switching() -> None:
    falling = [math.exp(-0.1 * n) for n in range(60)]
    falling[20] = falling[19]  # by chance no change at all
    rule = Threshold(every=0.1, window=1, portion=0.05, smoothing=0.0)
    assert first_true(rule, falling, 10) == 21
    assert first_true(rule.model_copy(update={"smoothing": 0.8}), falling, 10) is None


def test_a_loss_that_levels_off_is_switched_soon_after() -> None:
    curve = [0.2 + math.exp(-n / 4) for n in range(100)]
    found = first_true(Threshold(every=0.01), curve, 100)
    assert found is not None
    assert 15 < found < 60


def test_the_threshold_goes_on_from_a_kept_state() -> None:
    curve = [0.2 + math.exp(-n / 4) + 0.01 * math.sin(7 * n) for n in range(100)]
    rule = Threshold(every=0.02)
    whole = first_true(rule, curve, 100)
    assert whole is not None
    state = SwitchState()
    for loss in curve[: whole - 1]:
        assert not loss_has_settled(state, rule, loss, 100)
        state = SwitchState.model_validate_json(state.model_dump_json())  # as a checkpoint keeps it
    assert loss_has_settled(state, rule, curve[whole - 1], 100)


def test_a_loss_around_nothing_does_not_break_the_rule() -> None:
    assert first_true(Threshold(every=0.1, window=1, smoothing=0.0), [0.5, 0.0, 0.0, -0.1], 10) == 3


def test_swats_by_hand() -> None:
    rule, state = Swats(beta=0.5, tolerance=0.1), SwitchState()
    # the first estimate is its own mean, which says nothing
    assert settled_rate(state, rule, 4.0, -1.0) is None
    assert state.mean == 2.0
    # 2: running mean (0.5 · 2 + 0.5 · 2) / 0.75 = 2.667, a third away
    assert settled_rate(state, rule, 2.0, -1.0) is None
    # 2.3: mean 0.5 · 2 + 0.5 · 2.3 = 2.15, corrected by 0.875 to 2.457: within a tenth
    assert settled_rate(state, rule, 2.3, -1.0) == pytest.approx(2.15 / 0.875)


@pytest.mark.parametrize("pair", [(0.0, -1.0), (1.0, 0.0), (1.0, math.nan), (math.inf, -1.0)])
def test_swats_passes_over_steps_that_say_nothing(pair: tuple[float, float]) -> None:
    state = SwitchState()
    assert settled_rate(state, Swats(), *pair) is None
    assert state == SwitchState()


def test_swats_never_gives_a_negative_rate() -> None:
    state = SwitchState()
    assert all(settled_rate(state, Swats(tolerance=0.5), 1.0, 1.0) is None for _ in range(20))


def test_swats_finds_the_rate_of_sgd_itself() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(6, dtype=torch.float64))
    optimiser, state, found = torch.optim.SGD([weight], lr=0.03), SwitchState(), None
    for _ in range(5):
        before = weights_of(optimiser)
        weight.grad = torch.randn_like(weight)
        optimiser.step()
        found = found or settled_rate(state, Swats(), *measure_step(optimiser, before, decoupled=False))
    assert found == pytest.approx(0.03)


def test_a_decoupled_decay_is_no_part_of_the_step() -> None:
    weights = [torch.nn.Parameter(torch.tensor([2.0, -3.0], dtype=torch.float64)) for _ in range(2)]
    idle = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimiser = LionOptimiser([weights[0], idle, weights[1]], lr=0.01, weight_decay=0.5)
    before = weights_of(optimiser)
    weights[0].grad = torch.tensor([1.0, -4.0], dtype=torch.float64)
    weights[1].grad = torch.tensor([2.0, 0.5], dtype=torch.float64)
    optimiser.step()
    squared, product = measure_step(optimiser, before, decoupled=True)
    assert squared == pytest.approx(4 * 0.01**2)
    assert product == pytest.approx(-0.01 * (1 + 4 + 2 + 0.5))


def test_the_rate_to_begin_with() -> None:
    assert rate_to_begin_with(Switch(to=AdamW(lr=0.5), factor=3), 1e-4, None) == pytest.approx(3e-4)
    assert rate_to_begin_with(Switch(to=SGD(lr=0.5), factor=0.1), 1e-4, None) == pytest.approx(1e-5)
    assert rate_to_begin_with(Switch(to=AdamW(lr=0.5)), 1e-4, None) == 0.5
    # the paper's: momentum 0.9 takes ten steps' worth of each gradient
    swats = Switch(when=Swats(), to=SGD(momentum=0.9))
    assert rate_to_begin_with(swats, 1e-4, 2.0) == pytest.approx(0.2)


def test_the_rate_after_a_switch_falls_to_nothing_along_a_cosine() -> None:
    state = SwitchState(since=100, rate=0.8)
    rates = [rate_after(Switch(), state, step, 300) for step in (100, 150, 200, 300)]
    assert rates == pytest.approx([0.8, 0.4 * (1 + math.cos(math.pi / 4)), 0.4, 0.0])
    held = Switch(schedule=Constant(warmup=4))
    assert [rate_after(held, state, step, 300) for step in (100, 101, 103, 104, 299)] == pytest.approx(
        [0.2, 0.4, 0.8, 0.8, 0.8]
    )
    part = Switch(schedule=Cosine(final=0.5))
    assert rate_after(part, state, 300, 300) == pytest.approx(0.4)


def test_the_end_is_that_of_the_phases_that_carry_on() -> None:
    def phase(steps: int, total: int | None = None, carry: bool = False) -> Phase:
        return Phase(name="p", until=Until(steps=steps, total=total), carry=carry)

    phases = [phase(70), phase(100, 100, carry=True), phase(50)]
    assert end_of(phases, 0, 0) == 100
    assert end_of(phases, 1, 20) == 100  # the first ended early
    assert end_of(phases, 2, 100) == 150
    assert end_of([phase(70), phase(30, carry=True)], 0, 0) == 100


def test_which_optimiser_is_at_work() -> None:
    phase = Phase(name="p", optimiser=Lion(), switch=Switch(to=SGD()), until=Until(steps=5))
    assert optimiser_of(phase, SwitchState()) == Lion()
    assert optimiser_of(phase, SwitchState(since=3, rate=0.1)) == SGD()
    assert optimiser_of(phase.model_copy(update={"switch": None}), SwitchState()) == Lion()


def test_a_phase_carries_optimiser_and_switch_of_the_one_before() -> None:
    first = Phase(name="first", optimiser=Lion(lr=3e-4), switch=Switch(factor=3), until=Until(steps=5))
    second = Phase(name="second", carry=True, until=Until(steps=5))
    found = carried_on([first, second])
    assert found[1].optimiser == Lion(lr=3e-4)
    assert found[1].switch == Switch(factor=3)
    assert carried_on(found) == found  # as it stands in the run's own copy of the recipe


@pytest.mark.parametrize(
    ("before", "phase", "message"),
    [
        ([], {"carry": True}, "phase 'b' carries on, and there is no phase before it"),
        ([{}], {"carry": True, "train": ["head.*"]}, "it has to train what 'a' trains"),
        ([{}], {"carry": True, "optimiser": {"name": "sgd"}}, "with the optimiser of 'a': leave it out"),
        ([{}], {"carry": True, "switch": {}}, "with the switch of 'a': leave it out"),
    ],
)
def test_a_phase_that_cannot_carry_on_is_refused(before: list[dict], phase: dict, message: str) -> None:
    made = [Phase.model_validate({"name": "a", "until": {"steps": 1}} | one) for one in before]
    with pytest.raises(ValueError, match=message):
        carried_on([*made, Phase.model_validate({"name": "b", "until": {"steps": 1}} | phase)])


@pytest.mark.parametrize("wrong", [{"to": {"name": "adamw"}}, {"to": {"name": "sgd"}, "factor": 0.1}])
def test_swats_leads_to_sgd_at_its_own_rate(wrong: dict) -> None:
    with pytest.raises(ValidationError, match="swats finds a rate for sgd: switch to sgd, without a factor"):
        Switch.model_validate({"when": {"name": "swats"}} | wrong)
