"""The table at the end of a run over slides, and their pages."""

from collections.abc import Callable, Iterable
from pathlib import Path

from hemalum.errors import HemalumError
from hemalum.inference.slide_batch import SlideResult
from hemalum.reports.numbers import number_text
from hemalum.reports.segmentation.batch import Batch, class_names, count_texts, row_scores, stain_text
from hemalum.reports.segmentation.page import scale_text
from hemalum.reports.slides.cohort import COHORT, write_cohort_page
from hemalum.reports.slides.facts import SlideRow
from hemalum.reports.slides.page import write_slide_page


class SlideBatch(Batch):
    """The same of slides."""

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headers and rows: slide, nuclei, of each class, scores, tissue, density, size, scale, stain, time."""
        headers = ["slide", "nuclei", *self.classes, *self.scores]
        headers += ["tissue mm²", "per mm²", "median µm²", "mpp", "scale", "stain", "seconds"]
        return self.with_artifacts(headers)


def collect_slides(
    results: Iterable[SlideResult],
    on_result: Callable[[SlideResult], None] | None = None,
    *,
    pages: Path | None = None,
) -> SlideBatch:
    """Take results as they come and keep one line of each.

    With a folder for `pages`, each slide gets its page there, NAME.html, and several get one together, cohort.html,
    in which those that failed are named. A page that cannot be made fails its slide. Raises HemalumError when that of
    the cohort cannot be written.
    """
    batch = SlideBatch()
    rows: list[SlideRow] = []
    for result in results:
        if result.store is None or result.summary is None:
            batch.failed.append((result.path, result.error or "no result"))
        else:
            batch.rows.append(_row(result))
            batch.artifacts.append(result.row["_artifacts"])
            batch.classes = class_names(result.row)
            batch.scores = tuple(row_scores(result.row))
            batch.files += [result.store.path, *result.files.values()]
            if pages is not None:
                try:
                    rows.append(write_slide_page(result.store, result.path, pages / f"{result.name}.html"))
                    batch.files.append(pages / f"{result.name}.html")
                except HemalumError as error:
                    batch.failed.append((result.path, str(error)))
        if on_result is not None:
            on_result(result)
    if pages is not None and len(rows) + len(batch.failed) > 1:
        failed = [(path.name, reason) for path, reason in batch.failed]
        batch.files.append(write_cohort_page(rows, pages / COHORT, failed=failed))
    return batch


def _row(result: SlideResult) -> list[str]:
    row = result.row
    where = {
        "tissue": "",
        "tissue in roi": " (in the roi)",
        "roi": " (all of the roi)",
        "roi without artifacts": " (all of the roi but artifacts)",
        "slide without artifacts": " (all of the slide but artifacts)",
        "slide": " (all of the slide)",
    }
    area, median = row["area_mm2"], row["median_area_um2"]
    return [
        result.name,
        *count_texts(row),
        ("unknown" if area is None else f"{area:.4g}") + where[row["_area_of"]],
        "–" if row["nuclei_per_mm2"] is None else f"{row['nuclei_per_mm2']:,.0f}",
        "–" if median is None else f"{median:.1f}",
        number_text(row["mpp"]),
        scale_text(row["mpp_source"], row.get("_scale_doubt")),
        stain_text(row),
        f"{result.seconds:.1f}",
    ]
