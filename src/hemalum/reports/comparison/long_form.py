"""The numbers of a comparison in long form, for other programs: CSV and Parquet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hemalum.files import atomic_path
from hemalum.reports.comparison.metrics import AVERAGED
from hemalum.reports.comparison.paired_tests import PairedTest
from hemalum.reports.files import columns_of, defined, write_csv

if TYPE_CHECKING:
    from hemalum.experiments.records import Comparison, Run

Line = dict[str, Any]


def write_tables(comparison: "Comparison", tests: Sequence[PairedTest], folder: Path) -> list[Path]:
    """Write scores, per_image, tests and costs to `folder`, each as .csv and .parquet; gives the paths.

    Undefined values are empty in CSV and null in Parquet. Raises HemalumError when a file cannot be written.
    """
    tables = {
        "scores": [
            _key(run) | dict(zip(("kind", "metric", "averaging", "value"), score, strict=True))
            for run in comparison.runs
            for score in _scores(run.summary)
        ],
        "per_image": [
            _key(run) | {key: value for key, value in row.items() if key not in ("dataset", "method")}
            for run in comparison.runs
            for row in run.per_image
        ],
        "tests": [_test(tested) for tested in tests],
        "costs": [_key(run) | run.cost for run in comparison.runs],
    }
    written: list[Path] = []
    for name, lines in tables.items():
        if lines:
            written += [write_csv(folder / f"{name}.csv", lines), _write_parquet(folder / f"{name}.parquet", lines)]
    return written


def _key(run: "Run") -> Line:
    return {"dataset": run.dataset, "method": run.method, "fold": run.fold, "seed": run.seed}


def _scores(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    """Kind, metric, averaging and value of every score of a run."""
    for kind, averaging in AVERAGED:
        for metric, value in summary.get(kind, {}).get(averaging, {}).items():
            yield kind, metric, averaging, value
    classes = summary.get("classes", {})
    for metric, averaging in (("bpq_tissue", "per_tissue"), ("bpq_image", "per_image")):
        if metric in summary.get("binary", {}):
            yield "binary", metric, averaging, summary["binary"][metric]
    for metric, averaging in (("mpq_tissue", "per_tissue"), ("mpq_image", "per_image"), ("mpq_plus", "pooled")):
        if metric in classes:
            yield "classes", metric, averaging, classes[metric]
    for number, value in enumerate(classes.get("pq_pooled", []), start=1):
        yield "classes", f"pq_class_{number}", "pooled", value
    for name, scores in summary.get("semantic_by_class", {}).items():
        for averaging in ("pooled", "per_image"):
            for metric, value in scores[averaging].items():
                yield "semantic", f"{metric}, {name}", averaging, value


def _test(tested: PairedTest) -> Line:
    key = {
        "dataset": tested.dataset,
        "family": tested.family,
        "method": tested.method,
        "against": tested.against,
        "metric": tested.column,
    }
    adjusted = {"p_holm": tested.adjusted, "p_groups_holm": tested.adjusted_groups}
    return key | asdict(tested.paired) | adjusted | {"verdict": tested.verdict, "undecided": tested.undecided or None}


def _write_parquet(path: Path, lines: Sequence[Line]) -> Path:
    import pyarrow
    from pyarrow import parquet

    columns = {}
    for name in columns_of(lines):
        values = [defined(line.get(name)) for line in lines]
        types = {type(value) for value in values if value is not None}
        # whole numbers and fractions in one column are fractions; words and numbers are words
        if types == {int, float}:
            values = [None if value is None else float(value) for value in values]
        elif str in types and len(types) > 1:
            values = [None if value is None else str(value) for value in values]
        columns[name] = pyarrow.array(values) if types else pyarrow.nulls(len(values), pyarrow.float64())
    with atomic_path(path) as temporary:
        parquet.write_table(pyarrow.table(columns), temporary)
    return path
