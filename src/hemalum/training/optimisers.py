"""Optimisers and schedules, by the recipe's names."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from hemalum.systems.phases import SGD, Adam, AdamW, Cosine, Lion, Optimiser, Phase
from hemalum.training import lion


def build_optimiser(spec: Optimiser, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimiser of some settings. Biases and norms are not decayed where decay is decoupled."""
    parameters = list(parameters)
    match spec:
        case AdamW() | Lion():
            groups = [
                {"params": [p for p in parameters if p.ndim > 1], "weight_decay": spec.weight_decay},
                {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            ]
            if isinstance(spec, Lion):
                return lion.Lion(groups, lr=spec.lr, betas=spec.betas)
            # one kernel for all parameters where they are on a GPU
            fused = parameters[0].is_cuda or None
            return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=fused)
        case Adam():
            return torch.optim.Adam(parameters, lr=spec.lr, betas=spec.betas, weight_decay=spec.weight_decay)
        case SGD():
            return torch.optim.SGD(
                parameters,
                lr=spec.lr,
                momentum=spec.momentum,
                weight_decay=spec.weight_decay,
                nesterov=spec.nesterov and spec.momentum > 0,
            )


def learning_rate(phase: Phase, step: int, reductions: int) -> float:
    """The rate at `step` of the phase (from 0); `reductions` counts what a plateau schedule has cut."""
    schedule, rate = phase.schedule, phase.optimiser.lr
    if step < schedule.warmup:
        return rate * (step + 1) / schedule.warmup
    if isinstance(schedule, Cosine):
        done = (step - schedule.warmup) / max(1, phase.until.steps - schedule.warmup)
        return rate * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * min(1.0, done))) / 2)
    if schedule.name == "plateau":
        return rate * schedule.factor**reductions
    return rate
