"""The updates of one phase: which optimiser is at work, at which rate, and when another takes over."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from hemalum.systems.phases import AdamW, Lion, Phase, Swats
from hemalum.training.optimisers import build_optimiser, learning_rate
from hemalum.training.switching import (
    SwitchState,
    loss_has_settled,
    measure_step,
    optimiser_of,
    rate_after,
    rate_to_begin_with,
    settled_rate,
    weights_of,
)


class Updates:
    """Moves `parameters` as `phase` says. `state` is where its switch stands, kept with the run's progress.

    `end` is the last step at which the phase, or one that carries on after it, can end; `run_steps` is how many the
    run has at most. `before` are the updates of the phase before, where this one carries on.
    """

    def __init__(
        self, phase: Phase, parameters: Sequence[nn.Parameter], state: SwitchState, end: int, run_steps: int,
        before: "Updates | None" = None,
    ) -> None:  # fmt: skip
        self.phase, self.parameters, self.state = phase, parameters, state
        self.end, self.run_steps = end, run_steps
        self.fabric: Fabric | None = None
        self.spec = optimiser_of(phase, state)
        self.optimiser: Any = build_optimiser(self.spec, parameters)  # Any: Fabric wraps it without a type of its own
        if before is not None:
            self.optimiser.load_state_dict(before.optimiser.state_dict())

    def set_up(self, fabric: Fabric) -> None:
        """Hand the optimiser to `fabric`, and each that takes over later."""
        self.fabric = fabric
        self.optimiser = fabric.setup_optimizers(self.optimiser)

    @property
    def name(self) -> str:
        """The optimiser at work."""
        return self.spec.name

    def figures(self) -> dict[str, float]:
        """What the log says: the rate, and the step of the switch when there was one."""
        row = {"lr": float(self.optimiser.param_groups[0]["lr"])}
        return row if self.state.since is None else row | {"switch_step": self.state.since}

    def set_rate(self, step: int, phase_step: int, reductions: int) -> None:
        """Set the rate for `step` of the run, `phase_step` of the phase; see `optimisers.learning_rate`."""
        if self.phase.switch is not None and self.state.since is not None:
            rate = rate_after(self.phase.switch, self.state, step, self.end)
        else:
            rate = learning_rate(self.phase, phase_step, reductions)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def step(self, loss: Tensor, step: int) -> None:
        """Move the weights by the gradients that `loss` gave; from the next step on another optimiser may do so."""
        switch = self.phase.switch
        if switch is None or self.state.since is not None:
            self.optimiser.step()
            return
        found: float | None = None
        if isinstance(switch.when, Swats):
            weights = weights_of(self.optimiser)
            self.optimiser.step()
            decoupled = isinstance(self.spec, AdamW | Lion)
            found = settled_rate(self.state, switch.when, *measure_step(self.optimiser, weights, decoupled))
            due = found is not None
        else:
            self.optimiser.step()
            due = loss_has_settled(self.state, switch.when, float(loss), self.run_steps)
        if due:
            self.state.since = step + 1
            self.state.rate = rate_to_begin_with(switch, self.phase.optimiser.lr, found)
            self.spec = switch.to
            self._take_over(build_optimiser(switch.to, self.parameters))

    def _take_over(self, optimiser: torch.optim.Optimizer) -> None:
        self.optimiser = optimiser if self.fabric is None else self.fabric.setup_optimizers(optimiser)
        for group in self.optimiser.param_groups:
            group["lr"] = self.state.rate
