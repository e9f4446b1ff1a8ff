"""What is kept of a batch while it runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hemalum.inference.batch import FileResult
from hemalum.inference.summary import image_row
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import measure
from hemalum.reports.segmentation.batch import collect
from hemalum.reports.segmentation.page import SummaryPage
from hemalum.slides import Slide


def of(name: str, nuclei: Nuclei, files: dict[str, Path]) -> FileResult:
    """A result as the batch gives it."""
    row = image_row(name, name, nuclei, Slide.of(np.full((*nuclei.shape, 3), 200, np.uint8)), 1.25)
    return FileResult(Path("in") / name, nuclei, None, files, 1.25, name, row)


def result(name: str, mpp: float | None, source: str) -> FileResult:
    labels = np.zeros((100, 200), np.int32)
    labels[10:20, 10:20] = 1
    labels[50:60, 80:95] = 2
    nuclei = Nuclei.from_labels(labels, mpp=mpp, mpp_source=source)
    return of(name, nuclei, {"csv": Path("out") / f"{name}.csv"})


def test_rows_files_and_failures(tmp_path: Path) -> None:
    results = [
        result("a.png", 0.5, "file"),
        FileResult(Path("in/b.png"), error="in/b.png: truncated"),
        result("c.png", 0.25, "estimate"),
        result("d.png", None, "none"),
    ]
    page = SummaryPage(tmp_path / "summary.html")
    seen: list[Path] = []
    batch = collect(iter(results), page, lambda done: seen.append(done.path))
    assert batch.rows == [
        ["a.png", "2", "400", "0.5", "from the file", "unknown", "1.2"],  # 2 over 0.005 mm²
        ["c.png", "2", "1,600 (estimated)", "0.25", "estimated from the nuclei", "unknown", "1.2"],
        ["d.png", "2", "unknown", "unknown", "unknown: nothing in µm can be said", "unknown", "1.2"],
    ]
    assert batch.failed == [(Path("in/b.png"), "in/b.png: truncated")]
    assert [path.name for path in batch.files] == ["a.png.csv", "c.png.csv", "d.png.csv", "summary.html"]
    assert seen == [one.path for one in results]
    written = (tmp_path / "summary.html").read_text()
    assert "failed: truncated" in written
    assert written.count('class="facts"') == 3


def test_counts_of_classes_are_columns() -> None:
    labels = np.zeros((100, 200), np.int32)
    labels[10:20, 10:20], labels[50:60, 80:95], labels[70:80, 20:40] = 1, 2, 3
    part = measure(labels, class_map=np.array([0, 2, 1, 2], np.float32)[labels])
    nuclei = Nuclei.from_parts([part], shape=labels.shape, mpp=0.5, mpp_source="user", class_names=("a", "b", "c"))
    batch = collect([of("a.png", nuclei, {}), FileResult(Path("b.png"), error="no")])
    headers, rows = batch.table
    assert headers == ["file", "nuclei", "a", "b", "c", "per mm²", "mpp", "scale", "stain", "seconds"]
    assert rows == [["a.png", "3", "1", "2", "0", "600", "0.5", "given by the user", "unknown", "1.2"]]


def test_scores_and_stain_are_columns() -> None:
    labels, image = np.zeros((100, 200), np.int32), np.full((100, 200, 3), 255, np.uint8)
    for number, color in enumerate(((200, 190, 220), (170, 125, 95), (75, 35, 20), (75, 35, 20)), start=1):
        labels[10:20, 30 * number : 30 * number + 10] = number
        image[labels == number] = color
    nuclei = Nuclei.from_labels(labels, image, mpp=0.5).with_dab(image)
    notes = {"stain": "hdab", "stain_source": "set", "stain_doubt": "it looks like H&E"}
    three = replace(nuclei.graded((0.1, 0.2, 0.6)), notes=notes)
    headers, rows = collect([of("a.png", three, {})]).table
    expected = ["file", "nuclei", "positive", "H-score", "Allred", "per mm²", "mpp", "scale", "stain", "seconds"]
    assert headers == expected
    assert rows[0][2:5] == ["75.0 %", "200", "8 (5 + 3)"]
    assert rows[0][8] == "H-DAB, set, but it looks like H&E"
    one = replace(nuclei.graded(0.2), notes={"stain": "hdab", "stain_source": "recognized"})
    headers, rows = collect([of("a.png", one, {})]).table
    assert headers[2:4] == ["positive", "per mm²"]
    assert (rows[0][2], rows[0][6]) == ("75.0 %", "H-DAB, recognized")


def test_a_defect_on_the_way_leaves_no_page(tmp_path: Path) -> None:
    def results() -> object:
        yield result("a.png", 0.5, "file")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        collect(results(), SummaryPage(tmp_path / "summary.html"))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
