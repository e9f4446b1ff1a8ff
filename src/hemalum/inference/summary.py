"""The table of a folder of results, `summary.csv`, and the record that it is made of.

    OUT/summary.csv      a row for each image and slide
    OUT/summary.jsonl    a line for each one that was finished: what it was, by which settings, which files, its row

The record is only added to, a line at a time, so that a run that is killed loses no image that was done, several
processes may write to one folder, and a second run knows what is left.
"""

import csv
import io
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hemalum.errors import HemalumError, printable
from hemalum.files import csv_cell, write_text
from hemalum.inference.cells import TOO_LARGE
from hemalum.inference.inputs import RECORD
from hemalum.inference.plan import IN_ARTIFACTS, PALE
from hemalum.manifest import LOCK, lock_folder
from hemalum.nuclei.filters import FILTERED
from hemalum.nuclei.ihc_score import IhcScore
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.store import NucleiStore, StoreSummary
from hemalum.slides import Slide, describe_artifacts, field_tissue

log = logging.getLogger(__name__)

TABLE = "summary.csv"
BESIDE = "summary-new.csv"  # where the table goes while another program holds it
CLASS = "class_"  # before the name of a class: the column of how many nuclei it has
DOUBTS = ("scale_doubt", "stain_doubt", "class_doubt")  # notes of a result that its figures are marked for
Row = dict[str, Any]
# column of the nuclei → its median in the table
MEDIANS = ("area_um2", "area_px", "eccentricity", "circularity", "hematoxylin_mean", "dab_mean")
LEFT_OUT = {TOO_LARGE: "too_large", PALE: "pale", FILTERED: "by_filter", IN_ARTIFACTS: "in_artifacts"}


def image_row(image: str, results: str, nuclei: Nuclei, source: Slide, seconds: float) -> Row:
    """What the table says of an image; `image` is as in the tables of nuclei, `results` what its files are called.

    Densities are per mm² of what was looked at, and per mm² of the tissue in it, which is all but glass.
    """
    tissue = None
    if nuclei.area_mm2 is not None:
        seen = field_tissue(source, nuclei.mpp, stain=nuclei.notes.get("stain"))
        positions = [nuclei.table.column(name).to_numpy() for name in ("x", "y")]
        tissue = nuclei.area_mm2 * seen.share_of(nuclei.region, *positions)
    medians = {
        name: _median(nuclei.table.column(name).to_numpy()) for name in MEDIANS if name in nuclei.table.column_names
    }
    classes = {} if nuclei.classes is None else nuclei.classes.counts
    score = nuclei.ihc_score() if nuclei.thresholds else None
    counts = {"nuclei": nuclei.count, **{f"{CLASS}{name}": count for name, count in classes.items()}}
    areas = _areas(nuclei.count, nuclei.area_mm2, tissue)
    scale = {"mpp": nuclei.mpp, "mpp_source": nuclei.mpp_source}
    first = {"image": image, "results": results, "kind": "image"}
    height, width = nuclei.shape
    size = {"width_px": width, "height_px": height}
    return {
        **first, **counts, **areas, **scale, **_named_medians(medians), **_scores(score), **size,
        **_context(nuclei.notes, nuclei.model, nuclei.mpp_source, tissue), "seconds": round(seconds, 2),
    }  # fmt: skip


def slide_row(image: str, results: str, store: NucleiStore, summary: StoreSummary, seconds: float) -> Row:
    """The same of a slide. Its tissue is what was looked at where a mask was used, else it is not known."""
    run = store.run
    tissue = summary.area_mm2 if "tissue" in summary.area_of else None
    classes = {f"{CLASS}{name}": count for name, count in summary.classes.items()}
    medians = {name: summary.median(name) for name in summary.measures}
    height, width = run.shape
    return {
        "image": image, "results": results, "kind": "slide", "nuclei": summary.count, **classes,
        **_areas(summary.count, summary.area_mm2, tissue), "mpp": run.mpp, "mpp_source": run.mpp_source,
        **_named_medians(medians), **_scores(summary.ihc_score()), "width_px": width, "height_px": height,
        "_area_of": summary.area_of, **_context(run.settings | store.notes, run.model, run.mpp_source, tissue),
        "seconds": round(seconds, 2),
    }  # fmt: skip


def medians_of(columns: Sequence[str]) -> list[str]:
    """Those of `columns` of which the table has the median."""
    return [name for name in MEDIANS if name in columns]


def _areas(count: int, area: float | None, tissue: float | None) -> Row:
    return {
        "area_mm2": area,
        "tissue_mm2": tissue,
        "nuclei_per_mm2": count / area if area else None,
        "nuclei_per_mm2_tissue": count / tissue if tissue else None,
    }


def _named_medians(medians: Mapping[str, float | None]) -> Row:
    """A size is given once: in µm where it is known."""
    known = [name for name in medians if not (name == "area_px" and medians.get("area_um2") is not None)]
    return {f"median_{name}": medians[name] for name in known}


def _scores(score: IhcScore | None) -> Row:
    if score is None:
        return {}
    row: Row = {"positive_share": score.positive_share}
    if len(score.counts) > 2:
        row |= {"h_score": score.h_score, "allred": None if score.allred is None else str(score.allred)}
    return row


def _context(notes: dict[str, Any], model: str | None, mpp_source: str, tissue: float | None) -> Row:
    """Stain, model, what was left out, and what a reader has to know before using the numbers."""
    warnings = []
    if mpp_source == "estimate":
        warnings.append("the scale is an estimate, and with it every area, length and density")
    warnings += [str(notes[name]) for name in DOUBTS if notes.get(name)]
    if tissue == 0:
        warnings.append("there is no tissue, or glass alone was looked at")
    artifacts = describe_artifacts(notes)
    if artifacts:
        warnings.append(f"artifacts: {artifacts}")
    if notes.get("broken_tiles"):
        warnings.append(f"{notes['broken_tiles']} tiles could not be read and count as blank")
    left_out = {f"left_out_{short}": notes[name] for name, short in LEFT_OUT.items() if notes.get(name)}
    doubts = {f"_{name}": notes[name] for name in DOUBTS if notes.get(name)}
    return {
        "stain": notes.get("stain"), "stain_source": notes.get("stain_source"), "organ": notes.get("organ"),
        "model": model, **left_out, "warnings": "; ".join(warnings), **doubts, "_artifacts": artifacts,
    }  # fmt: skip


def _median(values: Any) -> float | None:
    known = values.astype(np.float64)
    known = known[np.isfinite(known)]
    return float(np.median(known)) if len(known) else None


@dataclass(frozen=True, slots=True)
class Finished:
    """A line of the record: an input that was finished, by which settings, with its `files` by format.

    `size` and `changed` (ns) are those of the input then. `described` is what else is kept of it, for a page.
    """

    results: str
    path: str
    size: int
    changed: int
    settings: dict[str, Any]
    files: dict[str, str]
    row: Row
    described: dict[str, Any] | None = field(default=None)

    @classmethod
    def now(cls, results: str, path: Path, **rest: Any) -> "Finished":
        """Of an input as it is now."""
        status = path.stat()
        return cls(results, str(path.resolve()), status.st_size, status.st_mtime_ns, **rest)

    def is_of(self, path: Path) -> bool:
        """Whether the input is what it was."""
        status = path.stat()
        return (self.path, self.size, self.changed) == (str(path.resolve()), status.st_size, status.st_mtime_ns)


class Summary:
    """The record of a folder and its table: what was `finished`, and what `failed` when it was last tried."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.finished: dict[str, Finished] = {}
        self.failed: dict[str, Finished] = {}
        self._failed_now: list[Finished] = []
        self._read()

    def _read(self) -> None:
        path = self.out / RECORD
        if not path.is_file():
            return
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise HemalumError(f"{path}: cannot be read ({error}); remove it to begin anew") from error
        self.finished, self.failed = {}, {}
        for number, line in enumerate(lines, start=1):
            try:
                self._take(Finished(**json.loads(line)))
            except (ValueError, TypeError, KeyError):
                # a run that was killed while it wrote: the image is done again
                log.warning("%s, line %d: is not whole; what it was of counts as not finished", path, number)

    def _take(self, one: Finished) -> None:
        """The last word on an input counts, and an input counts once, under its last name."""
        if "error" in one.row:
            self.failed[one.results] = one
            return
        for name in [name for name, other in self.finished.items() if other.path == one.path and name != one.results]:
            del self.finished[name]
        self.failed.pop(one.results, None)
        self.finished[one.results] = one

    def add(self, finished: Finished) -> None:
        """Add what is finished. Raises OSError when it cannot be written."""
        self._take(finished)
        self._append([finished])

    def _append(self, lines: Sequence[Finished]) -> None:
        with (self.out / RECORD).open("a+b") as stream:
            torn = b""
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                torn = b"" if stream.read(1) == b"\n" else b"\n"
            stream.write(torn + b"".join(json.dumps(asdict(one)).encode() + b"\n" for one in lines))
            stream.flush()
            os.fsync(stream.fileno())

    def fail(self, image: str, results: str, kind: str, error: str) -> None:
        """An input that could not be done gets a row all the same."""
        row = {"image": image, "results": results, "kind": kind, "error": error}
        one = Finished(results, "", 0, 0, {}, {}, row)
        self._failed_now.append(one)
        self._take(one)

    def write(self) -> Path | None:
        """Write the table of all that is in the folder; gives its path. Of one input that fails there is none.

        Where another program holds the table (Excel on Windows), it is written beside it, as the log says. Raises
        HemalumError when it cannot be written.
        """
        if not self.finished and len(self.failed) <= 1:
            return None
        with lock_folder(self.out):
            try:
                if self._failed_now:
                    self._append(self._failed_now)
                    self._failed_now = []
                self._read()  # others may have written meanwhile
                rows = [one.row for name, one in self.finished.items() if name not in self.failed]
                rows += [one.row for one in self.failed.values()]
                return self._write_table(table_text(sorted(rows, key=lambda row: row["results"])))
            except OSError as error:
                raise HemalumError(f"cannot write {self.out / RECORD}: {error.strerror or error}") from error
            finally:
                (self.out / LOCK).unlink(missing_ok=True)

    def _write_table(self, text: str) -> Path:
        path, other = self.out / TABLE, self.out / BESIDE
        try:
            write_text(path, text)
        except HemalumError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            write_text(other, text)
            log.warning("%s: is held by another program; the table is in %s", path, other)
            return other
        other.unlink(missing_ok=True)
        return path


def newest_table(out: Path) -> str:
    """The name of the table in a folder: of the one beside it, while another program holds it."""
    return BESIDE if (out / BESIDE).is_file() else TABLE


def table_text(rows: Sequence[Row]) -> str:
    """Rows as CSV, with the columns of all of them; what is not known is empty. Names with a _ before are ours."""
    names: list[str] = []
    for row in rows:
        at = 0
        for name in row:
            if name.startswith("_"):
                continue
            if name in names:
                at = names.index(name) + 1
            else:
                names.insert(at, name)
                at += 1
    if "error" in names:
        names.append(names.pop(names.index("error")))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[_cell(row.get(name)) for name in names] for row in rows])
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return csv_cell(printable(" ".join(value.split()))) if isinstance(value, str) else value
