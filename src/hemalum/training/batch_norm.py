"""Batch norm over the whole batch where several processes share it.

Batch norm is the one layer whose output for a sample depends on the other samples: with the statistics of each part,
training with two processes would be another training than with one.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def share_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Have every batch norm of `network` take its statistics over all processes; parameters and names stay.

    On CUDA that is PyTorch's own SyncBatchNorm, which does not run on a CPU; elsewhere it is `SharedBatchNorm`.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-any-return, no-untyped-call]
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm  # it holds the same things and computes them otherwise
    return network


class SharedBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` (Ioffe & Szegedy 2015) whose batch is all processes' parts together, all of one size."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) in float32 or less → the same."""
        if not self.training:
            return super().forward(input)
        return _Normalise.apply(input, self.weight, self.bias, self)  # type: ignore[no-any-return, no-untyped-call]

    def follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics towards a batch's; `variance` is divided by `count`."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), share)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, layer: SharedBatchNorm) -> Tensor:
        variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        # moments of parts add up; in float64, since the mean's square is taken off again
        moments = torch.stack([mean.double(), variance.double() + mean.double().square()])
        distributed.all_reduce(moments)
        moments /= distributed.get_world_size()
        mean, variance = moments[0].float(), (moments[1] - moments[0].square()).float()
        ctx.count = x.numel() // x.shape[1] * distributed.get_world_size()
        ctx.save_for_backward(x, weight, mean, (variance + layer.eps).rsqrt())
        layer.follow(mean, variance, ctx.count)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=layer.eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale = ctx.saved_tensors
        per_channel = (None, slice(None), None, None)
        normalised = (x.float() - mean[per_channel]) * scale[per_channel]
        given = gradient.float()
        own = torch.stack([given.sum((0, 2, 3)), (given * normalised).sum((0, 2, 3))])
        both = own.clone()  # DDP averages the parameters' gradients itself; the input's need the sums of all parts
        distributed.all_reduce(both)
        both /= ctx.count
        change = given - both[0][per_channel] - normalised * both[1][per_channel]
        factor = scale if weight is None else weight * scale
        passed = (change * factor[per_channel]).to(x.dtype)
        return passed, None if weight is None else own[1], None if weight is None else own[0], None
