"""`hemalum segment` on whole slides and cohorts: files, tables, and one line for each mistake."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from builders.slides import save_pyramid
from hemalum import cli
from hemalum.nuclei.store import open_store


def run(*arguments: object, code: int = 0) -> None:
    assert cli.main(["segment", *map(str, arguments)]) == code


@pytest.fixture
def folder(tmp_path: Path, make_disks: Callable[..., NDArray[np.uint8]]) -> Path:
    """A slide, one without a scale, one that is cut off, and an image."""
    folder = tmp_path / "in"
    folder.mkdir()
    picture = make_disks(300, 400, 16, seed=1)
    save_pyramid(folder / "a.tif", picture, mpp=0.5)
    save_pyramid(folder / "b.tif", picture, mpp=None)
    (folder / "c.tif").write_bytes((folder / "a.tif").read_bytes()[:-3000])
    Image.fromarray(picture).save(folder / "image.png")
    return folder


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    run(*arguments, code=2)
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_pages_of_slides_and_of_the_cohort(
    folder: Path, dark_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(folder / "a.tif", folder / "b.tif", "-o", out, "--model", dark_model, "--report", code=1)
    assert "b.tif: the file states no scale" in capsys.readouterr().err
    page, cohort = (out / "a.html").read_text(), (out / "cohort.html").read_text()
    count = open_store(out / "a.nuclei").count
    assert f"{count:,}" in page
    assert f"{count:,}" in cohort
    assert 'href="a.html"' in cohort
    assert "the file states no scale" in cohort
    assert not (out / "b.html").exists()
    run(folder / "a.tif", "-o", tmp_path / "one", "--model", dark_model, "--report")
    assert (tmp_path / "one" / "a.html").is_file()
    assert not (tmp_path / "one" / "cohort.html").exists()


def test_a_slide_and_an_image_in_one_folder(
    folder: Path, dark_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "b.tif").unlink()
    (folder / "c.tif").unlink()
    out = tmp_path / "out"
    run(folder, "-o", out, "--model", dark_model, "--mpp", 0.5)
    assert sorted(path.name for path in out.iterdir()) == [
        "a.csv", "a.geojson", "a.log", "a.nuclei", "image.csv", "image.geojson", "summary.csv", "summary.jsonl",
    ]  # fmt: skip
    printed = capsys.readouterr().out
    images, slides = printed.index("file "), printed.index("slide ")
    assert images < slides
    store = open_store(out / "a.nuclei")
    (line,) = [line.split() for line in printed.splitlines() if re.match(r" *a +\d", line)]
    assert int(line[1]) == store.count > 50
    # the same pixels, read whole and as a slide
    assert next(row for row in printed.splitlines() if "image.png" in row).split()[1] == line[1]
    assert float(line[2]) == pytest.approx(0.03, rel=0.02)
    assert float(line[3].replace(",", "")) == pytest.approx(store.count / float(line[2]), rel=0.001)
    assert f"5 files in {out}" in printed
    words = (out / "a.log").read_text()
    assert f"hemalum segment {folder} -o {out}" in words


def test_quiet_and_the_log_has_it_all(
    folder: Path, dark_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--quiet", folder / "a.tif", "-o", tmp_path / "ready", "--model", dark_model)
    capsys.readouterr()
    run("--quiet", folder / "a.tif", "-o", tmp_path / "out", "--model", dark_model)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert all("but its nuclei look like" in line for line in printed.err.splitlines())  # a warning is never quiet
    text = (tmp_path / "out" / "a.log").read_text()
    assert "0.5 µm per px, from the file" in text
    assert "mm² in 1 region" in text


def test_running_it_again_keeps_what_is_there(
    folder: Path, dark_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (folder / "a.tif", "-o", tmp_path / "out", "--model", dark_model, "-f", "csv")
    run(*arguments)
    capsys.readouterr()
    run(*arguments)
    printed = capsys.readouterr()
    assert "is complete; nothing is left to segment" in printed.err
    assert "a.csv: is there, and no older than the nuclei: kept" in printed.err
    assert re.search(r"^ *a +\d+ ", printed.out, re.MULTILINE)


def test_a_cohort_goes_on_past_a_broken_slide(
    folder: Path, dark_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "slides.csv"
    rows = ['in/a.tif,,"0,0,200,300",left', "in/a.tif,,roi.geojson,right", "in/b.tif,0.5,,", "in/c.tif,,,"]
    table.write_text("\n".join(["path,mpp,roi,name", *rows, "in/image.png,0.5,,"]))
    square = [[200, 0], [400, 0], [400, 300], [200, 300], [200, 0]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [square]}}
    (tmp_path / "roi.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    out = tmp_path / "out"
    run("--cohort", table, "-o", out, "--model", dark_model, "-f", "csv", code=1)
    printed = capsys.readouterr()
    counts = {name: open_store(out / f"{name}.nuclei").count for name in ("left", "right", "b", "image")}
    assert counts["left"] + counts["right"] == counts["b"] == counts["image"]
    assert min(counts.values()) > 20
    for name, count in counts.items():
        assert re.search(rf"^ *{name} +{count} ", printed.out, re.MULTILINE)
    assert printed.out.count("(in the roi)") == 2
    last = printed.err.splitlines()[-1]
    assert last.startswith(f"failed: {tmp_path / 'in' / 'c.tif'}: the file is truncated")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image.png", "-f", "thumbnail"], "format thumbnail is for whole slides; for images there are geojson"),
        (["a.tif", "--mpp", "estimate"], "--mpp estimate: the scale of a slide is not estimated"),
        (["a.tif", "--workers", "0"], "workers is 0: want 1 to "),
        (["a.tif", "--region", "0"], "--region"),
        (["a.tif", "--workers", "1", "--scheduler", "tcp://x"], "--workers counts cells on this machine"),
        (
            ["image.png", "a.tif", "--exclude", "0,0,9,9"],
            "--exclude is for one image or slide, and 2 are named; a table of --cohort has a",
        ),
        (["a.tif", "--min-area", "-3"], "error: --min-area -3.0: Input should be greater than or equal to 0"),
        (["image.png", "--max-area", "0"], "error: --max-area 0.0: Input should be greater than 0"),
        (
            ["a.tif", "--min-probability", "2"],
            "error: --min-probability 2.0: Input should be less than or equal to 1",
        ),
        (
            ["a.tif", "--min-hematoxylin", "9"],
            "error: --min-hematoxylin 9.0: Input should be less than or equal to 5",
        ),
        (["a.tif", "--min-solidity", "nan"], "error: --min-solidity nan: Input should be a finite number"),
        (["a.tif", "--min-area", "9", "--max-area", "3"], "error: the least area, 9 µm², is above the largest, 3"),
        (
            ["image.png", "a.tif", "--workers", "1"],
            "--workers is for whole slides, and {folder}/image.png is an image: s",
        ),
        (["image.png", "--region", "512"], "--region is for whole slides"),
        (["image.png", "--no-tissue-mask"], "--no-tissue-mask is for whole slides"),
        (["image.png", "--scheduler", "tcp://x"], "--scheduler is for whole slides"),
        (
            ["a.tif", "b.tif", "--roi", "0,0,9,9"],
            "--roi is for one image or slide, and 2 are named; a table of --cohort has a",
        ),
        (["a.tif", "--cohort", "x.csv"], "give PATH… or --cohort x.csv, not both"),
        ([], "give PATH…, images or slides, or --cohort"),
        (["--cohort", "x.csv"], "x.csv: no such file"),
        (
            ["--cohort", "{folder}/t.csv", "--roi", "0,0,9,9"],
            "--roi is for one image or slide; {folder}/t.csv may have a column roi",
        ),
        (["a.svs"], "a.svs: no such file or folder"),
    ],
)
def test_mistakes_before_anything_is_done(
    arguments: list[str],
    message: str,
    folder: Path,
    dark_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "t.csv").write_text("path\na.tif\n")
    words = [str(folder / word) if re.fullmatch(r"\w+\.(tif|png|svs)", word) else word for word in arguments]
    words = [word.format(folder=folder) for word in words]
    line = mistake(capsys, *words, "-o", tmp_path / "out", "--model", dark_model)
    assert message.format(folder=folder) in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("slide", "options", "message"),
    [
        ("b.tif", [], "b.tif: the file states no scale, and that of a slide is not estimated; give it with --mpp"),
        ("c.tif", [], "c.tif: the file is truncated"),
        ("a.tif", ["--mpp", "7"], "mpp 7 µm per px is out of range"),
        (
            "a.tif",
            ["--roi", "500,500,10,10"],
            "roi '500,500,10,10': it lies outside the slide, which is 400 x 300 px",
        ),
        ("a.tif", ["--roi", "0,0,0,10"], "roi '0,0,0,10': width and height must be at least 1 px"),
        ("a.tif", ["--roi", "{folder}/none.geojson"], "none.geojson': No such file or directory"),
        ("a.tif", ["--roi", "{folder}/empty.geojson"], "empty.geojson: holds no areas"),
        (
            "a.tif",
            ["--roi", "{folder}/crossed.geojson"],
            "crossed.geojson, feature 1: the outline crosses itself at x 20",
        ),
    ],
)
def test_a_single_slide_that_fails_is_one_line(
    slide: str,
    options: list[str],
    message: str,
    folder: Path,
    dark_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    crossed = [[0, 0], [40, 40], [40, 0], [0, 40], [0, 0]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [crossed]}}
    for name, features in (("empty", []), ("crossed", [feature])):
        (folder / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    words = [word.format(folder=folder) for word in options]
    line = mistake(capsys, folder / slide, "-o", tmp_path / "out", "--model", dark_model, *words)
    assert message in line
    assert not (tmp_path / "out" / f"{slide[0]}.nuclei").exists()


def test_another_run_in_the_same_folder_is_refused(
    folder: Path, dark_model: Path, two_class_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder / "a.tif", "-o", tmp_path / "out", "--model", dark_model)
    line = mistake(capsys, folder / "a.tif", "-o", tmp_path / "out", "--model", two_class_model)
    assert "holds the nuclei of another run (model is dark there, two here); choose another folder" in line


def test_classes_and_scores_are_in_the_table(
    folder: Path, two_class_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(folder / "a.tif", "-o", tmp_path / "out", "--model", two_class_model, "--positive", "0.1,0.2,0.3")
    printed = capsys.readouterr().out
    (header,) = [line for line in printed.splitlines() if line.strip().startswith("slide")]
    assert re.split(r" {2,}", header.strip()) == [
        "slide", "nuclei", "red", "blue", "positive", "H-score", "Allred", "tissue mm²", "per mm²", "median µm²",
        "mpp", "scale", "stain", "seconds",
    ]  # fmt: skip
    (row,) = [line.split() for line in printed.splitlines() if re.match(r" *a +\d", line)]
    assert int(row[1]) == int(row[2]) + int(row[3])


@pytest.mark.slow
def test_real_slides(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (real_data / "slides").is_dir():
        pytest.skip(f"no slides at {real_data}")
    out = tmp_path / "out"
    run(real_data / "slides", "-o", out, "--model", "fast", "-f", "csv,thumbnail", code=1)
    printed = capsys.readouterr()
    (failed,) = [line for line in printed.err.splitlines() if line.startswith("failed: ")]
    assert "tcga-cr-7395-01a-01-ts1.svs: the file states no scale" in failed
    assert 1500 < open_store(out / "CMU-1-Small-Region.nuclei").count < 4000
