"""What is kept of a batch of images: one line each for the table, and the page."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hemalum.inference.batch import FileResult
from hemalum.nuclei.nuclei import Nuclei
from hemalum.reports.numbers import number_text
from hemalum.reports.segmentation.page import SummaryPage, density_text, scale_text, score_texts, stain_text
from hemalum.slides import describe_artifacts


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
        if result.nuclei is None:
            batch.failed.append((result.path, result.error or "no result"))
        else:
            batch.rows.append(_row(result, result.nuclei))
            batch.artifacts.append(describe_artifacts(result.nuclei.notes))
            batch.classes = result.nuclei.class_names
            batch.scores = tuple(score_texts(result.nuclei))
            batch.files += result.files.values()
        if page is not None:
            page.add(result)
        if on_result is not None:
            on_result(result)
    if page is not None:
        page.write()
        batch.files.append(page.path)
    return batch


def _row(result: FileResult, nuclei: Nuclei) -> list[str]:
    estimated = nuclei.mpp_source == "estimate"
    return [
        result.path.name,
        f"{nuclei.count:,}",
        *(f"{count:,}" for count in (nuclei.classes.counts.values() if nuclei.classes is not None else ())),
        *score_texts(nuclei).values(),
        density_text(nuclei) + (" (estimated)" if estimated else ""),
        number_text(nuclei.mpp),
        scale_text(nuclei.mpp_source, nuclei.notes),
        stain_text(nuclei) or "unknown",
        f"{result.seconds:.1f}",
    ]
