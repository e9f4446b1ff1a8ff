"""What a run keeps in its folder while it trains: where it stands, bit for bit, and its log. Nothing is pickled."""

import json
import os
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.models.card import Training
from hemalum.training.phase_optimizer import SwitchState

CHECKPOINT_FILE = "checkpoint.safetensors"
LOG_FILE = "log.jsonl"
FORMAT: Literal[2] = 2  # 1: keys before version 0.2
_KEY = "hemalum_progress"


class Progress(BaseModel):
    """Where a run stands. `step` counts over all phases, `phase_step` within the current one."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[2] = FORMAT
    step: int = 0
    phase: int = 0
    phase_step: int = 0
    phase_best: float | None = None
    waiting: int = 0
    plateau_waiting: int = 0
    reductions: int = 0
    log_bytes: int = 0
    phase_dice: list[float] = Field(default_factory=list)
    best_steps: dict[str, int] = Field(default_factory=dict, description="phase → step of its best weights")
    switch: SwitchState = Field(default_factory=SwitchState)
    initial: Training | None = Field(None, description="of the weights that the run started from")

    def next_phase(self, keep_optimizer: bool = False) -> None:
        """The current phase is over; where its switch stands is kept when the next one carries on."""
        self.phase += 1
        self.phase_step = self.waiting = self.plateau_waiting = self.reductions = 0
        self.phase_best = None
        self.phase_dice = []
        if not keep_optimizer:
            self.switch = SwitchState()


def save_checkpoint(
    path: Path,
    progress: Progress,
    network: nn.Module,
    average: dict[str, Tensor] | None,
    optimizer: torch.optim.Optimizer | None,
) -> None:
    """Write atomically: weights, averaged weights, the optimizer's state (None: it has none), the progress."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": value for name, value in average.items()}
    states = optimizer.state_dict()["state"] if optimizer is not None else {}
    for index, values in states.items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
    with atomic_path(path) as temporary:
        copies = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(copies, temporary, metadata={_KEY: progress.model_dump_json()})


def read_progress(path: Path) -> Progress:
    """Where the run of a checkpoint stands. Raises HemalumError when the file is not a checkpoint."""
    return _read(path)[0]


def load_checkpoint(
    path: Path, network: nn.Module, average: dict[str, Tensor] | None, optimizer: torch.optim.Optimizer
) -> None:
    """Give network, averaged weights and optimizer the tensors of a checkpoint.

    Raises HemalumError when the file is damaged or belongs to another network or optimizer.
    """
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
    for name, value in _read(path)[1].items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    try:
        network.load_state_dict(parts["network"])
        if average is not None:
            for name, value in average.items():
                value.copy_(parts["average"][name])
        state: dict[int, dict[str, Any]] = {}
        for name, value in parts["optimizer"].items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (KeyError, RuntimeError, ValueError) as error:
        raise HemalumError(f"{path} does not fit this recipe's network: {str(error).splitlines()[0]}") from error


def _read(path: Path) -> tuple[Progress, dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        content = json.loads(metadata[_KEY])
        if content.get("format", 1) != FORMAT:
            raise HemalumError(
                f"{path} has checkpoint format {content.get('format', 1)}, this hemalum reads format {FORMAT}: "
                "resume it with the version that wrote it, or train again"
            )
        return Progress.model_validate(content), tensors
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise HemalumError(f"{path} is not a readable checkpoint: {error}") from error


class Log:
    """One JSON object per line, and TensorBoard where it is installed.

    The file is cut back to `keep` bytes first: what a resumed run had written up to its checkpoint.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        path = folder / LOG_FILE
        path.touch()
        os.truncate(path, min(keep, path.stat().st_size))
        self._file = path.open("a", encoding="utf-8")
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # the extra `tensorboard` is optional
            return
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, step: int, phase: str, optimizer: str, figures: dict[str, float]) -> None:
        """Add a line; `optimizer` is the one at work."""
        self._file.write(json.dumps({"step": step, "phase": phase, "optimizer": optimizer} | figures) + "\n")
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)

    def flush(self) -> int:
        """Bring everything to disk; gives the log's length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Bring everything to disk; nothing is written from then on."""
        self.flush()
        self._file.close()
        if self._board is not None:
            self._board.close()
