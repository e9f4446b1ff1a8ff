"""What is costly to make, kept between runs in the user's cache folder: converted models, embeddings of images.

An entry is a folder named by what it was made from. It is written beside and renamed, so it is there whole or
not at all, and it holds the sha256 of its files, so a damaged one is noticed and made again.
"""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

log = logging.getLogger(__name__)

VARIABLE = "HEMALUM_CACHE"
_SUMS = "sha256"


def cache_folder() -> Path:
    """Where things are kept: $HEMALUM_CACHE, else the platform's cache folder."""
    stated = os.environ.get(VARIABLE)
    return Path(stated) if stated else Path(platformdirs.user_cache_dir("hemalum", appauthor=False))


def cached(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Give the folder of entry `kind`/`key`, made by `make(folder)` when it is missing or damaged.

    Where the cache cannot be written, the entry is made in a temporary folder, which the log says.
    """
    entry = cache_folder() / kind / key
    if entry.is_dir():
        if _sound(entry):
            return entry
        log.warning("%s is damaged; it is made again", entry)
        shutil.rmtree(entry, ignore_errors=True)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{key[:16]}.", dir=entry.parent))
    except OSError as error:
        log.warning("%s cannot be written (%s): nothing is kept", entry.parent, error.strerror or error)
        folder = Path(tempfile.mkdtemp(prefix="hemalum-"))
        make(folder)
        return folder
    try:
        make(folder)
        sums = {path.name: _digest(path) for path in sorted(folder.iterdir())}
        (folder / _SUMS).write_text("".join(f"{sums[name]}  {name}\n" for name in sums))
        try:
            folder.rename(entry)
        except OSError:
            if not entry.is_dir() or not _sound(entry):  # another process may have been first
                raise
        return entry
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sound(entry: Path) -> bool:
    try:
        lines = (entry / _SUMS).read_text().splitlines()
        return bool(lines) and all(
            _digest(entry / name) == digest for digest, _, name in (line.partition("  ") for line in lines)
        )
    except (OSError, UnicodeDecodeError, ValueError):
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
