"""What is kept of a batch of images: one line each for the table, and the page."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hemalum.data.stain.recognition import STAIN_TITLES
from hemalum.inference.batch import FileResult
from hemalum.inference.summary import CLASS, Row
from hemalum.reports.numbers import number_text
from hemalum.reports.segmentation.page import SummaryPage, scale_text


@dataclass(slots=True)
class Batch:
    """Rows for the table of what was done, and the images that failed with the reason."""

    rows: list[list[str]] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    failed: list[tuple[Path, str]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headers and rows: file, nuclei, of each class, scores, density (marked on an estimate), mpp, its source,
        stain (with what speaks against it), time."""
        headers = ["file", "nuclei", *self.classes, *self.scores, "per mm²", "mpp", "scale", "stain", "seconds"]
        return self.with_artifacts(headers)

    def with_artifacts(self, headers: list[str]) -> tuple[list[str], list[list[str]]]:
        """Headers and rows with a column of artifacts where an image has some."""
        if not any(self.artifacts):
            return headers, self.rows
        rows = [[*row[:-1], one, row[-1]] for row, one in zip(self.rows, self.artifacts, strict=True)]
        return [*headers[:-1], "artifacts", headers[-1]], rows


def collect(
    results: Iterable[FileResult],
    page: SummaryPage | None = None,
    on_result: Callable[[FileResult], None] | None = None,
) -> Batch:
    """Take results as they come, keep one line of each, add them to `page`, and write the page at the end.

    Raises HemalumError when the page cannot be written.
    """
    batch = Batch()
    for result in results:
        if not result.row:
            batch.failed.append((result.path, result.error or "no result"))
        else:
            batch.rows.append(_row(result))
            batch.artifacts.append(result.row["_artifacts"])
            batch.classes = class_names(result.row)
            batch.scores = tuple(row_scores(result.row))
            batch.files += result.files.values()
        if page is not None:
            page.add(result)
        if on_result is not None:
            on_result(result)
    if page is not None:
        page.write()
        batch.files.append(page.path)
    return batch


def _row(result: FileResult) -> list[str]:
    row = result.row
    return [
        row["image"],
        *count_texts(row),
        density_text(row),
        number_text(row["mpp"]),
        scale_text(row["mpp_source"], row.get("_scale_doubt")),
        stain_text(row),
        "kept" if result.kept else f"{result.seconds:.1f}",
    ]


def count_texts(row: Row) -> list[str]:
    """Nuclei of a row of the summary, those of each class, and scores."""
    counts = [value for name, value in row.items() if name == "nuclei" or name.startswith(CLASS)]
    return [*(f"{count:,}" for count in counts), *row_scores(row).values()]


def class_names(row: Row) -> tuple[str, ...]:
    """The classes that a row counts."""
    return tuple(name.removeprefix(CLASS) for name in row if name.startswith(CLASS))


def row_scores(row: Row) -> dict[str, str]:
    """Scores of graded nuclei by name, as text: positive share, with three thresholds H-score and Allred."""
    if "positive_share" not in row:
        return {}
    share = row["positive_share"]
    texts = {"positive": "–" if share is None else f"{100 * share:.1f} %"}
    if "h_score" in row:
        texts["H-score"] = "–" if row["h_score"] is None else f"{row['h_score']:.0f}"
        texts["Allred"] = "–" if row["allred"] is None else row["allred"]
    return texts


def density_text(row: Row) -> str:
    """Nuclei per mm² of what was looked at, marked where the scale is an estimate."""
    if row["nuclei_per_mm2"] is None:
        return "unknown"
    return f"{row['nuclei_per_mm2']:,.0f}" + (" (estimated)" if row["mpp_source"] == "estimate" else "")


def stain_text(row: Row) -> str:
    """The stain, where that is from and what speaks against it."""
    if row["stain"] is None:
        return "unknown"
    doubt = f", but {row['_stain_doubt']}" if row.get("_stain_doubt") else ""
    return f"{STAIN_TITLES[row['stain']]}, {row['stain_source']}{doubt}"
