"""What the layouts have in common: images in a folder, files that belong to them, tables."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hemalum.data.image import IMAGE_SUFFIXES
from hemalum.data.sample import MPP_RANGE
from hemalum.errors import HemalumError
from hemalum.tables import TableRow, listed_path, near_files, read_table

INDEXES = ("index.csv", "index.tsv", "index.xlsx")


def list_images(folder: Path, *suffixes: str) -> list[Path]:
    """The images of a folder by name, without hidden files. Raises HemalumError when there are none."""
    files = sorted(
        file for file in folder.iterdir() if file.suffix.lower() in suffixes and not file.name.startswith(".")
    )
    if not files:
        raise HemalumError(f"{folder}: no images")
    return files


def first_file(*candidates: Path, role: str) -> Path:
    """The first of the candidates that exists. Raises HemalumError that names the first one and its `role`."""
    for file in candidates:
        if file.is_file():
            return file
    raise HemalumError(f"{candidates[0]}: missing; it {role}")


def images_by_stem(folder: Path) -> tuple[dict[str, Path], list[HemalumError]]:
    """The images of a folder by stem, and a fault for each stem that stands twice."""
    files: dict[str, Path] = {}
    faults = []
    for file in sorted(folder.iterdir()):
        if file.is_dir() or file.name.startswith(".") or file.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if file.stem in files:
            faults.append(HemalumError(f"{file}: {files[file.stem].name} has the same stem; keep one of them"))
        files[file.stem] = file
    return files, faults


def safe_name(name: str) -> str:
    """An id as it names files; empty where it has no letter or digit."""
    return re.sub(r"[^\w.-]+", "_", name).lstrip(".")


def find_index(path: Path, index: str | None) -> Path | None:
    """The index of a folder: the one that is asked for, or the first of `INDEXES` that is there.

    Raises HemalumError for a folder or an index that is missing.
    """
    if not path.is_dir():
        raise HemalumError(f"{path}: no such folder")
    if index is None:
        listed = [listed_path(path, name) for name in INDEXES]
        return next((file for file in listed if file is not None and file.is_file()), None)
    file = listed_path(path, index)
    if file is None or not file.is_file():
        raise HemalumError(f"{path / index}: no such index")
    return file


def find_listed(path: Path, folder: str, row: Mapping[str, str], column: str, where: str) -> Path:
    """The file that an index names, in `folder` of `path` or in `path`. Raises HemalumError where it is missing."""
    text = row[column]
    if not text:
        raise HemalumError(f"{where}: {column} is empty")
    entries = [entry for inside in (path / folder, path) if (entry := listed_path(inside, text)) is not None]
    for entry in entries:
        if entry.is_file():
            return entry
    if any(entry.is_dir() for entry in entries):
        raise HemalumError(f"{where}: {column} {text!r} is a folder; name a file in it")
    raise HemalumError(
        f"{where}: {column} {text!r} is neither in {path / folder} nor in {path}"
        f"{near_files((path / folder, path), text)}"
    )


def stated_mpp(row: TableRow, column: str = "mpp") -> float | None:
    """µm per px in a column of a row, None where it has none. Raises HemalumError for what can be no scale."""
    value = row.value(column)
    if value is not None and not MPP_RANGE[0] < value < MPP_RANGE[1]:
        raise HemalumError(f"{row.where}: {column} {value:g} µm/px is out of range")
    return value


def read_csv(path: Path, columns: tuple[str, ...] = (), wanted: str = "") -> Iterator[tuple[str, TableRow]]:
    """Where each row of a table stands ("FILE, row 2"), and its fields without blanks; as `read_table` reads it.

    Raises HemalumError for a file that cannot be read, and where one of `columns` is missing: `wanted` ends it.
    """
    return ((row.where, row) for row in read_table(path, columns, wanted))
