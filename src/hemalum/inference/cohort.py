"""A cohort: a table of slides, one a row, with what is known of each."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hemalum.errors import HemalumError, nearest
from hemalum.inference.scale import check_mpp
from hemalum.inference.slide import stem
from hemalum.inference.staining import STAINS
from hemalum.slides.roi import read_rectangle

COLUMNS = ("path", "mpp", "organ", "stain", "roi", "name")
MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class SlideInput:
    """One slide to segment; what is None is as for all the others. `name` is what its results are called."""

    path: Path
    name: str
    mpp: float | None = None
    organ: str | None = None
    stain: str | None = None
    roi: str | None = None

    @classmethod
    def of(cls, path: Path | str) -> "SlideInput":
        """A slide of which nothing else is known."""
        return cls(Path(path), stem(path))


def read_cohort(path: Path | str) -> list[SlideInput]:
    """Read a table of slides (CSV, UTF-8, commas): `path`, and where wanted mpp, organ, stain, roi, name.

    Paths of slides and of GeoJSON files with regions are relative to the table. A cell that is empty says nothing.

    Raises HemalumError, with the line, for a table that cannot be read, columns that are not known or missing, empty
    and missing paths, numbers that are none, and two slides whose results would have the same name.
    """
    path = Path(path)
    slides: list[SlideInput] = []
    lines: dict[str, int] = {}
    for line, row in _rows(path):
        where = f"{path}, line {line}"
        slide = _slide(row, path.parent, where)
        first = lines.setdefault(slide.name.casefold(), line)
        if first != line:
            raise HemalumError(
                f"{path}, lines {first} and {line}: both would write {slide.name}.*; give one another name in the "
                "column name"
            )
        slides.append(slide)
    if not slides:
        raise HemalumError(f"{path}: names no slides")
    return slides


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and cells of each row that is not empty, checked against the header."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise HemalumError(f"{path}: a table of slides has at most {MAX_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8-sig")  # with the mark that spreadsheets put before it
    except OSError as error:
        raise HemalumError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError:
        raise HemalumError(f"{path}: is not a table in UTF-8; save it as CSV UTF-8") from None
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, path)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                if len(cells) > 1:
                    raise HemalumError(f"{path}, line {reader.line_num}: path is empty")
                continue
            if len(cells) > len(header):
                raise HemalumError(
                    f"{path}, line {reader.line_num}: {len(cells)} values for {len(header)} columns; a value that "
                    'holds a comma, as a roi does, stands in quotes: "0,0,4096,4096"'
                )
            yield reader.line_num, {n: cell.strip() for n, cell in zip(header, cells, strict=False)}
    except csv.Error as error:
        raise HemalumError(f"{path}, line {reader.line_num}: is not CSV ({error})") from error


def _check_header(header: list[str], path: Path) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise HemalumError(f"{path}: columns are separated by commas, not by semicolons or tabs")
    for name in header:
        if name not in COLUMNS:
            raise HemalumError(f"{path}: unknown column '{name}'{nearest(name, COLUMNS)}")
        if header.count(name) > 1:
            raise HemalumError(f"{path}: the column {name} is there twice")
    if "path" not in header:
        raise HemalumError(f"{path}: has no column path; the first line names the columns: {', '.join(COLUMNS)}")


def _slide(row: dict[str, str], folder: Path, where: str) -> SlideInput:
    cells = {name: value for name, value in row.items() if value}
    if "path" not in cells:
        raise HemalumError(f"{where}: path is empty")
    path = folder / cells["path"]
    if not path.exists():
        raise HemalumError(f"{where}: {path}: no such file or folder")
    name = cells.get("name") or stem(path)
    if Path(name).name != name or name.startswith("."):
        raise HemalumError(f"{where}: name '{name}': want a name for files, without a folder or a leading dot")
    stain = cells.get("stain")
    if stain is not None and stain not in STAINS:
        raise HemalumError(f"{where}: unknown stain '{stain}'{nearest(stain, STAINS)}")
    roi = cells.get("roi")
    if roi is not None and "," in roi:
        try:
            read_rectangle(roi)
        except HemalumError as error:
            raise HemalumError(f"{where}: {error}") from None
    elif roi is not None:
        roi = str(folder / roi)
        if not Path(roi).is_file():
            raise HemalumError(f"{where}: roi '{roi}': no such file")
    return SlideInput(path, name, _mpp(cells.get("mpp"), where), cells.get("organ"), stain, roi)


def _mpp(text: str | None, where: str) -> float | None:
    if text is None:
        return None
    try:
        mpp = float(text)
    except ValueError:
        raise HemalumError(f"{where}: mpp '{text}': want a number, µm per pixel") from None
    try:
        check_mpp(mpp)
    except HemalumError as error:
        raise HemalumError(f"{where}: {error}") from None
    return mpp
