"""The page of a cohort: a line for each slide, those that failed with the reason."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from hemalum import __version__
from hemalum.files import write_text
from hemalum.reports.files import render
from hemalum.reports.slides.facts import SlideRow

COHORT = "cohort.html"


def write_cohort_page(
    rows: Sequence[SlideRow], path: Path | str, *, failed: Sequence[tuple[str, str]] = (), title: str = "Cohort"
) -> Path:
    """Write the page of several slides, in the order of `rows`; gives its path.

    Rows are what `write_slide_page` and `slide_row` give. `failed` are the names of slides without results, with the
    reason. Raises HemalumError when it cannot be written.
    """
    path = Path(path)
    scores = list(dict.fromkeys(name for row in rows for name in row.scores))
    page = render(
        "slides/cohort.html.j2",
        title=title,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        rows=[(row, _link(row.page, path.parent)) for row in rows],
        classes=any(row.classes for row in rows),
        scores=scores,
        failed=failed,
    )
    return write_text(path, page)


def _link(page: str, folder: Path) -> str:
    """Link relative to the folder, so that it can be moved; empty without a page, and on another drive."""
    if not page:
        return ""
    try:
        return quote(Path(os.path.relpath(page, folder)).as_posix())
    except ValueError:
        return ""
