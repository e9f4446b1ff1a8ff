"""The numbers of a comparison in long form, for other programs: CSV and Parquet."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemalum.files import atomic_path
from hemalum.report.comparison_metrics import AVERAGED
from hemalum.report.comparison_tests import PairedTest

if TYPE_CHECKING:
    from hemalum.studies.cells import Cell, Comparison

Line = dict[str, Any]


def write_tables(comparison: "Comparison", tests: Sequence[PairedTest], folder: Path) -> list[Path]:
    """Write scores, per_image, tests and costs to `folder`, each as .csv and .parquet; gives the paths.

    Undefined values are empty in CSV and null in Parquet. Raises HemalumError when a file cannot be written.
    """
    tables = {
        "scores": list(_scores(comparison)),
        "per_image": [
            _place(cell) | {key: value for key, value in row.items() if key not in ("dataset", "method")}
            for cell in comparison.cells
            for row in cell.per_image
        ],
        "tests": [_test(tested) for tested in tests],
        "costs": [_place(cell) | cell.cost for cell in comparison.cells],
    }
    written: list[Path] = []
    for name, lines in tables.items():
        if lines:
            written += [_write_csv(folder / f"{name}.csv", lines), _write_parquet(folder / f"{name}.parquet", lines)]
    return written


def _place(cell: "Cell") -> Line:
    return {"dataset": cell.dataset, "method": cell.method, "fold": cell.fold, "seed": cell.seed}


def _scores(comparison: "Comparison") -> Iterator[Line]:
    for cell in comparison.cells:
        for kind, averaging in AVERAGED:
            for metric, value in cell.summary.get(kind, {}).get(averaging, {}).items():
                yield _place(cell) | {"kind": kind, "metric": metric, "averaging": averaging, "value": value}
        classes = cell.summary.get("classes", {})
        for metric in ("mpq", "mpq_plus"):
            if metric in classes:
                averaging = "per_image" if metric == "mpq" else "pooled"
                yield _place(cell) | {
                    "kind": "classes",
                    "metric": metric,
                    "averaging": averaging,
                    "value": classes[metric],
                }
        for number, value in enumerate(classes.get("pq_pooled", []), start=1):
            yield _place(cell) | {
                "kind": "classes",
                "metric": f"pq_class_{number}",
                "averaging": "pooled",
                "value": value,
            }
        for name, own in cell.summary.get("semantic_by_class", {}).items():
            for averaging in ("pooled", "per_image"):
                for metric, value in own[averaging].items():
                    yield _place(cell) | {
                        "kind": "semantic",
                        "metric": f"{metric}, {name}",
                        "averaging": averaging,
                        "value": value,
                    }


def _test(tested: PairedTest) -> Line:
    place = {
        "dataset": tested.dataset,
        "family": tested.family,
        "method": tested.method,
        "against": tested.against,
        "metric": tested.column,
    }
    adjusted = {"p_holm": tested.adjusted, "p_groups_holm": tested.adjusted_groups}
    return place | asdict(tested.paired) | adjusted


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _columns(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in line))


def _write_csv(path: Path, lines: Sequence[Line]) -> Path:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _columns(lines), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _defined(value) for key, value in line.items()} for line in lines)
    with atomic_path(path) as temporary:
        temporary.write_text(stream.getvalue(), encoding="utf-8", newline="")
    return path


def _write_parquet(path: Path, lines: Sequence[Line]) -> Path:
    import pyarrow
    from pyarrow import parquet

    columns = {}
    for name in _columns(lines):
        values = [_defined(line.get(name)) for line in lines]
        kinds = {type(value) for value in values if value is not None}
        # whole numbers and fractions in one column are fractions; words and numbers are words
        if kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        elif str in kinds and len(kinds) > 1:
            values = [None if value is None else str(value) for value in values]
        columns[name] = pyarrow.array(values) if kinds else pyarrow.nulls(len(values), pyarrow.float64())
    with atomic_path(path) as temporary:
        parquet.write_table(pyarrow.table(columns), temporary)
    return path
