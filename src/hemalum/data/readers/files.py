"""What the layouts have in common: images in a folder, files that belong to them, tables in CSV."""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hemalum.data.image import IMAGE_SUFFIXES
from hemalum.errors import HemalumError


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
    """The index of a folder: the one that is asked for, or index.csv where it is there.

    Raises HemalumError for a folder or an index that is missing.
    """
    if not path.is_dir():
        raise HemalumError(f"{path}: no such folder")
    listed = path / (index or "index.csv")
    if index is not None and not listed.is_file():
        raise HemalumError(f"{listed}: no such index")
    return listed if listed.is_file() else None


def find_listed(path: Path, folder: str, row: Mapping[str, str], column: str, where: str) -> Path:
    """The file that an index names, in `folder` of `path` or in `path`. Raises HemalumError where it is missing."""
    if not row[column]:
        raise HemalumError(f"{where}: {column} is empty")
    for file in (path / folder / row[column], path / row[column]):
        if file.is_file():
            return file
    raise HemalumError(f"{where}: {column} {row[column]!r} is neither in {path / folder} nor in {path}")


def read_csv(path: Path, columns: tuple[str, ...] = (), wanted: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row of a CSV stands ("FILE, row 2"), and its fields without blanks.

    Raises HemalumError for a file that cannot be read, and where one of `columns` is missing: `wanted` ends it.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            for name in columns:
                if name not in (reader.fieldnames or []):
                    raise HemalumError(f"{path}: column {name!r} is missing{wanted}")
            for number, line in enumerate(reader, start=2):
                fields = {name: (value or "").strip() for name, value in line.items() if name is not None}
                yield f"{path}, row {number}", fields
    except FileNotFoundError:
        raise HemalumError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HemalumError(f"{path}: cannot be read as CSV ({error})") from error
