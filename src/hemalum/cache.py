"""What is costly to make, kept between runs in one folder: converted models, compiled functions, embeddings.

An entry is a folder named by what it was made from. It is written beside and renamed, so it is there whole or
not at all, and it holds the sha256 of its files, so a damaged one is noticed and made again.

The folder is $HEMALUM_CACHE, else the platform's cache folder. Where it cannot be written, what it holds is used, and
what has to be made goes to a temporary folder that ends with the program, which the log says once.
"""

import atexit
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from hemalum.errors import HemalumError, one_line

log = logging.getLogger(__name__)

VARIABLE = "HEMALUM_CACHE"
TEMPORARY = "HEMALUM_CACHE_TEMPORARY"  # the temporary folder, for the processes that this one starts
_SUMS = "sha256"
_lock = threading.Lock()


def cache_folder() -> Path:
    """Where things are kept: $HEMALUM_CACHE, else the platform's cache folder. It may be missing or read-only.

    Absolute, but for a user without a home: then it begins with `~`, and nothing can be kept there.
    """
    try:
        stated = os.environ.get(VARIABLE) or platformdirs.user_cache_dir("hemalum", appauthor=False)
    except RuntimeError:
        stated = "~/.cache/hemalum"
    folder = os.path.expanduser(stated)  # noqa: PTH111 (Path.expanduser raises for a user without a home)
    return Path(folder) if folder.startswith("~") else Path(folder).absolute()


def cache_folders() -> list[Path]:
    """The folders that entries are looked for in, in this order."""
    temporary = os.environ.get(TEMPORARY)
    return [cache_folder(), *([Path(temporary)] if temporary else [])]


def writable_folder() -> Path:
    """The folder that entries are made in: `cache_folder`, or a temporary one where that cannot be written.

    Raises HemalumError where there is neither.
    """
    folder = cache_folder()
    reason = _why_not(folder)
    return folder if reason is None else temporary_folder(folder, reason)


def temporary_folder(folder: Path, reason: str) -> Path:
    """The temporary folder that stands in for `folder`, made when it is first wanted, and removed with the program.

    Raises HemalumError where there is none.
    """
    with _lock:
        held = os.environ.get(TEMPORARY)
        if held and _why_not(Path(held)) is None:
            return Path(held)
        try:
            made = Path(tempfile.mkdtemp(prefix="hemalum-"))
        except OSError as error:
            raise HemalumError(
                f"neither {folder} ({reason}) nor a temporary folder ({reason_of(error)}) can be written: "
                f"set {VARIABLE} to a folder that can"
            ) from error
        os.environ[TEMPORARY] = str(made)
        atexit.register(_remove, made, os.getpid())
    log.warning(
        "%s cannot be used (%s): compiled functions and converted models are kept in %s until the program ends; "
        "set %s to a folder that can be written",
        folder,
        reason,
        made,
        VARIABLE,
    )
    return made


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder that is gone afterwards: a temporary one or, where none can be had, one in the cache.

    Raises HemalumError where there is neither.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="hemalum-"))
    except OSError:
        folder = writable_folder() / f".scratch-{uuid.uuid4().hex[:16]}"
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cached(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Give the folder of entry `kind`/`key`, made by `make(folder)` when it is missing or damaged.

    Where the cache cannot be written, the entry is made in a temporary folder, which the log says. Raises
    HemalumError where neither can be written, and what `make` raises.
    """
    unreadable: tuple[Path, str] | None = None
    for root in cache_folders():
        entry = root / kind / key
        try:
            if _sound(entry):
                return entry
        except PermissionError as error:  # of another user, who alone can mend it
            unreadable = entry, reason_of(error)
            continue
        if _is_folder(entry):
            log.warning("%s is damaged; it is made again", entry)
            shutil.rmtree(entry, ignore_errors=True)
    root = temporary_folder(*unreadable) if unreadable else writable_folder()
    try:
        return _make(root, kind, key, make)
    except (OSError, RuntimeError) as error:  # RuntimeError: of OpenVINO, which does not say that the disk is full
        if root == Path(os.environ.get(TEMPORARY, "")):
            raise
        log.debug("%s: %s/%s cannot be made", root, kind, key, exc_info=True)
        reason = reason_of(error) if isinstance(error, OSError) else "the disk may be full"
        return _make(temporary_folder(root, reason), kind, key, make)


def _make(root: Path, kind: str, key: str, make: Callable[[Path], None]) -> Path:
    entry = root / kind / key
    folder = entry.with_name(f".{key[:16]}.{uuid.uuid4().hex[:8]}")
    try:
        folder.mkdir(parents=True)  # readable as the user's umask has it: a cache may be shared
        make(folder)
        sums = {path.name: _digest(path) for path in sorted(folder.iterdir())}
        (folder / _SUMS).write_text("".join(f"{sums[name]}  {name}\n" for name in sums))
        try:
            folder.rename(entry)
        except OSError:
            if not _sound(entry):  # another process may have been first
                raise
        return entry
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def reason_of(error: Exception) -> str:
    """What an exception says, for a line that names the file itself."""
    return error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)


def _why_not(folder: Path) -> str | None:
    """Why nothing can be written in a folder, which is made where it is missing; None where it can."""
    if not folder.is_absolute():  # `~/.cache` of a user who has none
        return "there is no home folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return reason_of(error)
    return None


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and no process that was forked
        shutil.rmtree(folder, ignore_errors=True)


def _sound(entry: Path) -> bool:
    """Whether an entry is there and whole. Raises PermissionError where it is there and cannot be read."""
    try:
        lines = (entry / _SUMS).read_text().splitlines()
        return bool(lines) and all(
            _digest(entry / name) == digest for digest, _, name in (line.partition("  ") for line in lines)
        )
    except PermissionError:
        if _is_folder(entry):
            raise
        return False
    except (OSError, UnicodeDecodeError, ValueError):
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:  # of a folder above it
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
