"""The run's log: one JSON object per line, and TensorBoard where it is installed."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Log:
    """`log.jsonl` in a run's folder, cut back to `keep` bytes first (what a resumed run had already written)."""

    def __init__(self, folder: Path, keep: int) -> None:
        path = folder / "log.jsonl"
        path.touch()
        os.truncate(path, min(keep, path.stat().st_size))
        self._file = path.open("a", encoding="utf-8")
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # the extra `tensorboard` is optional
            return
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, step: int, phase: str, optimiser: str, row: dict[str, float]) -> None:
        """Add a line; `optimiser` is the one at work."""
        self._file.write(json.dumps({"step": step, "phase": phase, "optimiser": optimiser} | row) + "\n")
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name, value, step)

    def flush(self) -> int:
        """Bring everything to disk; gives the log's length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()
