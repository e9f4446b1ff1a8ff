"""The table at the end of a run over slides, and their pages."""

from collections.abc import Callable, Iterable
from pathlib import Path

from hemalum.data.stain.recognition import STAIN_TITLES
from hemalum.errors import HemalumError
from hemalum.inference.slide_batch import SlideResult
from hemalum.nuclei.ihc_score import IhcScore
from hemalum.nuclei.store import NucleiStore, StoreSummary
from hemalum.reports.numbers import number_text
from hemalum.reports.segmentation.batch import Batch
from hemalum.reports.segmentation.page import scale_text
from hemalum.reports.slides.cohort import COHORT, write_cohort_page
from hemalum.reports.slides.facts import SlideRow
from hemalum.reports.slides.page import write_slide_page
from hemalum.slides import describe_artifacts


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
            batch.rows.append(_row(result, result.store, result.summary))
            batch.artifacts.append(describe_artifacts(result.store.notes))
            batch.classes = result.store.run.class_names
            batch.scores = tuple(_score_texts(result.summary.ihc_score()))
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


def _row(result: SlideResult, store: NucleiStore, summary: StoreSummary) -> list[str]:
    run, notes = store.run, store.notes
    stain = f"{STAIN_TITLES[notes['stain']]}, {notes['stain_source']}" if "stain" in notes else "unknown"
    if "stain_doubt" in notes:
        stain += f", but {notes['stain_doubt']}"
    median, score = summary.median("area_um2"), summary.ihc_score()
    where = {
        "tissue": "",
        "tissue in roi": " (in the roi)",
        "roi": " (all of the roi)",
        "roi without artifacts": " (all of the roi but artifacts)",
        "slide without artifacts": " (all of the slide but artifacts)",
        "slide": " (all of the slide)",
    }
    return [
        result.name,
        f"{summary.count:,}",
        *(f"{count:,}" for count in summary.classes.values()),
        *_score_texts(score).values(),
        ("unknown" if summary.area_mm2 is None else f"{summary.area_mm2:.4g}") + where[summary.area_of],
        "–" if summary.per_mm2 is None else f"{summary.per_mm2:,.0f}",
        "–" if median is None else f"{median:.1f}",
        number_text(run.mpp),
        scale_text(run.mpp_source, notes),
        stain,
        f"{result.seconds:.1f}",
    ]


def _score_texts(score: IhcScore | None) -> dict[str, str]:
    """Scores of graded nuclei by name, as text."""
    if score is None:
        return {}
    texts = {"positive": "–" if score.positive_share is None else f"{100 * score.positive_share:.1f} %"}
    if len(score.counts) == 4:
        texts["H-score"] = "–" if score.h_score is None else f"{score.h_score:.0f}"
        texts["Allred"] = "–" if score.allred is None else str(score.allred)
    return texts
