"""When another optimiser takes over within a training, and with which rate: pure rules over numbers that are kept.

All that a rule remembers is in `SwitchState`, which is part of a checkpoint: a resumed run switches at the same step.
"""

import math
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from hemalum.systems.phases import SGD, Cosine, Optimiser, Phase, Swats, Switch, Threshold

_FEWEST = 2  # of steps: the mean of one estimate is that estimate


class SwitchState(BaseModel):
    """Where a switch stands. `since` is the step of the run at which it happened, `rate` what it began with."""

    model_config = ConfigDict(extra="forbid")

    since: int | None = None
    rate: float = 0.0
    # of the rule `threshold`: losses of the measurement in the making, smoothed losses, the largest change
    total: float = 0.0
    count: int = 0
    smoothed: list[float] = Field(default_factory=list)
    largest: float = 0.0
    # of the rule `swats`: running mean of the estimated rates, and how many went into it
    mean: float = 0.0
    estimates: int = 0


def loss_has_settled(state: SwitchState, rule: Threshold, loss: float, run_steps: int) -> bool:
    """Take in the loss of one step; True when the rule says that it is time. See `Threshold`."""
    state.total += loss
    state.count += 1
    if state.count < max(1, round(rule.every * run_steps)):
        return False
    measured = state.total / state.count
    state.total, state.count = 0.0, 0
    if state.smoothed:
        measured = rule.smoothing * state.smoothed[-1] + (1 - rule.smoothing) * measured
    state.smoothed = [*state.smoothed, measured][-rule.window - 1 :]
    if len(state.smoothed) <= rule.window:
        return False
    before = state.smoothed[0]
    change = abs(measured - before) / max(abs(before), 1e-12)  # terms at the contour may bring a loss to 0
    state.largest = max(state.largest, change)
    return change < rule.portion * state.largest


def settled_rate(state: SwitchState, rule: Swats, step_squared: float, step_on_gradient: float) -> float | None:
    """Take in p·p and p·g of one step; gives the rate for SGD when the rule says that it is time. See `Swats`."""
    if step_squared <= 0 or step_on_gradient == 0 or not math.isfinite(step_squared / step_on_gradient):
        return None  # no step, or one that says nothing about the rate
    estimate = -step_squared / step_on_gradient
    state.estimates += 1
    state.mean = rule.beta * state.mean + (1 - rule.beta) * estimate
    corrected = state.mean / (1 - rule.beta**state.estimates)
    # a momentum may lead uphill, but no rate can be negative
    if state.estimates < _FEWEST or corrected <= 0 or abs(corrected - estimate) >= rule.tolerance * corrected:
        return None
    return corrected


def rate_to_begin_with(switch: Switch, before: float, found: float | None) -> float:
    """The rate of the optimiser that takes over, given that of the one before and what swats found, if it did."""
    if found is not None and isinstance(switch.to, SGD):
        # momentum adds 1 / (1 - momentum) steps up: the paper takes that off again
        return found * (1 - switch.to.momentum)
    return switch.to.lr if switch.factor is None else switch.factor * before


def rate_after(switch: Switch, state: SwitchState, step: int, end: int) -> float:
    """The rate at `step` of the run, after a switch; its schedule is over at step `end`."""
    schedule, done = switch.schedule, step - (state.since or 0)
    if done < schedule.warmup:
        return state.rate * (done + 1) / schedule.warmup
    if not isinstance(schedule, Cosine):
        return state.rate
    share = (done - schedule.warmup) / max(1, end - (state.since or 0) - schedule.warmup)
    return state.rate * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * min(1.0, share))) / 2)


def optimiser_of(phase: Phase, state: SwitchState) -> Optimiser:
    """The settings of the optimiser that is at work."""
    return phase.optimiser if phase.switch is None or state.since is None else phase.switch.to


def end_of(phases: Sequence[Phase], index: int, start: int) -> int:
    """The last step at which phase `index`, begun at step `start`, and those that carry on after it can end."""
    end = start
    for place, phase in enumerate(phases[index:]):
        if place and not phase.carry:
            break
        end = _ended(phase, end)
    return end


def _ended(phase: Phase, start: int) -> int:
    end = start + phase.until.steps
    return end if phase.until.total is None else max(start, min(end, phase.until.total))


def weights_of(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """Copies of all weights that an optimiser moves, in its order."""
    return [parameter.detach().clone() for group in optimiser.param_groups for parameter in group["params"]]


def measure_step(optimiser: torch.optim.Optimizer, before: Sequence[Tensor], decoupled: bool) -> tuple[float, float]:
    """p·p and p·g of the step p that an optimiser has just taken along gradients g, from the weights `before`.

    A decay that is `decoupled` from the gradients is no part of the step.
    """
    squares, products, index = [], [], 0
    for group in optimiser.param_groups:
        kept = 1 - group["lr"] * group["weight_decay"] if decoupled else 1.0
        for parameter in group["params"]:
            if parameter.grad is not None:
                step = (parameter.detach() - before[index] * kept).double().flatten()
                squares.append(step @ step)
                products.append(step @ parameter.grad.double().flatten())
            index += 1
    return float(torch.stack(squares).sum()), float(torch.stack(products).sum())
