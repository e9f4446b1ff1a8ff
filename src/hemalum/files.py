"""Writing files so that nothing half-written is ever seen under its final name."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from hemalum.errors import HemalumError

T = TypeVar("T")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # beginnings of texts that spreadsheets compute


@contextmanager
def atomic_path(final: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `final`; on success it is synced and renamed to `final`.

    On any exception the temporary file is removed and `final` is left as it was.
    Raises HemalumError when the folder cannot be written or the disk is full.
    """
    final = Path(final)
    # the suffix stays last: writers choose their format by it
    temporary = final.with_name(f".{final.stem}.{os.getpid()}.{threading.get_ident()}.part{final.suffix}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        # some writers make private files; what a user asked for follows the user's umask
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(final)
    except OSError as error:
        raise HemalumError(f"cannot write {final}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # nothing to remove where the folder itself could not be made
            temporary.unlink()


@contextmanager
def new_folder(final: Path | str) -> Iterator[Path]:
    """Give a temporary folder beside `final`; on success it is renamed to `final`, on any exception it is removed.

    Raises HemalumError when `final` is there already and is no empty folder, or cannot be written.
    """
    final = Path(final)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.part")
    try:
        if final.exists() and not (final.is_dir() and not any(final.iterdir())):
            raise HemalumError(f"{final}: is there already; remove it or name another")
        temporary.mkdir(parents=True)
        yield temporary
        if final.exists():
            final.rmdir()
        temporary.replace(final)
    except OSError as error:
        raise HemalumError(f"cannot write {final}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def named_path(path: Path | str) -> Path:
    """The path, absolute where it ends in no name (`.`, `..`), for what is called after it."""
    path = Path(path)
    return path if path.name not in ("", "..") else path.resolve()


def write_text(path: Path | str, text: str) -> Path:
    """Write a text file in UTF-8, newlines as they are, whole or not at all; gives its path.

    What no UTF-8 can hold, as bytes of a file's name, is written out (\\udce9).

    Raises HemalumError when it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    return Path(path)


def csv_cell(value: T) -> T | str:
    """What stands in a cell of a CSV file: text that a spreadsheet would take for a formula gets a ' before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
