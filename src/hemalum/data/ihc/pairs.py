"""The files of a folder of pairs: by name, or by an index; and the landmarks that a person set.

    SRC/he/a.png   SRC/ihc/a.png   [SRC/index.csv]   [SRC/landmarks.csv]

The index has columns `he` and `ihc` (paths from SRC, or from SRC/he and SRC/ihc) and may have id, patient (or
group), organ, mpp and ihc_mpp. landmarks.csv has columns id, he_x, he_y, ihc_x, ihc_y in px of each image.
"""

import csv
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemalum.data.image import IMAGE_SUFFIXES
from hemalum.errors import HemalumError

MAX_RATIO = 8.0  # between the scales of two sections; more is a slip of the pen
Landmarks = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class IhcPair:
    """An H&E file, its IHC file, and what the index says of them."""

    he: Path
    ihc: Path
    id: str
    group: str
    organ: str | None = None
    mpp: float | None = None
    ihc_mpp: float | None = None


def find_pairs(path: Path, *, he: str = "he", ihc: str = "ihc", index: str | None = None) -> list[IhcPair]:
    """The pairs of a folder in the order of the index, or of their names; never empty.

    Raises HemalumError, naming file or row, for missing folders, partners or columns and numbers out of range.
    """
    if not path.is_dir():
        raise HemalumError(f"{path}: no such folder")
    listed = path / (index or "index.csv")
    if index is not None and not listed.is_file():
        raise HemalumError(f"{listed}: no such index")
    indexed = listed.is_file()
    pairs = list(_from_index(path, listed, he, ihc) if indexed else _by_stem(path, he, ihc))
    if not pairs:
        raise HemalumError(f"{listed if indexed else path / he}: no pairs")
    for name, count in Counter(pair.id for pair in pairs).items():
        if count > 1:
            raise HemalumError(f"{path}: the id {name!r} occurs {count} times; name the pairs apart")
    return pairs


def read_landmarks(path: Path, pairs: list[IhcPair]) -> dict[str, Landmarks]:
    """Points by pair id, each two (N, 2) float64 of x, y in px (H&E, IHC). Raises HemalumError naming the row."""
    known = {pair.id for pair in pairs}
    rows_by_id: dict[str, list[list[float]]] = defaultdict(list)
    for where, line in _rows(path, ("id", "he_x", "he_y", "ihc_x", "ihc_y")):
        name = _safe(line["id"])
        if name not in known:
            raise HemalumError(f"{where}: no pair has the id {line['id']!r}")
        rows_by_id[name].append([_number(where, line, axis) for axis in ("he_x", "he_y", "ihc_x", "ihc_y")])
    arrays = {name: np.array(points, np.float64) for name, points in rows_by_id.items()}
    return {name: (points[:, :2], points[:, 2:]) for name, points in arrays.items()}


def _by_stem(path: Path, he: str, ihc: str) -> Iterator[IhcPair]:
    sections: list[dict[str, Path]] = []
    for folder in (path / he, path / ihc):
        if not folder.is_dir():
            raise HemalumError(f"{folder}: no such folder; want {he}/ and {ihc}/, or an index.csv with he,ihc")
        files: dict[str, Path] = {}
        for file in sorted(folder.iterdir()):
            if file.is_dir() or file.name.startswith(".") or file.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if file.stem in files:
                raise HemalumError(f"{file}: {files[file.stem].name} has the same stem; keep one of them")
            files[file.stem] = file
        sections.append(files)
    for mine, other, folder in ((sections[0], sections[1], path / ihc), (sections[1], sections[0], path / he)):
        alone = sorted(set(mine) - set(other))
        if alone:
            raise HemalumError(f"{mine[alone[0]]}: its partner {alone[0]}.* is missing in {folder}")
    for stem, file in sections[0].items():
        yield IhcPair(file, sections[1][stem], _safe(stem), _safe(stem))


def _from_index(path: Path, listed: Path, he: str, ihc: str) -> Iterator[IhcPair]:
    for where, line in _rows(listed, ("he", "ihc")):
        files = []
        for name, folder in (("he", he), ("ihc", ihc)):
            if not line[name]:
                raise HemalumError(f"{where}: {name} is empty")
            candidates = [path / folder / line[name], path / line[name]]
            existing = [file for file in candidates if file.is_file()]
            if not existing:
                raise HemalumError(f"{where}: {name} {line[name]!r} is neither in {path / folder} nor in {path}")
            files.append(existing[0])
        name = _safe(line.get("id") or Path(line["he"]).stem)
        mpp = _scale(where, line, "mpp")
        ihc_mpp = _scale(where, line, "ihc_mpp")
        if ihc_mpp is not None and mpp is None:
            raise HemalumError(f"{where}: ihc_mpp is given without mpp; give both")
        if mpp is not None and ihc_mpp is not None and not 1 / MAX_RATIO <= ihc_mpp / mpp <= MAX_RATIO:
            raise HemalumError(f"{where}: mpp {mpp:g} and ihc_mpp {ihc_mpp:g} differ more than {MAX_RATIO:g} times")
        group = line.get("patient") or line.get("group") or name
        yield IhcPair(files[0], files[1], name, group, line.get("organ") or None, mpp, ihc_mpp)


def _safe(name: str) -> str:
    """The id as a file name, as the import makes it."""
    return re.sub(r"[^\w.-]+", "_", name).lstrip(".")


def _rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each line stands, and its fields without blanks."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in needed if name not in (reader.fieldnames or [])]
            if missing:
                raise HemalumError(f"{path}: column {missing[0]!r} is missing; want {','.join(needed)}")
            for number, line in enumerate(reader, start=2):
                fields = {name: (value or "").strip() for name, value in line.items() if name is not None}
                yield f"{path}, row {number}", fields
    except FileNotFoundError:
        raise HemalumError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HemalumError(f"{path}: cannot be read as CSV ({error})") from error


def _scale(where: str, line: dict[str, str], name: str) -> float | None:
    if not line.get(name):
        return None
    value = _number(where, line, name)
    if not 0.01 < value < 100:
        raise HemalumError(f"{where}: {name} {value:g} µm/px is out of range")
    return value


def _number(where: str, line: dict[str, str], name: str) -> float:
    try:
        value = float(line[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise HemalumError(f"{where}: {name} is {line[name]!r}, not a number")
    return value
