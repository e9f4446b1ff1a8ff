"""Tables as spreadsheets, scripts and countries write them: separators, encodings, columns, numbers, paths."""

import builtins
import csv
import io
import logging
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.data.readers.folder import find_pairs
from hemalum.data.readers.ihc_pairs import find_pairs as find_ihc_pairs
from hemalum.data.readers.ihc_pairs import read_landmarks
from hemalum.errors import HemalumError
from hemalum.inference.cohort import read_cohort
from hemalum.tables import MAX_BYTES, listed_path, parse_number, read_table

pytestmark = pytest.mark.fault

ROWS: list[dict[str, Any]] = [
    {"image": "images/f0.png", "label": "labels/f0.png", "patient": "Müller", "mpp": 0.25},
    {"image": "images/f1.png", "label": "labels/f1.png", "patient": "Ö; 2, b", "mpp": 1.5},
]


def written(
    delimiter: str = ",", encoding: str = "utf-8", newline: str = "\n", *, decimal: str = ".", folders: str = "/",
    header: str = "{}", quoting: int = csv.QUOTE_MINIMAL, above: str = "", blank: str = "", tail: str = "",
    quoted: bool = False,
) -> bytes:  # fmt: skip
    """The table `ROWS` as a program would write it."""
    lines = []
    for values in [[header.format(name) for name in ROWS[0]], *(row.values() for row in ROWS)]:
        stream = io.StringIO()
        cells = [str(v).replace(".", decimal) if isinstance(v, float) else v.replace("/", folders) for v in values]
        csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator="").writerow(cells)
        line = stream.getvalue() + tail
        lines.append('"' + line.replace('"', '""') + '"' if quoted else line)
    text = above + newline.join([lines[0], blank, *lines[1:], blank, ""] if blank else [*lines, ""])
    return text.replace("\n", newline).encode(encoding) if newline != "\n" else text.encode(encoding)


def check(path: Path, folders: str = "/") -> None:
    rows = list(read_table(path, ("image", "label", "mpp")))
    assert [row["image"].replace(folders, "/") for row in rows] == [row["image"] for row in ROWS]
    assert [row["patient"] for row in rows] == [row["patient"] for row in ROWS]
    assert [row.value("mpp") for row in rows] == [row["mpp"] for row in ROWS]


@given(
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    decimal=st.sampled_from([".", ","]),
    folders=st.sampled_from(["/", "\\"]),
    header=st.sampled_from(["{}", " {} ", "{}\u00a0"]),
    upper=st.sampled_from([str, str.upper, str.capitalize]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    above=st.sampled_from(["", "\n\n", "Export of 2026-11-28\n\n", "# made by a script\n", "sep={}\n"]),
    blank=st.booleans(),
    tail=st.sampled_from(["", "{0}", "{0}{0}"]),
    quoted=st.booleans(),
)
@hypothesis_settings(max_examples=60)
def test_a_table_is_read_however_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, delimiter: str, encoding: str, newline: str, decimal: str, folders: str,
    header: str, upper: Any, quoting: int, above: str, blank: bool, tail: str, quoted: bool,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("table") / "index.csv"
    content = written(
        delimiter, encoding, newline, decimal=decimal, folders=folders, header=header, quoting=quoting,
        above=above.format(delimiter), blank=delimiter * 3 if blank else "", tail=tail.format(delimiter),
        quoted=quoted,
    )  # fmt: skip
    text = content.decode(encoding)
    for name in ("image", "patient"):
        text = text.replace(header.format(name), header.format(upper(name)), 1)
    path.write_bytes(text.encode(encoding))
    check(path, folders)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "CSV"])
def test_an_index_is_looked_for_by_the_names_that_programs_give(tmp_path: Path, suffix: str) -> None:
    write_pairs(tmp_path)
    (tmp_path / f"Index.{suffix}").write_bytes(written("\t", "utf-16", "\r\n", folders="\\", header="{} "))
    pairs = find_pairs(tmp_path)
    assert [(pair.id, pair.columns["patient"]) for pair in pairs] == [("f0", "Müller"), ("f1", "Ö; 2, b")]


def write_pairs(folder: Path, *names: str) -> None:
    for inside in ("images", "labels"):
        (folder / inside).mkdir()
        for name in names or ("f0.png", "f1.png"):
            pixels = np.zeros((32, 32), np.uint8)
            pixels[4:9, 4:9], pixels[20:25, 20:25] = 1, 2
            Image.fromarray(pixels * (1 if inside == "labels" else 100)).save(folder / inside / name)


@pytest.mark.parametrize(
    "content",
    [
        "Image;Label;Patient;MPP\nimages\\f0.png;labels\\f0.png;A;0,25\nimages\\f1.png;labels\\f1.png;B;0,25\n",
        "sep=;\r\nimage;label;patient;mpp;;\r\nf0.png;f0.png;A;0,25;;\r\nf1.png;f1.png;B;0,25;;\r\n;;;;;\r\n",
        '"","image","label","patient","mpp"\n"1","f0.png","f0.png","A",0.25\n"2","f1.png","f1.png","B",0.25\n',
        '"image,label,patient,mpp"\n"f0.png,f0.png,A,0.25"\n"f1.png,f1.png,B,0.25"\n',
        'image\tlabel\tpatient\tmpp\n\'f0.png\'\t"""f0.png"""\tA\t0,25\nF1.PNG\tf1.png\tB\t0,25\n',
        "patient,mpp,label,image\nA,0.25,./labels/f0.png,images//f0.png\nB,.25,labels/f1.png,.\\images\\f1.png\n",
    ],
    ids=["windows", "excel", "r", "rows-in-quotes", "quoted-paths", "order"],
)
def test_import_takes_an_index_as_it_is(tmp_path: Path, content: str) -> None:
    write_pairs(tmp_path)
    (tmp_path / "index.csv").write_bytes(content.encode())
    rows = import_dataset("folder", tmp_path, tmp_path / "out", group="patient").rows
    assert [(row.id.lower(), row.group, row.mpp) for row in rows] == [("f0", "A", 0.25), ("f1", "B", 0.25)]


def test_a_column_to_group_by_may_be_named_in_other_capitals(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "index.csv").write_text("image,label,Patient ID\nf0.png,f0.png,A\nf1.png,f1.png,A\n")
    rows = import_dataset("folder", tmp_path, tmp_path / "out", group="patient_id").rows
    assert [row.group for row in rows] == ["A", "A"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_letters_may_be_put_together_in_either_way(tmp_path: Path, form: str, listed: str) -> None:
    """macOS takes names apart, Windows and Linux do not."""
    name = "Präparat ä.png"
    (tmp_path / unicodedata.normalize(form, name)).touch()
    file = listed_path(tmp_path, unicodedata.normalize(listed, name))
    assert file is not None
    assert file.exists()


def test_of_two_names_that_differ_in_capitals_none_is_guessed(tmp_path: Path) -> None:
    for name in ("a.png", "A.png"):
        (tmp_path / name).touch()
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system does not tell a from A")
    assert listed_path(tmp_path, "A.png") == tmp_path / "A.png"
    assert listed_path(tmp_path, "A.PNG") is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.25", 0.25), ("0,25", 0.25), (".5", 0.5), (",5", 0.5), ("1e-1", 0.1), ("0,250", 0.25), ("1.234,5", 1234.5),
        ("1,234.5", 1234.5), ("1 234,5", 1234.5), ("1\u00a0234", 1234.0), ("-2,5", -2.5), ("12,3456", 12.3456),
        ("1,234,567.5", 1234567.5), ("1.250", 1.25),
    ],
)  # fmt: skip
def test_numbers_of_several_countries(text: str, number: float) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["abc", "0.25 µm", "1,2,3", "1_000", "inf", "nan", "1.2.3", "--1", "0,2,5", ","])
def test_what_is_no_number_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="not a number"):
        parse_number(text)


def test_a_number_that_can_be_read_in_two_ways_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('x,y\n"1,234",5\n')
    (row,) = read_table(tmp_path / "a.csv", ("x", "y"))
    with pytest.raises(HemalumError) as raised:
        row.value("x")
    assert str(raised.value) == (
        f"{tmp_path / 'a.csv'}, row 2: x is '1,234', which can be read in two ways; write 1234 or 1.234"
    )
    (tmp_path / "b.csv").write_text("x;y\n1,234;5\n")
    (row,) = read_table(tmp_path / "b.csv", ("x", "y"))
    assert row.value("x") == 1.234


@pytest.mark.parametrize("text", ["", "NA", "nan", "N/A", "#N/A", "NULL", "None", "-"])
def test_a_number_that_nobody_knows_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(f"image,mpp\na.png,{text}\n")
    (row,) = read_table(tmp_path / "a.csv", ("image",))
    assert row.value("mpp") is None


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"file;mask\na;b\n", "column 'image' is missing; want at least image,label; its first row is file, mask"),
        (b"a.png,a.png\n", "column 'image' is missing; want at least image,label; its first row is a.png, a.png"),
        (b"", "column 'image' is missing; want at least image,label; it is empty"),
        (b"image,label,Image\na,b,c\n", None),
        (b"Image,label,IMAGE\na,b,c\n", "the column image is there twice"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a spreadsheet of Excel before 2007; save it as CSV or .xlsx"),
        (b"image,label\n\x81\x8d,b\n", "is neither UTF-8 nor Windows-1252; save it as UTF-8"),
        (b'image,label\n"a,b\n', "cannot be read as CSV (unexpected end of data)"),
        (b"PK\x03\x04damaged", "is no Excel file that can be read (File is not a zip file)"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes, line: str | None) -> None:
    if content.startswith(b"PK"):
        pytest.importorskip("openpyxl")
    path = tmp_path / "index.csv"
    path.write_bytes(content)
    if line is None:
        assert [row["image"] for row in read_table(path, ("image", "label"))] == ["a"]
        return
    with pytest.raises(HemalumError) as raised:
        list(read_table(path, ("image", "label"), "; want at least image,label"))
    assert str(raised.value) == f"{path}: {line}"


def test_a_decimal_comma_without_quotes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    path.write_text("image,label,mpp\n\na.png,a.png,0,25\n")
    with pytest.raises(HemalumError) as raised:
        list(read_table(path, ("image", "label")))
    assert str(raised.value) == (
        f"{path}, row 3: 4 values for 3 columns; a value that holds a comma stands in quotes"
    )


def test_what_is_said_of_an_index_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pairs(tmp_path)
    (tmp_path / "index.csv").write_bytes("image;label;patient\nf0.png;f0.png;Ä\nf1.png;f1.png;Ö\n".encode("cp1252"))
    rows = import_dataset("folder", tmp_path, tmp_path / "out", group="patient", mpp=0.25).rows
    assert [row.group for row in rows] == ["Ä", "Ö"]
    assert len([line for line in caplog.messages if "Windows-1252" in line]) == 1


def test_windows_letters_are_read_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "index.csv"
    path.write_bytes("image;patient\na.png;Müller\n".encode("cp1252"))
    with caplog.at_level(logging.WARNING):
        assert [row["patient"] for row in read_table(path, ("image",))] == ["Müller"]
    assert caplog.messages == [
        f"{path}: is not UTF-8; read as Windows-1252: where letters come out wrong, save it as UTF-8"
    ]


def test_a_table_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    with path.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(HemalumError) as raised:
        list(read_table(path))
    assert str(raised.value) == f"{path}: a table has at most 67,108,864 bytes"


@pytest.mark.parametrize(
    ("listed", "end"),
    [
        ("f3.png", ", did you mean 'f1.png' or 'f0.png'?"),
        ("f0.tif", ", did you mean 'f0.png'?"),
        ("F-00.jpg", ", did you mean 'f0.png'?"),
        ("C:\\data\\set\\f0.png", "; {folder}/images/f0.png is there: write paths from {folder}"),
        ("quite_another.png", ""),
        ("x" * 300, ""),
    ],
)
def test_a_file_that_is_not_there_lists_its_near_misses(tmp_path: Path, listed: str, end: str) -> None:
    write_pairs(tmp_path)
    (tmp_path / "index.csv").write_text(f"image,label\n{listed},f0.png\n")
    with pytest.raises(HemalumError) as raised:
        find_pairs(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path / 'index.csv'}, row 2: image {listed!r} is neither in {tmp_path / 'images'} nor in {tmp_path}"
        + end.format(folder=tmp_path)
    )


def test_slides_and_ihc_pairs_come_from_any_table(tmp_path: Path) -> None:
    slides = tmp_path / "Slides"
    slides.mkdir()
    (slides / "A.svs").touch()
    table = tmp_path / "cohort.csv"
    table.write_bytes("Path;MPP;Organ;ROI;\nslides\\a.SVS;0,5;Niere;0,0,64,64;\n;;;;\n".encode("utf-16"))
    (slide,) = read_cohort(table)
    assert (slide.path, slide.mpp, slide.organ, slide.roi) == (slides / "A.svs", 0.5, "Niere", "0,0,64,64")
    for inside in ("he", "ihc"):
        (tmp_path / inside).mkdir()
        (tmp_path / inside / "p1.png").touch()
    (tmp_path / "index.csv").write_bytes(b"HE;IHC;Patient;mpp\r\nhe\\p1.png;ihc\\p1.png;7;0,25\r\n")
    pairs = find_ihc_pairs(tmp_path)
    assert [(pair.id, pair.group, pair.mpp) for pair in pairs] == [("p1", "7", 0.25)]
    (tmp_path / "landmarks.csv").write_bytes(b"ID;he_x;HE_Y;ihc_x;ihc_y\r\np1;1,5;2;3;4,25\r\n")
    he, ihc = read_landmarks(tmp_path / "landmarks.csv", pairs)["p1"]
    assert (he.tolist(), ihc.tolist()) == ([[1.5, 2.0]], [[3.0, 4.25]])
    (tmp_path / "landmarks.csv").write_text("id,he_x,he_y,ihc_x,ihc_y\nP-01,1,2,3,4\n")
    with pytest.raises(HemalumError) as raised:
        read_landmarks(tmp_path / "landmarks.csv", pairs)
    assert str(raised.value) == (
        f"{tmp_path / 'landmarks.csv'}, row 2: no pair has the id 'P-01', did you mean 'p1'?"
    )


def test_a_dataset_whose_index_a_spreadsheet_saved_again_opens(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    opened = import_dataset("folder", tmp_path, tmp_path / "out", mpp=0.25)
    index = tmp_path / "out" / "index.csv"
    lines = index.read_text().splitlines()
    index.write_text("\r\n".join(line.replace(",", ";").replace("0.25", "0,25") for line in lines), "utf-8-sig")
    assert Dataset.open(tmp_path / "out").rows == opened.rows


def write_excel(path: Path, *, title: bool = False) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["notes of the study"])
    sheet = book.create_sheet("images")
    if title:
        sheet.append(["Study 7"])
        sheet.append([])
    sheet.append([" Image ", "LABEL", "patient", "mpp", None])
    sheet.append(["images\\f0.png", "labels\\f0.png", 7, 0.25])
    sheet.append([None, None])
    sheet.append(["images\\f1.png", "labels\\f1.png", "B", "0,5"])
    book.save(path)


@pytest.mark.parametrize("title", [False, True])
def test_an_excel_file_is_read(tmp_path: Path, title: bool) -> None:
    write_pairs(tmp_path)
    write_excel(tmp_path / "index.xlsx", title=title)
    pairs = find_pairs(tmp_path)
    assert [(pair.id, pair.columns["patient"]) for pair in pairs] == [("f0", "7"), ("f1", "B")]
    rows = list(read_table(tmp_path / "index.xlsx", ("image", "label")))
    assert [(row.number, row.value("mpp")) for row in rows] == [(2 + 2 * title, 0.25), (4 + 2 * title, 0.5)]


@pytest.mark.parametrize(
    ("sound", "broken"),
    [
        (b'<row r="40"', b'<row r="40'),
        (b'<row r="40"', b'<row r="x"'),
        (b'r="A40"', b'r="??"'),
        (b"</sheetData>", b""),
    ],
)
def test_an_excel_file_that_is_damaged_far_down(tmp_path: Path, sound: bytes, broken: bytes) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for number in range(60):
        book.active.append(["image", "label"] if not number else [f"f{number}.png", f"g{number}.png"])
    book.save(tmp_path / "sound.xlsx")
    with zipfile.ZipFile(tmp_path / "sound.xlsx") as source, zipfile.ZipFile(tmp_path / "index.xlsx", "w") as archive:
        for name in source.namelist():
            data = source.read(name)
            assert sound in data or "sheet1" not in name
            archive.writestr(name, data.replace(sound, broken) if "sheet1" in name else data)
    with pytest.raises(HemalumError) as raised:
        list(read_table(tmp_path / "index.xlsx", ("image", "label")))
    assert str(raised.value).startswith(f"{tmp_path / 'index.xlsx'}: is no Excel file that can be read (")


def test_an_excel_file_without_the_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "index.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "")
    plain = builtins.__import__

    def without(name: str, *others: Any, **options: Any) -> Any:
        if name == "openpyxl":
            raise ImportError(name)
        return plain(name, *others, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(HemalumError) as raised:
        list(read_table(tmp_path / "index.xlsx"))
    assert str(raised.value) == (
        f"{tmp_path / 'index.xlsx'}: an Excel file needs openpyxl: pip install 'hemalum[tables]', or save it as CSV"
    )
