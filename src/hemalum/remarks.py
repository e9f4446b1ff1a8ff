"""What is remarked on a file, once, however often it is read; of a batch one line for all files of a kind."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hemalum.errors import counted

log = logging.getLogger(__name__)

MOST = 100_000  # remarks that are remembered

_lock = threading.Lock()
_known: set[tuple[str, int, str]] = set()
_gathered: dict[str, dict[str | int, tuple[str, str]]] | None = None  # name and text of each file, by kind


def remark(name: Path | str, text: str, kind: str = "") -> None:
    """Warn "NAME: TEXT" once for a file as it is now; within `gather_remarks` once at its end.

    Remarks are alike where `kind` is the same, by default the text: that of the first stands for the others.
    """
    if not log.isEnabledFor(logging.WARNING):  # who silences the log wants it said another time
        return
    with _lock:
        try:
            changed = Path(name).stat().st_mtime_ns
        except (OSError, ValueError):
            changed = 0
        if _gathered is not None:  # what was said before it is said again: it is another verb
            alike = _gathered.setdefault(kind or text, {})
            alike.setdefault(str(name) if changed else len(alike), (str(name), text))
            return
        if changed:  # an array has no file, and one name may stand for many
            key = str(name), changed, text
            if key in _known:
                return
            if len(_known) >= MOST:
                _known.clear()
            _known.add(key)
    log.warning("%s: %s", name, text)


@contextmanager
def gather_remarks() -> Iterator[None]:
    """Say at the end, of several files on which the same is remarked, one line with their count."""
    global _gathered
    with _lock:
        outer, _gathered = _gathered, {} if _gathered is None else _gathered
    try:
        yield
    finally:
        if outer is None:
            with _lock:
                gathered, _gathered = _gathered or {}, None
            for (name, text), *others in (alike.values() for alike in gathered.values()):
                more = f" (and so {counted(len(others), 'other file')})" if others else ""
                log.warning("%s: %s%s", name, text, more)
