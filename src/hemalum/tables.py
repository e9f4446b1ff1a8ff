"""Tables as spreadsheets and programs write them: the one reader of all that a user gives as a table.

The rules: Excel's `.xlsx` is told by its first bytes; text is UTF-8, UTF-16 or UTF-32 by its mark, UTF-16 without one
where every other byte is 0, UTF-8, or else Windows-1252, which the log says. Columns are separated by what the
header's own names show: a comma, a semicolon, a tab or a bar. Capitals, blanks, `-` and `_` in the names of columns
make no difference. Rows without a value are passed over, and so is what stands above the header.
"""

import codecs
import csv
import io
import logging
import math
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from hemalum.errors import HemalumError, near_misses, nearest, one_line
from hemalum.remarks import remark

log = logging.getLogger(__name__)

MAX_BYTES = 64 << 20
MAX_EXPANDED = 512 << 20  # bytes of what an .xlsx holds
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
ABOVE = 20  # rows that may stand above the header
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
UNKNOWN = ("", "na", "n/a", "#n/a", "nan", "null", "none", "-")  # numbers that nobody knows, as programs write them
QUOTES = ('""', "''", "“”", "„“", "«»")
NumberedCells = tuple[int, list[str]]


class TableRow(dict[str, str]):
    """The values of a row, without blanks around them, by column; `where` is "FILE, row 2", `number` the 2.

    A column is looked up by its name, whatever its capitals, blanks, `-` and `_`.
    """

    def __init__(self, names: Sequence[str], cells: Sequence[str], where: str, number: int, delimiter: str) -> None:
        super().__init__(zip(names, cells, strict=True))
        self.where, self.number, self._delimiter = where, number, delimiter

    def __getitem__(self, name: str) -> str:
        exact = self._exact(name)
        if exact is None:
            raise KeyError(name)
        return super().__getitem__(exact)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._exact(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a column; `default` where there is no such column."""
        exact = self._exact(name)
        return default if exact is None else super().__getitem__(exact)

    def value(self, name: str) -> float | None:
        """The number in a column; None where it has none, or there is no such column.

        Raises HemalumError for what is no finite number, or can be read as two.
        """
        text = self.get(name, "")
        try:
            return None if text.casefold() in UNKNOWN else parse_number(text, comma_is_decimal=self._delimiter == ";")
        except ValueError as error:
            raise HemalumError(f"{self.where}: {name} is {text!r}, {error}") from None

    def _exact(self, name: str) -> str | None:
        if super().__contains__(name):
            return name
        return next((one for one in self if plain_name(one) == plain_name(name)), None)


def read_table(
    path: Path, columns: Sequence[str] = (), wanted: str = "", *, known: Sequence[str] = ()
) -> Iterator[TableRow]:
    """The rows of a table (CSV, TSV or .xlsx) that hold a value.

    Raises HemalumError for a file that cannot be read, where one of `columns` is missing (`wanted` ends that line),
    for one of `columns` or `known` that is there twice, for others than `known` where some are, and for a row with
    more values than columns.
    """
    try:
        data = _read(path)
        if is_excel(data):
            rows, delimiter = _excel_rows(path, columns), "\t"
        else:
            rows, delimiter = _text_rows(path, decode(data, path), columns)
        above = [(number, cells) for number, cells in islice(rows, ABOVE) if any(cells)]
        at = next((index for index, (_, cells) in enumerate(above) if _count(cells, columns) == len(columns)), 0)
        if at:
            log.info("%s: row %d names the columns; what stands above is passed over", path, above[at][0])
        header = above[at][1] if above else []
        _check_header(path, header, columns, wanted, known)
        yield from _with_header(path, header, chain(above[at + 1 :], rows), delimiter)
    except csv.Error as error:
        raise HemalumError(f"{path}: cannot be read as CSV ({error})") from error


def is_excel(data: bytes) -> bool:
    """Whether a file begins as an .xlsx does."""
    return data[:4] == b"PK\x03\x04"


def decode(data: bytes, path: Path) -> str:
    """The text of a file that a user gives, by the rule above. Raises HemalumError where it is none."""
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    if encoding is None and data[:4] == b"\xd0\xcf\x11\xe0":
        raise HemalumError(f"{path}: a spreadsheet of Excel before 2007; save it as CSV or .xlsx")
    head = data[:4096]
    if encoding is None and head.count(0) * 8 > len(head):
        encoding = "utf-16-le" if head[1::2].count(0) > head[0::2].count(0) else "utf-16-be"
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise HemalumError(
                f"{path}: is not {encoding} throughout ({one_line(error)}); save it as UTF-8"
            ) from None
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        raise HemalumError(f"{path}: is neither UTF-8 nor Windows-1252; save it as UTF-8") from None
    remark(path, "is not UTF-8; read as Windows-1252: where letters come out wrong, save it as UTF-8")
    return text


def parse_number(text: str, *, comma_is_decimal: bool = False) -> float:
    """A number as people write it: `0.25`, `0,25`, `1.234,5`, `1 234,5`.

    `1,234` is 1.234 only where `comma_is_decimal`. Raises ValueError, whose text ends a line, for what is no finite
    number, or can be read as two.
    """
    plain = re.sub(r"\s", "", text)
    if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", plain) and not comma_is_decimal:
        raise ValueError(
            f"which can be read in two ways; write {plain.replace(',', '')} or {plain.replace(',', '.')}"
        )
    if "," in plain:
        last = max(plain.rfind(","), plain.rfind("."))
        left, decimal, rest = plain[:last], plain[last], plain[last + 1 :]
        others = left.replace(",", "") if decimal == "." else left.replace(".", "")
        if re.fullmatch(r"[+-]?\d{1,3}(?:[.,]\d{3})+", left) or others == left:
            plain = f"{others}.{rest}"
    try:
        number = float(plain) if "_" not in plain else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number


def plain_name(name: str) -> str:
    """A name by which those are alike that differ in capitals, blanks, `-`, `_` and how letters are put together."""
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFC", name).strip().casefold())


def listed_path(folder: Path, text: str) -> Path | None:
    r"""The file or folder that a table names from `folder`; None where there is none.

    Quotes around it are left out, a backslash separates folders, and where nothing has the very name, the one thing
    does whose name differs in capitals or in how its letters are put together (`ä` as one or as two).
    """
    try:
        return _listed_path(folder, text)
    except OSError:  # a name that no file can have, a folder that cannot be entered
        return None


def _listed_path(folder: Path, text: str) -> Path | None:
    if text and (folder / text).exists():
        return folder / text
    text = as_posix(text)
    if not text:
        return None
    path = Path(folder.anchor) if text.startswith("/") else folder
    for part in Path(text).parts:
        if part == "/":
            continue
        if not (path / part).exists():
            alike = _alike(path).get(_file_key(part), ())
            if len(alike) != 1:
                return None
            part = alike[0]
        path = path / part
    return path


def as_posix(text: str) -> str:
    """A path of a table without the quotes around it, its folders separated by `/`."""
    text = text.strip()
    if len(text) > 1 and text[0] + text[-1] in QUOTES:
        text = text[1:-1].strip()
    return text.replace("\\", "/")


def near_files(folders: Iterable[Path], text: str) -> str:
    """The end of a line on a file that a table names and that is in none of `folders`: what is there instead."""
    path, inside = Path(as_posix(text)), [folder for folder in folders if folder.is_dir()]
    for folder in inside:
        if len(path.parts) > 1 and (folder / path.name).is_file():
            return f"; {folder / path.name} is there: write paths from {inside[-1]}"
    return near_misses(path.name, {name for folder in inside for alike in _alike(folder).values() for name in alike})


def _alike(folder: Path) -> dict[str, tuple[str, ...]]:
    try:
        return _names_by_key(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=8)
def _names_by_key(folder: Path, _changed: int) -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {}
    for entry in folder.iterdir():
        names[_file_key(entry.name)] = (*names.get(_file_key(entry.name), ()), entry.name)
    return names


def _file_key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise HemalumError(f"{path}: a table has at most {MAX_BYTES:,} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        raise HemalumError(f"{path}: no such file") from None
    except OSError as error:
        raise HemalumError(f"{path}: cannot be read ({error.strerror or error})") from error


def _text_rows(path: Path, text: str, columns: Sequence[str]) -> tuple[Iterator[NumberedCells], str]:
    """The rows of a text, split as its header shows, and what separates them."""
    text = io.StringIO(text, newline=None).read()
    stated = re.match(r'"?sep=(.)"?[;,\t|]*(?=\n)', text)  # Excel's own line
    if stated:
        text = text[stated.end() :]
    ways = [(mark, quoted) for mark in ([stated[1]] if stated else DELIMITERS) for quoted in (False, True)]
    heads = {way: _head(text, *way) for way in ways}

    def fit(way: tuple[str, bool]) -> tuple[int, int]:
        rows = heads[way]
        return max((_count(cells, columns) for _, cells in rows), default=0), _first_width(rows)

    best = max(ways, key=fit)  # the first of those that fit alike
    return _split(text, *best), best[0]


def _split(text: str, delimiter: str, quoted: bool) -> Iterator[NumberedCells]:
    """Number and values of each row; where `quoted`, each row stands in quotes as one value, and is split again."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for cells in reader:
        if quoted and len(cells) == 1:
            cells = next(csv.reader(cells, delimiter=delimiter), [])
        yield reader.line_num, [cell.strip() for cell in cells]


def _head(text: str, delimiter: str, quoted: bool) -> list[NumberedCells]:
    rows = []
    with suppress(csv.Error):  # of what is no way to split it
        for row in islice(_split(text, delimiter, quoted), ABOVE):
            rows.append(row)
    return rows


def _first_width(rows: Sequence[NumberedCells]) -> int:
    return next((len(cells) for _, cells in rows if any(cells)), 0)


def _count(cells: Sequence[str], columns: Sequence[str]) -> int:
    names = {plain_name(cell) for cell in cells}
    return sum(plain_name(name) in names for name in columns)


def _with_header(
    path: Path, header: Sequence[str], rows: Iterable[NumberedCells], delimiter: str
) -> Iterator[TableRow]:
    # a column without a name holds nothing that is asked for
    named = {name: index for index, name in enumerate(header) if name}
    for number, cells in rows:
        if not any(cells):
            continue
        where = f"{path}, row {number}"
        if any(cells[len(header) :]):
            raise HemalumError(
                f"{where}: {len(cells)} values for {len(header)} columns; a value that holds a "
                f"{DELIMITERS.get(delimiter, 'separator')} stands in quotes"
            )
        cells = cells + [""] * (len(header) - len(cells))
        yield TableRow(list(named), [cells[index] for index in named.values()], where, number, delimiter)


def _check_header(
    path: Path, header: Sequence[str], columns: Sequence[str], wanted: str, known: Sequence[str]
) -> None:
    plain = [plain_name(cell) for cell in header]
    for name, cell in zip(plain, header, strict=True):
        if known and name and name not in map(plain_name, known):
            raise HemalumError(f"{path}: unknown column '{cell}'{nearest(name, known)}")
    for name in (*columns, *known):
        if plain.count(plain_name(name)) > 1 and header.count(name) != 1:
            raise HemalumError(f"{path}: the column {name} is there twice")
    for name in columns:
        if plain_name(name) not in plain:
            seen = f"its first row is {', '.join(header)}" if header else "it is empty"
            raise HemalumError(f"{path}: column {name!r} is missing{wanted}; {seen[:300]}")


def _excel_rows(path: Path, columns: Sequence[str]) -> Iterator[NumberedCells]:
    """The rows of the first sheet that has the columns, else of the first one."""
    try:
        import openpyxl
    except ImportError:
        raise HemalumError(
            f"{path}: an Excel file needs openpyxl: pip install 'hemalum[tables]', or save it as CSV"
        ) from None
    try:
        with zipfile.ZipFile(path) as archive:
            expanded = sum(entry.file_size for entry in archive.infolist())
        if expanded > MAX_EXPANDED:
            raise HemalumError(f"{path}: holds {expanded:,} bytes; an Excel file has at most {MAX_EXPANDED:,}")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheets = book.worksheets
        heads = [list(islice(_sheet_rows(sheet), ABOVE)) for sheet in sheets]
        fit = [max((_count(cells, columns) for _, cells in rows), default=0) for rows in heads]
        for index, sheet in enumerate(sheets):
            if fit[index] == max(fit) and any(any(cells) for _, cells in heads[index]):
                yield from _sheet_rows(sheet)
                return
    except HemalumError:
        raise
    except Exception as error:  # openpyxl raises many, some of them when it comes to a row
        raise HemalumError(f"{path}: is no Excel file that can be read ({one_line(error)})") from error


def _sheet_rows(sheet: Any) -> Iterator[NumberedCells]:
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        yield number, [_as_text(cell) for cell in cells]


def _as_text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
