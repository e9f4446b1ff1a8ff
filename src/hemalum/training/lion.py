"""Lion (Chen et al. 2023): steps of one size, along the sign of a mixture of momentum and gradient."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Lion(torch.optim.Optimizer):
    """Every weight moves by exactly the learning rate, up or down; decay is decoupled, as in AdamW.

    θ ← θ (1 - η λ);  θ ← θ - η sign(β₁ m + (1 - β₁) g);  m ← β₂ m + (1 - β₂) g
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
            moved = [p for p in group["params"] if p.grad is not None]
            if not moved:
                continue
            gradients = [p.grad for p in moved]
            for p in moved:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            momenta: list[Tensor] = [self.state[p]["momentum"] for p in moved]
            mixing, keeping = group["betas"]
            # all weights in a few calls: a network has hundreds of small tensors
            if group["weight_decay"]:
                torch._foreach_mul_(moved, 1 - group["lr"] * group["weight_decay"])
            steps = torch._foreach_lerp(momenta, gradients, 1 - mixing)
            torch._foreach_sign_(steps)
            torch._foreach_add_(moved, steps, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - keeping)
        return loss
