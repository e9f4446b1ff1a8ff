"""What a refinement writes down: what was asked for, and every image's uncertainty with the subsets that it is in."""

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hemalum.data.dataset import Row
from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.review.selection import Ranked

RECORD = "refinement.yaml"
UNCERTAINTY = "uncertainty.csv"


def digest_rows(rows: Sequence[Row]) -> str:
    """sha256 over what decides what images are and how they are used."""
    lines = [f"{row.id}:{row.sha256}:{row.mpp}:{row.organ}:{row.split}" for row in rows]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def settle(out: Path, record: dict[str, Any], draws: int) -> int:
    """Write what is asked for, or compare it with what `out` says; gives how many random subsets there are.

    These may become more. Raises HemalumError when `out` holds something else.
    """
    path = out / RECORD
    if path.is_file():
        try:
            there = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise HemalumError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
        there = there if isinstance(there, dict) else {}
        for key, value in record.items():
            if there.get(key) != value:
                raise HemalumError(f"{out} holds another refinement: {key} is {there.get(key)} there, {value} here")
        known = there.get("draws")
        draws = max(draws, known if isinstance(known, int) else 0)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise HemalumError(f"{out}: is not empty and holds no refinement; choose another folder")
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(record | {"draws": draws}, sort_keys=False), encoding="utf-8")
    return draws


def write_uncertainty(path: Path, images: Sequence[Ranked], chosen: dict[str, list[Ranked]]) -> None:
    """Write every image with its entropy, and a column of 0 and 1 for each subset."""
    subsets = {name: {image.id for image in subset} for name, subset in chosen.items()}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["id", "organ", "entropy", *subsets])
    for image in images:
        marks = [int(image.id in ids) for ids in subsets.values()]
        writer.writerow([image.id, image.organ or "", repr(image.entropy), *marks])
    with atomic_path(path) as temporary:
        temporary.write_text(stream.getvalue(), encoding="utf-8", newline="")


def read_uncertainty(path: Path, rows: Sequence[Row]) -> list[Ranked]:
    """Read the entropies again. Raises HemalumError when the file does not list these images."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            images = [
                Ranked(row["id"], row["organ"] or None, float(row["entropy"])) for row in csv.DictReader(stream)
            ]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise HemalumError(f"{path}: cannot be read ({error}); remove it and run again") from error
    if [image.id for image in images] != [row.id for row in rows]:
        raise HemalumError(f"{path}: does not list the training images; remove it and run again")
    return images
