"""The processes that train one model together: who starts them, what they share, how they end.

Each makes its part of every global batch and sees the same gradients, so all hold the same weights at all times.
The first one (rank 0) writes and prints.
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
from torch import Tensor, distributed
from torch._C._distributed_c10d import TCPStore

from hemalum.errors import HemalumError, ToldElsewhereError

PATIENCE = timedelta(minutes=10)  # how long a process waits for one that does not answer
_run = 0  # how many times these processes have trained


def start_processes(accelerator: str, devices: int | None, precision: Any) -> Fabric:
    """Join the processes that torchrun or srun started, or start `devices` on this machine (None: one).

    Started here, each process runs the program's own command line again. Raises HemalumError when
    `devices` contradicts what runs already, or the machine does not have them.
    """
    here, machines = _started() or (devices or 1, 1)
    if devices is not None and devices != here:
        raise HemalumError(f"{here} processes run on this machine and devices is {devices}: leave it out")
    alone = here * machines == 1
    # it says on its own what precision it uses, in the midst of our lines
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=here,
            num_nodes=machines,
            strategy="auto" if alone else DDPStrategy(timeout=PATIENCE, gradient_as_bucket_view=True),
            precision=precision,
            # what a SLURM job says about tasks holds for what srun starts, not for a command in its script
            plugins=LightningEnvironment() if _started() is None else None,
        )
        fabric.launch()
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise HemalumError(f"cannot train with {here * machines} processes on '{accelerator}': {reason}") from error
    return fabric


def _started() -> tuple[int, int] | None:
    """(processes per machine, machines) that torchrun or srun has started, None without either."""
    of = os.environ
    if "TORCHELASTIC_RUN_ID" in of:
        here = int(of["LOCAL_WORLD_SIZE"])
        return here, int(of["WORLD_SIZE"]) // here
    if int(of.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        machines = int(of.get("SLURM_NNODES", 1))
        return int(of["SLURM_STEP_NUM_TASKS"]) // machines, machines
    return None


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


@contextmanager
def said_once() -> Iterator[None]:
    """For mistakes that all processes make alike before they know each other: one of each machine says them."""
    try:
        yield
    except HemalumError as error:
        if int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0))) > 0:
            raise ToldElsewhereError(str(error)) from error
        raise


def check_batch(name: str, batch: int, processes: int) -> None:
    """Raise HemalumError unless the recipe's batch can be shared equally."""
    if batch % processes:
        fitting = ", ".join(str(count) for count in range(1, batch + 1) if batch % count == 0)
        raise HemalumError(
            f"recipe {name}: batch {batch} cannot be shared equally by {processes} processes; "
            f"these numbers of processes can: {fitting}"
        )


def add_up(sums: Tensor) -> Tensor:
    """The sum over all processes, through which gradients flow: each gets what its part contributed.

    The gradient is that of the sum of all processes' losses; DDP's mean over processes makes it the loss's own.
    """
    return _AddUp.apply(sums)  # type: ignore[no-any-return, no-untyped-call]


class _AddUp(torch.autograd.Function):
    """What one process gives enters the loss of every process: its gradient is the sum of theirs."""

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


def add_up_figures(fabric: Fabric, figures: Tensor) -> Tensor:
    """The sum over all processes, the same bits in each, without gradients; in place."""
    if fabric.world_size > 1:
        distributed.all_reduce(figures)
    return figures


@contextmanager
def ending_together(fabric: Fabric) -> Iterator[None]:
    """Whatever one process fails of ends all; the one that failed first says it, the others raise ToldElsewhereError.

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
            raise ToldElsewhereError("another process of the run has failed") from error
        for child in getattr(fabric.strategy.launcher, "procs", []):
            child.terminate()
        raise
