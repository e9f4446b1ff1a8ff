"""The optimizer of a phase: its rate at every step, and when another one takes over within the phase.

The rules by which it does are pure, over numbers in `SwitchState`, which is part of a checkpoint: a resumed run
switches at the same step.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from hemalum.errors import HemalumError, nearest
from hemalum.systems.phases import SGD, AdamW, Lion, Optimizer, Phase, Swats, Switch, Threshold
from hemalum.training.optimizers import build_optimizer, compute_rate, schedule_rate

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


class PhaseOptimizer:
    """Moves `parameters` as `phase` says. `state` is where its switch stands, kept with the run's progress.

    `end` is the last step at which the phase, or one that carries on after it, can end; `run_steps` is how many the
    run has at most. `previous` is that of the phase before, where this one carries on.
    """

    def __init__(
        self, phase: Phase, parameters: Sequence[nn.Parameter], state: SwitchState, end: int, run_steps: int,
        previous: "PhaseOptimizer | None" = None,
    ) -> None:  # fmt: skip
        self.phase, self.parameters, self.state = phase, parameters, state
        self.end, self.run_steps = end, run_steps
        self.fabric: Fabric | None = None
        self.settings = select_optimizer(phase, state)
        # Any: Fabric wraps it without a type of its own
        self.optimizer: Any = build_optimizer(self.settings, parameters)
        if previous is not None:
            self.optimizer.load_state_dict(previous.optimizer.state_dict())

    def set_up(self, fabric: Fabric) -> None:
        """Hand the optimizer to `fabric`, and each that takes over later."""
        self.fabric = fabric
        self.optimizer = fabric.setup_optimizers(self.optimizer)

    @property
    def name(self) -> str:
        """The optimizer at work."""
        return self.settings.name

    def figures(self) -> dict[str, float]:
        """What the log says: the rate, and the step of the switch when there was one."""
        row = {"lr": float(self.optimizer.param_groups[0]["lr"])}
        return row if self.state.since is None else row | {"switch_step": self.state.since}

    def set_rate(self, step: int, phase_step: int, reductions: int) -> None:
        """Set the rate for `step` of the run, `phase_step` of the phase; see `optimizers.compute_rate`."""
        if self.phase.switch is not None and self.state.since is not None:
            rate = compute_switched_rate(self.phase.switch, self.state, step, self.end)
        else:
            start = step - phase_step
            rate = compute_rate(self.phase, phase_step, self.phase.until.last_step(start) - start, reductions)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def watched_loss(self, loss: Tensor, parts: Mapping[str, Tensor], factors: Mapping[str, float]) -> Tensor:
        """What a switch's threshold looks at: the loss, or the part that it names without its scheduled weight.

        Raises HemalumError where the network gives nothing that the part is of.
        """
        when = None if self.phase.switch is None else self.phase.switch.when
        if not isinstance(when, Threshold) or when.part is None:
            return loss
        if when.part not in parts:
            raise HemalumError(
                f"phase '{self.phase.name}': its switch watches the part '{when.part}' of the loss, and the network "
                f"gives nothing that it is of{nearest(when.part, parts)}"
            )
        # a part that has no weight yet is 0, whatever it is divided by
        return parts[when.part] / (factors.get(f"{when.part}_weight", 1.0) or 1.0)

    def step(self, loss: Tensor, step: int) -> None:
        """Move the weights by their gradients; from the next step on another optimizer may do so.

        `loss` is the `watched_loss` of the batch that gave the gradients.
        """
        switch = self.phase.switch
        if switch is None or self.state.since is not None:
            self.optimizer.step()
            return
        rate: float | None = None
        if isinstance(switch.when, Swats):
            weights = copy_parameters(self.optimizer)
            self.optimizer.step()
            decoupled = isinstance(self.settings, AdamW | Lion)
            rate = update_swats(self.state, switch.when, *measure_step(self.optimizer, weights, decoupled))
            due = rate is not None
        else:
            self.optimizer.step()
            due = update_threshold(self.state, switch.when, float(loss), self.run_steps)
        if due:
            self.state.since = step + 1
            self.state.rate = choose_first_rate(switch, self.figures()["lr"], rate)
            self.settings = switch.to
            optimizer = build_optimizer(switch.to.model_copy(update={"lr": self.state.rate}), self.parameters)
            self.optimizer = optimizer if self.fabric is None else self.fabric.setup_optimizers(optimizer)


def select_optimizer(phase: Phase, state: SwitchState) -> Optimizer:
    """The settings of the optimizer that is at work."""
    return phase.optimizer if phase.switch is None or state.since is None else phase.switch.to


def find_optimizer_end(phases: Sequence[Phase], index: int, start: int) -> int:
    """The last step at which phase `index`, begun at step `start`, and those that carry on after it can end."""
    end = phases[index].until.last_step(start)
    for phase in phases[index + 1 :]:
        if not phase.keep_optimizer:
            break
        end = phase.until.last_step(end)
    return end


def update_threshold(state: SwitchState, rule: Threshold, loss: float, run_steps: int) -> bool:
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


def update_swats(state: SwitchState, rule: Swats, step_squared: float, step_on_gradient: float) -> float | None:
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


def choose_first_rate(switch: Switch, before: float, estimate: float | None) -> float:
    """The rate that the next optimizer rises to, from that `before` the switch, or from the estimate of swats."""
    if estimate is not None and isinstance(switch.to, SGD):
        # momentum adds 1 / (1 - momentum) steps up: the paper takes that off again
        return estimate * (1 - switch.to.momentum)
    return switch.to.lr if switch.factor is None else switch.factor * before


def compute_switched_rate(switch: Switch, state: SwitchState, step: int, end: int) -> float:
    """The rate at `step` of the run, after a switch; its schedule is over at step `end`, its warm-up at half time."""
    since = state.since or 0
    left = end - since
    schedule = switch.schedule.model_copy(update={"warmup": min(switch.schedule.warmup, left // 2)})
    return schedule_rate(schedule, state.rate, step - since, left)


def copy_parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Copies of all weights that an optimizer moves, in its order."""
    return [parameter.detach().clone() for group in optimizer.param_groups for parameter in group["params"]]


def measure_step(optimizer: torch.optim.Optimizer, before: Sequence[Tensor], decoupled: bool) -> tuple[float, float]:
    """p·p and p·g of the step p that an optimizer has just taken along gradients g, from the weights `before`.

    A decay that is `decoupled` from the gradients is no part of the step.
    """
    squares, products, index = [], [], 0
    for group in optimizer.param_groups:
        decay = 1 - group["lr"] * group["weight_decay"] if decoupled else 1.0
        for parameter in group["params"]:
            if parameter.grad is not None:
                step = (parameter.detach() - before[index] * decay).double().flatten()
                squares.append(step @ step)
                products.append(step @ parameter.grad.double().flatten())
            index += 1
    return float(torch.stack(squares).sum()), float(torch.stack(products).sum())
