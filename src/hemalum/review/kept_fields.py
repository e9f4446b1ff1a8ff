"""What is known of a field that was looked at, kept in PROJECT/fields, so that it is not looked at again."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError, one_line
from hemalum.files import write_text
from hemalum.review.uncertainty import Field

FOLDER = "fields"  # of a project
FORMAT = 1
MAX_BYTES = 64 * 2**20  # of a file
FIGURES = ("entropy", "distance", "disagreement", "probability")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class NucleusFigures:
    """What the model is unsure of in the N nuclei that an item starts with, (N,) float64 each; that of id 1 is first.

    `entropy` in nats, `distance` of the mean probability to the threshold and `disagreement` (1 − IoU) are as in
    `NucleusUncertainty`; `probability` is the mean. nan where it is not known.
    """

    entropy: Floats
    distance: Floats
    disagreement: Floats
    probability: Floats

    @classmethod
    def unknown(cls, count: int) -> "NucleusFigures":
        """Of nuclei of which nothing is known."""
        return cls(*(np.full(count, math.nan) for _ in FIGURES))

    def __len__(self) -> int:
        return len(self.entropy)

    def take(self, rows: NDArray[np.integer[Any]]) -> "NucleusFigures":
        """Those of some nuclei, by place from 0."""
        return NucleusFigures(*(getattr(self, name)[rows] for name in FIGURES))


@dataclass(frozen=True, slots=True, eq=False)
class KeptField:
    """A field with the figures of its nuclei, and the hash of its pixels."""

    field: Field
    figures: NucleusFigures
    sha256: str


def kept_path(project: Path, id: str) -> Path:
    """The file of an item."""
    return project / FOLDER / f"{id}.json"


def write_kept(path: Path, kept: KeptField) -> None:
    """Write it, whole or not at all; what is not known is null."""
    field = kept.field
    content = {
        "format": FORMAT,
        "name": field.name,
        "sha256": kept.sha256,
        "stratum": field.stratum,
        "window": None if field.window is None else list(field.window),
        "of_nuclei": field.of_nuclei,
        "entropy": _plain(field.entropy),
        "disagreement": _plain(field.disagreement),
        "area": _listed(field.area),
        "solidity": _listed(field.solidity),
        "figures": {name: _listed(getattr(kept.figures, name)) for name in FIGURES},
    }
    write_text(path, json.dumps(content, ensure_ascii=True, separators=(",", ":")))


def read_kept(path: Path) -> KeptField | None:
    """What `write_kept` wrote; None where there is none. Raises HemalumError for whatever else is there."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"of format {content['format']}")
        figures = NucleusFigures(*(_floats(content["figures"][name]) for name in FIGURES))
        if len({len(getattr(figures, name)) for name in FIGURES}) > 1:
            raise ValueError("numbers of nuclei that differ")
        window = content["window"]
        field = Field(
            name=str(content["name"]),
            stratum=str(content["stratum"]),
            entropy=_number(content["entropy"]),
            disagreement=_number(content["disagreement"]),
            area=_floats(content["area"]),
            solidity=_floats(content["solidity"]),
            window=None if window is None else (int(window[0]), int(window[1]), int(window[2]), int(window[3])),
            of_nuclei=bool(content["of_nuclei"]),
        )
        return KeptField(field, figures, str(content["sha256"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise HemalumError(
            f"{path}: cannot be read ({one_line(error)}); remove it, and the field is looked at again"
        ) from error


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _listed(values: NDArray[Any]) -> list[float | None]:
    return [_plain(value) for value in np.asarray(values, np.float64).tolist()]


def _floats(values: Any) -> Floats:
    return np.array([_number(value) for value in values], np.float64)
