"""A table of slides is read as it is meant, or refused with the line."""

from pathlib import Path

import pytest

from hemalum.errors import HemalumError
from hemalum.inference.cohort import SlideInput, read_cohort


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "slides").mkdir()
    for name in ("a.svs", "b.svs", "roi.geojson"):
        (tmp_path / "slides" / name).touch()
    return tmp_path


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "slides.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_all_columns(folder: Path) -> None:
    text = (
        "name,path,mpp,organ,stain,roi,channel\n"
        "one,slides/a.svs,0.25,lung,H-DAB,slides/roi.geojson,DAPI\n"
        "\n"
        f'two, {folder}/slides/a.svs ,,,,"0,0,100,100"\n'
        ",slides/b.svs\n"
    )
    assert read_cohort(write(folder, text)) == [
        SlideInput(folder / "slides/a.svs", "one", 0.25, "lung", "hdab", str(folder / "slides/roi.geojson"), "DAPI"),
        SlideInput(folder / "slides/a.svs", "two", roi="0,0,100,100"),
        SlideInput(folder / "slides/b.svs", "b"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_as_spreadsheets_write_it(folder: Path, encoding: str, newline: str) -> None:
    (slide,) = read_cohort(write(folder, f"path,mpp{newline}slides/a.svs,0.5{newline}", encoding))
    assert (slide.name, slide.mpp) == ("a", 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            ": column 'path' is missing; the first row names the columns: path, mpp, organ, stain, roi, name, "
            "channel; it is empty",
        ),
        ("mpp\n0.5\n", ": column 'path' is missing; the first row names the columns: "),
        ("path\n", "names no slides"),
        ("slide\na.svs\n", "unknown column 'slide'; known: channel, mpp, name, organ, path, roi, stain"),
        ("path,stian\n", "unknown column 'stian', did you mean 'stain'?"),
        ("path,mpp,mpp\n", "the column mpp is there twice"),
        ("path,mpp\nslides/a.svs,\n,0.5\n", ", row 3: path is empty"),
        ("path\nslides/a.svs\nslides/c.svs\n", ", row 3: {folder}/slides/c.svs: no such file or folder"),
        ("path\nslides/a.svs\nslides/A.svs/../a.svs\n", "no such file or folder"),
        ("path\nslides/a.svs\nslides/a.svs\n", ", rows 2 and 3: both would write a.*; give one another name"),
        ("path,name\nslides/a.svs,B\nslides/b.svs,\n", ", rows 2 and 3: both would write b.*"),
        ("path,name\nslides/a.svs,../x\n", ", row 2: name '../x': want a name for files"),
        ("path,mpp\nslides/a.svs,big\n", ", row 2: mpp 'big': want a number, µm per pixel"),
        ("path,mpp\nslides/a.svs,inf\n", ", row 2: mpp 'inf': want a number, µm per pixel"),
        ("path,mpp\nslides/a.svs,40\n", ", row 2: mpp 40 µm per px is out of range 0.02 to 5"),
        ("path,stain\nslides/a.svs,hdap\n", ", row 2: unknown stain 'hdap', did you mean 'hdab'?"),
        (
            "path,roi\nslides/a.svs,slides/none.geojson\n",
            ", row 2: roi '{folder}/slides/none.geojson': no such file",
        ),
        ('path,roi\nslides/a.svs,"0,0,10"\n', ", row 2: roi '0,0,10': want X,Y,WIDTH,HEIGHT in px of level 0"),
        ("path,roi\nslides/a.svs,0,0,100,100\n", ", row 2: 5 values for 2 columns; a value that holds a comma"),
        ('path\n"slides/a.svs\n', "cannot be read as CSV (unexpected end of data)"),
    ],
)
def test_faults_are_named_with_their_row(folder: Path, text: str, message: str) -> None:
    path = write(folder, text)
    with pytest.raises(HemalumError) as caught:
        read_cohort(path)
    assert str(caught.value).startswith(str(path))
    assert message.format(folder=folder) in str(caught.value)


@pytest.mark.fault
def test_what_is_no_table(folder: Path) -> None:
    with pytest.raises(HemalumError, match=r"none\.csv: no such file$"):
        read_cohort(folder / "none.csv")
    (folder / "x.csv").write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(HemalumError, match=r"x\.csv: is not utf-16 throughout \(.*\); save it as UTF-8$"):
        read_cohort(folder / "x.csv")
