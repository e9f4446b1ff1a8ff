"""Optimizers and their learning rates, by the recipe's settings; Lion, which PyTorch lacks."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hemalum.systems import phases
from hemalum.systems.phases import SGD, Adam, AdamW, Constant, Cosine, Optimizer, Phase, Plateau


def build_optimizer(settings: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer of some settings. Biases and norms are not decayed where decay is decoupled."""
    parameters = list(parameters)
    match settings:
        case AdamW() | phases.Lion():
            groups = [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ]
            if isinstance(settings, phases.Lion):
                return Lion(groups, lr=settings.lr, betas=settings.betas)
            # one kernel for all parameters where they are on a GPU
            fused = parameters[0].is_cuda or None
            return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=fused)
        case Adam():
            return torch.optim.Adam(
                parameters, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
            )
        case SGD():
            return torch.optim.SGD(
                parameters,
                lr=settings.lr,
                momentum=settings.momentum,
                weight_decay=settings.weight_decay,
                nesterov=settings.nesterov and settings.momentum > 0,
            )


def compute_rate(phase: Phase, step: int, steps: int, reductions: int) -> float:
    """The learning rate at `step` of the phase (from 0), which is left so many `steps` of the run.

    `reductions` counts what a plateau schedule has cut.
    """
    return schedule_rate(phase.schedule, phase.optimizer.lr, step, steps, reductions)


def schedule_rate(
    schedule: Constant | Cosine | Plateau, rate: float, step: int, steps: int, reductions: int = 0
) -> float:
    """The learning rate at `step` (from 0) of `steps` by a schedule that starts from `rate`."""
    if step < schedule.warmup:
        return rate * (step + 1) / schedule.warmup
    if isinstance(schedule, Cosine):
        done = min(1.0, (step - schedule.warmup) / max(1, steps - schedule.warmup))
        return rate * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * done)) / 2)
    return rate * schedule.factor**reductions if isinstance(schedule, Plateau) else rate


class Lion(torch.optim.Optimizer):
    """Every weight moves by exactly the learning rate, up or down; decay is decoupled, as in AdamW.

    θ ← θ (1 - η λ);  θ ← θ - η sign(β₁ m + (1 - β₁) g);  m ← β₂ m + (1 - β₂) g    (Chen et al. 2023)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the weights that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            gradients = [p.grad for p in weights]
            for p in weights:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            momenta: list[Tensor] = [self.state[p]["momentum"] for p in weights]
            beta1, beta2 = group["betas"]
            # All weights in a few calls: a network has hundreds of small tensors. PyTorch has no public name for
            # these calls, on which its own optimizers stand.
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            steps = torch._foreach_lerp(momenta, gradients, 1 - beta1)
            torch._foreach_sign_(steps)
            torch._foreach_add_(weights, steps, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - beta2)
        return loss
