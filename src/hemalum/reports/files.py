"""Tables of a report as CSV, for other programs."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hemalum.files import write_text


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every column that some row has, in the order in which they come."""
    return list(dict.fromkeys(name for row in rows for name in row))


def defined(value: Any) -> Any:
    """The value, None for nan and infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], empty: Sequence[str] = ()) -> Path:
    """Write rows, empty where a value is undefined or missing; without rows the columns `empty`. Gives the path.

    Raises HemalumError when the file cannot be written.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns_of(rows) or list(empty), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: defined(value) for key, value in row.items()} for row in rows)
    return write_text(path, stream.getvalue())
