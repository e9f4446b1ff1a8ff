"""The processes that train one model together: who starts them, how they end, what they add up.

Each makes its part of every global batch and sees the same gradients, so all hold the same weights at all times;
batch norm takes its statistics over all parts. The first process (rank 0) writes and prints.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, and missing in its __all__
from torch.nn import functional as F

from hemalum.errors import HemalumError, PeerFailedError
from hemalum.networks import Network

TIMEOUT = timedelta(minutes=10)  # how long a process waits for one that does not answer
_run = 0  # how many times these processes have trained


def start_processes(accelerator: str, devices: int | None, precision: Any) -> Fabric:
    """Join the processes that torchrun or srun started, or start `devices` on this machine (None: one).

    Started here, each process runs the program's own command line again. Raises HemalumError when
    `devices` contradicts what runs already, or the machine does not have them.
    """
    started = _count_started()
    per_machine, machines = started or (devices or 1, 1)
    if devices is not None and devices != per_machine:
        raise HemalumError(f"{per_machine} processes run on this machine and devices is {devices}: leave it out")
    alone = per_machine * machines == 1
    # Fabric would log the precision it uses, in the midst of our lines
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=per_machine,
            num_nodes=machines,
            strategy="auto" if alone else DDPStrategy(timeout=TIMEOUT, gradient_as_bucket_view=True),
            precision=precision,
            # what a SLURM job says about tasks holds for what srun starts, not for a command in its script
            plugins=LightningEnvironment() if started is None else None,
        )
        fabric.launch()
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise HemalumError(
            f"cannot train with {per_machine * machines} processes on '{accelerator}': {reason}"
        ) from error
    return fabric


def _count_started() -> tuple[int, int] | None:
    """(processes per machine, machines) that torchrun or srun has started, None without either."""
    variables = os.environ
    if "TORCHELASTIC_RUN_ID" in variables:
        per_machine = int(variables["LOCAL_WORLD_SIZE"])
        return per_machine, int(variables["WORLD_SIZE"]) // per_machine
    if int(variables.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        machines = int(variables.get("SLURM_NNODES", 1))
        return int(variables["SLURM_STEP_NUM_TASKS"]) // machines, machines
    return None


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


@contextmanager
def report_once() -> Iterator[None]:
    """For errors that all processes meet alike before they know each other: one of each machine reports them."""
    try:
        yield
    except HemalumError as error:
        if int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0))) > 0:
            raise PeerFailedError(str(error)) from error
        raise


def check_batch(name: str, batch: int, processes: int) -> None:
    """Raise HemalumError unless the recipe's batch can be shared equally."""
    if batch % processes:
        divisors = ", ".join(str(count) for count in range(1, batch + 1) if batch % count == 0)
        raise HemalumError(
            f"recipe {name}: batch {batch} cannot be shared equally by {processes} processes; "
            f"these numbers of processes can: {divisors}"
        )


def all_reduce_sum(sums: Tensor) -> Tensor:
    """The sum over all processes, through which gradients flow: each gets what its part contributed.

    The gradient is that of the sum of all processes' losses; DDP's mean over processes makes it the loss's own.
    """
    return _AllReduceSum.apply(sums)  # type: ignore[no-any-return, no-untyped-call]


class _AllReduceSum(torch.autograd.Function):
    """A process's sums enter the loss of every process: their gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:
        total = sums.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def all_reduce_figures(fabric: Fabric, figures: Tensor) -> Tensor:
    """The sum over all processes, the same bits in each, without gradients; in place."""
    if fabric.world_size > 1:
        distributed.all_reduce(figures)
    return figures


@contextmanager
def abort_together(fabric: Fabric) -> Iterator[None]:
    """Whatever one process fails of ends all; the one that failed first says it, the others raise PeerFailedError.

    Those that wait for a process that has gone get an error of their own, which would hide the cause.
    """
    if fabric.world_size == 1:
        yield
        return
    global _run
    _run += 1
    name = f"hemalum/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{_run}"
    # its own line to the store through which the processes found each other
    store = TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=30)
    )
    try:
        yield
    except Exception as error:
        try:
            first = store.add(name, 1) == 1
        except RuntimeError:  # the store lives in the first process, and that has gone
            first = False
        if not first:
            raise PeerFailedError("another process of the run has failed") from error
        # Fabric has no public name for the processes that it started; those of torchrun and srun end their own
        for child in getattr(fabric.strategy.launcher, "procs", []):
            child.terminate()
        raise


def share_batch_norm(network: Network, device: torch.device) -> Network:
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
        return _Normalize.apply(input, self.weight, self.bias, self)  # type: ignore[no-any-return, no-untyped-call]

    def update_running(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics towards a batch's; `variance` is divided by `count`."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), momentum)


class _Normalize(torch.autograd.Function):
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
        layer.update_running(mean, variance, ctx.count)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=layer.eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale = ctx.saved_tensors
        per_channel = (None, slice(None), None, None)
        normalized = (x.float() - mean[per_channel]) * scale[per_channel]
        gradient = gradient.float()
        sums = torch.stack([gradient.sum((0, 2, 3)), (gradient * normalized).sum((0, 2, 3))])
        means = sums.clone()  # DDP averages the parameters' gradients itself; the input's need the sums of all parts
        distributed.all_reduce(means)
        means /= ctx.count
        change = gradient - means[0][per_channel] - normalized * means[1][per_channel]
        factor = scale if weight is None else weight * scale
        input_gradient = (change * factor[per_channel]).to(x.dtype)
        return input_gradient, None if weight is None else sums[1], None if weight is None else sums[0], None
