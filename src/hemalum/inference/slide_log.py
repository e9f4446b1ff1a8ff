"""The log of one slide, a file beside its results: what was asked for, what was said meanwhile, how it ended."""

import logging
from pathlib import Path
from types import TracebackType
from typing import Self

from hemalum.errors import HemalumError

log = logging.getLogger(__name__)


class SlideLog(logging.Handler):
    """Appends what the package logs to a file, one line each with the time, from `with` to its end.

    A disk that is full ends the log and not the run; the log of the program says so.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self.path = path
        self.failure: OSError | None = None
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))

    def __enter__(self) -> Self:
        try:
            self._file = self.path.open("a", encoding="utf-8", errors="replace")
        except OSError as error:
            raise HemalumError(f"cannot write {self.path}: {error.strerror or error}") from error
        logging.getLogger("hemalum").addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.note(f"ended by {type(error).__name__}: {error}", logging.ERROR)
        logging.getLogger("hemalum").removeHandler(self)
        try:
            self._file.close()
        except OSError as failure:
            self.failure = failure
        self.close()
        if self.failure is not None:
            log.warning("%s: the log is not whole (%s)", self.path, self.failure.strerror or self.failure)

    def note(self, message: str, level: int = logging.INFO) -> None:
        """Write a line to this file only."""
        self.handle(logging.LogRecord("hemalum", level, "", 0, message, None, None))

    def announce(self, message: str) -> None:
        """Write a line to this file, and to the program's log where that takes such lines."""
        if log.isEnabledFor(logging.INFO):
            log.info("%s", message)
        else:
            self.note(message)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        if self.failure is not None:
            return
        try:
            self._file.write(" ".join(self.format(record).splitlines()) + "\n")
            self._file.flush()
        except OSError as error:
            self.failure = error
