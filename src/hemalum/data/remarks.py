"""What is remarked on a file, once, however often it is read; a batch says it with a count."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

MOST = 100_000  # remarks that are remembered

_lock = threading.Lock()
_known: set[tuple[str, int, str]] = set()
_gathered: dict[str, list[str]] | None = None


def remark(name: Path | str, text: str) -> None:
    """Warn "NAME: TEXT" once for a file as it is now; within `gather_remarks` at its end."""
    if not log.isEnabledFor(logging.WARNING):  # who silences the log wants it said another time
        return
    with _lock:
        try:
            changed = Path(name).stat().st_mtime_ns
        except (OSError, ValueError):
            changed = 0
        key = str(name), changed, text
        if changed:  # an array has no file, and one name may stand for many
            if key in _known:
                return
            if len(_known) >= MOST:
                _known.clear()
            _known.add(key)
        if _gathered is not None:
            _gathered.setdefault(text, []).append(str(name))
            return
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
            for text, names in gathered.items():
                more = "" if len(names) == 1 else f" (and {len(names) - 1:,} more files)"
                log.warning("%s%s: %s", names[0], more, text)
