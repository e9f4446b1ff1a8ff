"""What a folder of results holds: one file that starts it, lets a second run of the same go on, and refuses another.

    FOLDER/<kind>.yaml     format, and everything that decides the results
    FOLDER/.lock           held while the folder is looked at or written to

The kinds are training, comparison, reproduction, refinement and reviewed_refinement.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from hemalum.errors import HemalumError
from hemalum.files import write_text

FORMAT = 2  # of every folder of results; raised when one written before can no longer be gone on with
LOCK = ".lock"

Content = Mapping[str, Any]


def check_manifest(
    folder: Path, kind: str, requested: Content, merge: Callable[[Content], Content] | None = None
) -> dict[str, Any]:
    """Start `folder` with the content requested, or join what it holds; gives what it holds from now on.

    `merge` gives the joined content from what the folder holds, or raises; without it the two must be equal.
    Raises HemalumError when the folder cannot be written, or holds something else.
    """
    check_free(folder, kind)
    with lock_folder(folder):
        if manifest_path(folder, kind).exists():
            held = read_manifest(folder, kind)
            if merge is None:
                require_equal(folder, kind, held, requested)
            else:
                requested = merge(held)
        write_manifest(folder, kind, requested)
    return dict(requested)


def manifest_path(folder: Path, kind: str) -> Path:
    """The manifest of a folder of that kind."""
    return folder / f"{kind}.yaml"


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """What the folder holds. Raises HemalumError when its manifest is damaged or of another format."""
    path = manifest_path(folder, kind)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HemalumError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise HemalumError(f"{path}: is not the manifest of a {kind}")
    if content.get("format") != FORMAT:
        raise HemalumError(
            f"{path}: is of format {content.get('format', 1)}, this version of hemalum reads format {FORMAT}; "
            "choose another folder"
        )
    return {key: value for key, value in content.items() if key != "format"}


def write_manifest(folder: Path, kind: str, content: Content) -> None:
    """Write what the folder holds. Raises HemalumError when it cannot be written."""
    text = yaml.safe_dump({"format": FORMAT, **content}, sort_keys=False, allow_unicode=True, width=110)
    write_text(manifest_path(folder, kind), text)


def require_equal(folder: Path, kind: str, held: Content, requested: Content) -> None:
    """Raise HemalumError for the first requested key that is another in what the folder holds."""
    for key, value in requested.items():
        if held.get(key) != value:
            raise holds_another(folder, kind, f"{key} is {held.get(key)} there, {value} here")


def holds_another(folder: Path, kind: str, reason: str) -> HemalumError:
    """The error for a folder whose content contradicts what is requested."""
    return HemalumError(f"{folder} holds another {kind}: {reason}")


def check_free(folder: Path, kind: str) -> None:
    """Raise HemalumError unless `folder` is new, empty, or one of that kind."""
    if not folder.exists() or manifest_path(folder, kind).is_file():
        return
    if not folder.is_dir():
        raise HemalumError(f"{folder}: is a file; name a folder")
    # another process may be writing the manifest just now, and then what comes after it
    others = any(path.name != LOCK and not path.name.startswith(f".{kind}.") for path in folder.iterdir())
    if others and not manifest_path(folder, kind).is_file():
        raise HemalumError(f"{folder}: is not empty and holds no {kind}; choose another folder")


@contextmanager
def lock_folder(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a folder, which is made where it is missing; gives whether it is held.

    It is not where another process holds it, on this machine or on one that shares the folder, and `wait` is False.
    Raises HemalumError when the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HemalumError(f"cannot create {folder}: {error.strerror}") from error
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
