"""Checkpoints: all that the loop needs to go on bit for bit, in one safetensors file. Nothing is pickled."""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.models.card import Training
from hemalum.training.switching import SwitchState

_KEY = "hemalum_progress"


class Progress(BaseModel):
    """Where a run stands. `step` counts over all phases, `phase_step` within the current one."""

    model_config = ConfigDict(extra="forbid")

    recipe_digest: str
    data_digest: str
    step: int = 0
    phase: int = 0
    phase_step: int = 0
    phase_best: float | None = None
    waiting: int = 0
    plateau_waiting: int = 0
    reductions: int = 0
    log_bytes: int = 0
    phase_dice: list[float] = Field(default_factory=list)
    switch: SwitchState = Field(default_factory=SwitchState)
    initial: Training | None = Field(None, description="of the weights that the run started from")

    def next_phase(self, carries: bool = False) -> None:
        """The current phase is over; where its switch stands is kept when the next one carries on."""
        self.phase += 1
        self.phase_step = self.waiting = self.plateau_waiting = self.reductions = 0
        self.phase_best = None
        self.phase_dice = []
        if not carries:
            self.switch = SwitchState()


def save_checkpoint(
    path: Path,
    progress: Progress,
    network: nn.Module,
    average: dict[str, Tensor] | None,
    optimiser: torch.optim.Optimizer | None,
) -> None:
    """Write atomically: weights, averaged weights, the optimiser's state (None: it has none), the progress."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.items()}
    states = optimiser.state_dict()["state"] if optimiser is not None else {}
    for index, values in states.items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
    with atomic_path(path) as temporary:
        copies = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(copies, temporary, metadata={_KEY: progress.model_dump_json()})


def read_progress(path: Path) -> Progress:
    """Read only where the run stands. Raises HemalumError when the file is not a checkpoint."""
    return _open(path)[0]


def load_checkpoint(
    path: Path, network: nn.Module, average: dict[str, Tensor] | None, optimiser: torch.optim.Optimizer
) -> Progress:
    """Put a checkpoint's tensors in place and give its progress.

    Raises HemalumError when the file is damaged or belongs to another network or optimiser.
    """
    progress, tensors = _open(path)
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimiser": {}}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        parts[kind][rest] = value
    try:
        network.load_state_dict(parts["network"])
        if average is not None:
            for name, value in average.items():
                value.copy_(parts["average"][name])
        state: dict[int, dict[str, Any]] = {}
        for name, value in parts["optimiser"].items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    except (KeyError, RuntimeError, ValueError) as error:
        raise HemalumError(f"{path} does not fit this recipe's network: {str(error).splitlines()[0]}") from error
    return progress


def _open(path: Path) -> tuple[Progress, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return Progress.model_validate(json.loads(metadata[_KEY])), tensors
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise HemalumError(f"{path} is not a readable checkpoint: {error}") from error
