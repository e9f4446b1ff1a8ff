"""A batch is a table, and does not die: what runs leave, go on with, name and refuse."""

import csv
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import hemalum.files
from builders.slides import save_pyramid
from hemalum.errors import HemalumError
from hemalum.inference.batch import FileResult, segment_paths
from hemalum.inference.inputs import find_images
from hemalum.inference.slide_batch import segment_slides
from hemalum.inference.summary import Summary, table_text
from hemalum.models.card import Card
from hemalum.models.model import Model

pytestmark = pytest.mark.fault

Disks = Callable[..., NDArray[np.uint8]]
Run = Callable[..., list[FileResult]]


@pytest.fixture
def folder(tmp_path: Path, make_disks: Disks) -> Path:
    """Two images of one name in two folders, and another beside them."""
    inside = tmp_path / "images"
    for number, name in enumerate(("a.png", "liver/a.png", "liver/deep/b.tif")):
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make_disks(100, 120, 16, seed=number)).save(inside / name)
    return inside


@pytest.fixture
def run(folder: Path, tmp_path: Path, disk_card: Card, disk_engine: Any) -> Run:
    def segment(*paths: Path, out: Path | None = None, **options: Any) -> list[FileResult]:
        options = {"mpp": 0.5, "engine": disk_engine, "stain": "he"} | options
        formats = options.pop("formats", ["csv"])
        target = out or tmp_path / "out"
        return list(segment_paths(paths or [folder], target, formats, Model(disk_card, {}), **options))

    return segment


def table(out: Path, name: str = "summary.csv") -> list[dict[str, str]]:
    with (out / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_table_has_what_the_results_have(run: Run, tmp_path: Path) -> None:
    results = run(formats=["csv", "geojson", "labels"])
    rows = table(tmp_path / "out")
    assert [row["image"] for row in rows] == ["a.png", "liver/a.png", "liver/deep/b.tif"]
    assert [row["results"] for row in rows] == ["a", "liver/a", "liver/deep/b"]
    for row, result in zip(rows, results, strict=True):
        nuclei = result.nuclei
        assert nuclei is not None
        assert int(row["nuclei"]) == nuclei.count > 5
        assert float(row["nuclei_per_mm2"]) == pytest.approx(nuclei.density_per_mm2, rel=1e-5)
        area = float(np.median(nuclei.table.column("area_um2").to_numpy()))
        assert float(row["median_area_um2"]) == pytest.approx(area, rel=1e-5)
        assert (row["mpp"], row["mpp_source"], row["kind"], row["stain"]) == ("0.5", "user", "image", "he")
        assert (row["width_px"], row["height_px"], row["warnings"]) == ("120", "100", "")
        lines = table(tmp_path / "out", f"{row['results']}.csv")
        assert {one["image"] for one in lines} == {row["image"]}
        labels = np.unique(np.asarray(Image.open(tmp_path / "out" / f"{row['results']}_labels.tif")))[1:]
        assert [int(one["id"]) for one in lines] == labels.tolist()
        objects = json.loads((tmp_path / "out" / f"{row['results']}.geojson").read_text())["features"]
        assert len(objects) == len(lines)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_density_is_of_tissue_where_glass_is_seen(run: Run, tmp_path: Path, make_disks: Disks, share: float) -> None:
    (tmp_path / "half").mkdir()
    image = np.full((400, 800, 3), (243, 242, 243), np.uint8)
    image[:, : int(800 * share)] = make_disks(400, 800, 16, seed=5)[:, : int(800 * share)]
    rng = np.random.default_rng(0)
    noise = rng.integers(-1, 2, image.shape)
    Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8)).save(tmp_path / "half" / "a.png")
    run(tmp_path / "half")
    (row,) = table(tmp_path / "out")
    assert float(row["area_mm2"]) == pytest.approx(0.08)
    assert float(row["tissue_mm2"]) == pytest.approx(0.08 * share, rel=0.05)
    assert float(row["nuclei_per_mm2_tissue"]) == pytest.approx(
        int(row["nuclei"]) / float(row["tissue_mm2"]), rel=1e-3
    )


def test_tissue_is_that_in_the_region_of_interest(run: Run, tmp_path: Path, make_disks: Disks) -> None:
    image = np.full((400, 800, 3), (243, 242, 243), np.uint8)
    image[:, :400] = make_disks(400, 400, 16, seed=5)
    Image.fromarray(image).save(tmp_path / "a.png")
    run(tmp_path / "a.png", roi="200,0,300,400")  # two thirds of it are tissue
    (row,) = table(tmp_path / "out")
    assert float(row["area_mm2"]) == pytest.approx(300 * 400 * 0.25 / 1e6)
    assert float(row["tissue_mm2"]) == pytest.approx(200 * 400 * 0.25 / 1e6, rel=0.05)
    assert float(row["nuclei_per_mm2_tissue"]) == pytest.approx(
        int(row["nuclei"]) / float(row["tissue_mm2"]), rel=1e-3
    )


def test_slides_and_images_are_in_one_table(
    run: Run, folder: Path, tmp_path: Path, make_disks: Disks, disk_card: Card, disk_engine: Any
) -> None:
    run()
    slide = save_pyramid(tmp_path / "s.tif", make_disks(300, 400, 16, seed=9), mpp=0.5)
    (done,) = segment_slides([slide], tmp_path / "out", ["csv"], Model(disk_card, {}), engine=disk_engine)
    assert done.summary is not None
    *_, last = rows = table(tmp_path / "out")
    assert [row["kind"] for row in rows] == ["image", "image", "image", "slide"]
    assert (last["image"], last["results"], int(last["nuclei"])) == ("s.tif", "s", done.summary.count)
    assert float(last["nuclei_per_mm2_tissue"]) == pytest.approx(done.summary.per_mm2, rel=1e-5)
    assert {one["image"] for one in table(tmp_path / "out", "s.csv")} == {"s.tif"}


def test_sub_folders_are_left_out_where_asked(run: Run) -> None:
    assert [result.name for result in run(recursive=False)] == ["a"]


def test_links_in_a_circle_pipes_and_results_are_passed_over_and_named(
    run: Run, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "circle").symlink_to("circle")
    (folder / "liver" / "up").symlink_to(folder)
    (folder / "notes.txt").write_text("no image")
    (folder / "liver" / "data.xlsx").write_bytes(b"no image")
    inner = folder / "out"
    with caplog.at_level(logging.INFO):
        assert [result.name for result in run(out=inner)] == ["a", "liver/a", "liver/deep/b"]
        assert [result.name for result in run(out=inner)] == ["a", "liver/a", "liver/deep/b"]
        assert [result.name for result in run(out=tmp_path / "other")] == ["a", "liver/a", "liver/deep/b"]
    logged = set(caplog.messages)
    for name in ("pipe.png", "circle"):
        assert f"{folder / name}: passed over, as it is no file (a broken link, pipe or socket)" in logged
    assert f"{folder}: 2 files passed over, no images: notes.txt, liver/data.xlsx" in logged
    assert f"{inner}: passed over, as it holds results" in logged


def test_results_among_the_images_are_no_images(run: Run, folder: Path) -> None:
    for _ in range(2):
        names = [result.name for result in run(out=folder, formats=["overlay", "labels"])]
        assert names == ["a", "liver/a", "liver/deep/b"]


def test_two_folders_with_one_name_each_are_laid_out_by_folder(run: Run, tmp_path: Path, make_disks: Disks) -> None:
    for name in ("p1", "p2"):
        (tmp_path / name).mkdir()
        Image.fromarray(make_disks(60, 60, 16)).save(tmp_path / name / "a.png")
    assert [result.name for result in run(tmp_path / "p1", tmp_path / "p2")] == ["p1/a", "p2/a"]
    assert {one["image"] for one in table(tmp_path / "out", "p2/a.csv")} == {"p2/a.png"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: os.mkfifo(path), "{path}: is no file (a pipe, socket or device)"),
        (lambda path: path.symlink_to(path.name), "{path}: Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "{path}: no such file or folder"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "x.png"
    make(path)
    with pytest.raises(HemalumError) as caught:
        find_images([path], tmp_path / "out")
    assert str(caught.value) == message.format(path=path)


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_path_is_not_the_folder_one_is_in(tmp_path: Path, empty: str) -> None:
    with pytest.raises(HemalumError, match=r"^a path is empty: name a file or a folder"):
        find_images([empty], tmp_path / "out")


def test_a_name_that_is_no_utf8(run: Run, folder: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"n\xe9.png")
    shutil.copy(folder / "a.png", folder / name)
    results = run(formats=["csv", "geojson", "parquet", "labels", "overlay"])
    assert [result.error for result in results] == [None] * 4
    assert "n\\udce9.png" in {row["image"] for row in table(tmp_path / "out")}
    assert {one["image"] for one in table(tmp_path / "out", os.fsdecode(b"n\xe9.csv"))} == {"n\\udce9.png"}
    assert [result.kept for result in run(formats=["csv"])] == [True] * 4


def test_a_name_that_a_spreadsheet_would_compute(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "a.png").rename(folder / "=1+1.png")
    run(recursive=False)
    assert [row["image"] for row in table(tmp_path / "out")] == ["'=1+1.png"]


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), MemoryError(), OSError(5, "Input/output error")])
def test_whatever_one_image_comes_to_the_others_go_on(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import hemalum.inference.batch as batch

    before = batch.segment_source

    def fail(source: Any, *arguments: Any, **options: Any) -> Any:
        if Path(source.name).parent.name == "liver":
            raise error
        return before(source, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(batch, "segment_source", fail)
        results = run()
    path = folder / "liver" / "a.png"
    expected = {
        ZeroDivisionError: f"{path}: ZeroDivisionError: by zero (unforeseen: please report it, with --debug)",
        MemoryError: f"{path}: MemoryError: MemoryError (unforeseen: please report it, with --debug)",
        OSError: f"{path}: Input/output error",
    }[type(error)]
    assert [result.error for result in results] == [None, expected, None]
    assert [row["error"] for row in table(tmp_path / "out")] == ["", expected, ""]
    assert [result.kept for result in run()] == [True, False, True]
    assert "error" not in table(tmp_path / "out")[1]


def test_what_is_finished_is_kept(run: Run, folder: Path, tmp_path: Path, make_disks: Disks) -> None:
    out = tmp_path / "out"
    first = run()
    written = (out / "a.csv").stat().st_mtime_ns
    table_then = (out / "summary.csv").read_text()
    kept = run()
    assert [result.kept for result in kept] == [True] * 3
    assert [result.row for result in kept] == [result.row for result in first]
    assert (out / "a.csv").stat().st_mtime_ns == written
    assert (out / "summary.csv").read_text() == table_then
    Image.fromarray(make_disks(90, 90, 16, seed=8)).save(folder / "a.png")  # another image
    (out / "liver" / "a.csv").unlink()
    assert [result.kept for result in run()] == [False, False, True]
    assert [result.kept for result in run(formats=["csv", "labels"])] == [False] * 3
    assert [result.kept for result in run(overwrite=True)] == [False] * 3
    assert [result.kept for result in run(describe=lambda result: {"count": result.nuclei.count})] == [False] * 3  # type: ignore[union-attr]
    described = run(describe=lambda _: {})
    assert [result.kept for result in described] == [True] * 3
    assert [result.described for result in described] == [{"count": result.row["nuclei"]} for result in described]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mpp": 0.25}, "mpp is 0.5 there, 0.25 here"),
        ({"keep": {"min_area_um2": 20}}, "filter is None there, min_area_um2 20 here"),
        ({"exclude": "0,0,10,10"}, "exclude is None there, 0,0,10,10 here"),
        ({"stain": "hdab"}, "stain is he there, hdab here"),
    ],
)
def test_results_by_other_settings_are_not_overwritten_unasked(
    run: Run, folder: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    run(folder / "a.png")
    with pytest.raises(HemalumError) as caught:
        run(folder / "a.png", **options)
    assert str(caught.value) == (
        f"{tmp_path / 'out' / 'a'}.*: results by other settings are there ({message}): "
        "choose another folder, or `overwrite`"
    )
    (result,) = run(folder / "a.png", overwrite=True, **options)
    assert result.error is None
    assert [one.kept for one in run(folder / "liver" / "deep", **options)] == [False]  # others may have their own
    assert len(table(tmp_path / "out")) == 2


def test_a_run_that_is_stopped_leaves_its_table_and_goes_on(
    folder: Path, tmp_path: Path, disk_card: Card, disk_engine: Any, run: Run
) -> None:
    model = Model(disk_card, {})
    results = segment_paths(
        [folder], tmp_path / "out", ["csv"], model, mpp=0.5, engine=disk_engine, stain="he",
        on_progress=lambda path, _: stop() if path.parent.name == "liver" else None,
    )  # fmt: skip

    def stop() -> None:
        raise KeyboardInterrupt

    next(results)
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert [row["results"] for row in table(tmp_path / "out")] == ["a"]
    assert [result.kept for result in run()] == [True, False, False]


def test_a_record_that_was_torn_costs_one_image(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run()
    record = tmp_path / "out" / "summary.jsonl"
    record.write_bytes(record.read_bytes()[:-30])
    assert [result.kept for result in run()] == [True, True, False]
    assert f"{record}, line 3: is not whole; what it was of counts as not finished" in caplog.messages
    assert [result.kept for result in run()] == [True] * 3
    assert len(table(tmp_path / "out")) == 3


def test_a_table_that_is_open_elsewhere_is_written_beside(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run()
    replace = Path.replace

    def locked(path: Path, target: Path) -> Path:
        if Path(target).name == "summary.csv":
            raise PermissionError(13, "The process cannot access the file")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(hemalum.files.Path, "replace", locked)
        run()
    out = tmp_path / "out"
    assert f"{out / 'summary.csv'}: is held by another program; the table is in {out / 'summary-new.csv'}" in (
        caplog.messages
    )
    assert table(out, "summary-new.csv") == table(out)


def test_a_single_image_that_fails_leaves_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    (result,) = run(tmp_path / "bad.png")
    assert result.error is not None
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def stripes(tmp_path: Path, make_disks: Disks) -> Path:
    """A series without a scale: nuclei of 6.3 µm at 0.5 µm per px, in images of different sizes."""
    (tmp_path / "series").mkdir()
    for number in range(4):
        image = make_disks(300 + 20 * number, 320, 13, seed=number)
        Image.fromarray(image).save(tmp_path / "series" / f"{number}.png")
    return tmp_path / "series"


def test_a_series_has_one_estimate(
    run: Run, stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import hemalum.inference.series as series

    estimates = iter((0.5, 0.55, 0.45, 0.6, 0.62))
    monkeypatch.setattr(series, "estimate_mpp", lambda *_: SimpleNamespace(mpp=next(estimates)))
    results = run(stripes, mpp="series")
    assert [result.row["mpp"] for result in results] == pytest.approx([0.525] * 4)
    assert {result.row["mpp_source"] for result in results} == {"estimate"}
    assert (
        caplog.messages.count(
            "0.525 µm per px is an estimate from 4 images, for all images that do not say their scale; mpp sets it"
        )
        == 1
    )
    shutil.copy(stripes / "0.png", stripes / "more.png")
    assert [result.kept for result in run(stripes, mpp="series")] == [True] * 4 + [False]  # it joins the others
    assert len({row["mpp"] for row in table(tmp_path / "out")}) == 1


@pytest.mark.fault
@pytest.mark.parametrize(
    ("values", "spread"),
    [
        ((0.25, 0.5, 0.26, 0.51), "0.25 to 0.51"),
        ((0.2, 0.25, 0.25, 0.34), "0.2 to 0.34"),  # of so few images all count
    ],
)
def test_a_series_of_two_scanners_is_refused(
    values: tuple[float, ...], spread: str, run: Run, stripes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hemalum.inference.series as series

    estimates = iter(values)
    monkeypatch.setattr(series, "estimate_mpp", lambda *_: SimpleNamespace(mpp=next(estimates)))
    with pytest.raises(HemalumError) as caught:
        run(stripes, mpp="series")
    assert str(caught.value) == (
        "mpp 'series': the images are no series of one scale: their nuclei tell "
        f"{spread} µm per px; "
        "segment them apart, or give `mpp` NUMBER"
    )


def test_images_that_say_their_scale_keep_it_in_a_series(run: Run, tmp_path: Path, make_disks: Disks) -> None:
    (tmp_path / "said").mkdir()
    save_pyramid(tmp_path / "said" / "a.tif", make_disks(200, 220, 16, seed=3), mpp=0.4, levels=1)
    (result,) = run(tmp_path / "said", mpp="series")
    assert (result.row["mpp"], result.row["mpp_source"]) == (0.4, "file")


def test_the_columns_of_all_rows_in_their_order() -> None:
    rows = [{"a": 1, "c": 0.123456789, "_ours": 1}, {"a": 2, "b": "x\n y", "c": None}, {"a": 3, "error": "no"}]
    assert table_text(rows) == "a,b,c,error\n1,,0.123457,\n2,x y,,\n3,,,no\n"


def test_rows_of_runs_before_stay(run: Run, folder: Path, tmp_path: Path) -> None:
    run(folder / "a.png")
    run(folder / "liver" / "deep")
    assert [row["results"] for row in table(tmp_path / "out")] == ["a", "b"]
    assert set(Summary(tmp_path / "out").finished) == {"a", "b"}


def test_another_image_of_the_same_name_is_not_overwritten_unasked(run: Run, folder: Path, tmp_path: Path) -> None:
    run(folder / "a.png")
    with pytest.raises(HemalumError) as caught:
        run(folder / "liver" / "a.png")
    assert str(caught.value) == (
        f"{tmp_path / 'out' / 'a'}.*: results of another image are there, {folder / 'a.png'}: "
        "choose another folder, or `overwrite`"
    )
    shutil.move(folder / "a.png", tmp_path / "a.png")  # the same image elsewhere
    assert [result.kept for result in run(tmp_path / "a.png")] == [False]


def test_an_image_called_as_the_table_is_keeps_its_nuclei(
    run: Run, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(folder / "a.png", folder / "Summary.png")
    names = [result.name for result in run(recursive=False)]
    assert names == ["Summary-image", "a"]
    assert f"{folder / 'Summary.png'}: its results are called Summary-image, as Summary.* is the table or a page" in (
        caplog.messages
    )
    assert len(table(tmp_path / "out", "Summary-image.csv")) == len(table(tmp_path / "out", "a.csv"))
    assert len(table(tmp_path / "out")) == 2


def test_a_slide_cannot_be_called_as_the_table_is(tmp_path: Path, disk_card: Card, disk_engine: Any) -> None:
    from hemalum.inference.cohort import SlideInput

    with pytest.raises(HemalumError, match=r"s\.tif: results cannot be called summary, as the table or a page is"):
        segment_slides(
            [SlideInput(Path("s.tif"), "summary")],
            tmp_path / "out",
            ["csv"],
            Model(disk_card, {}),
            engine=disk_engine,
        )


def test_what_failed_stays_in_the_table_until_it_is_done(
    run: Run, folder: Path, tmp_path: Path, make_disks: Disks, disk_card: Card, disk_engine: Any
) -> None:
    (folder / "bad.png").write_bytes(b"no image")
    run()
    slide = save_pyramid(tmp_path / "s.tif", make_disks(300, 400, 16, seed=9), mpp=0.5)
    list(segment_slides([slide], tmp_path / "out", ["csv"], Model(disk_card, {}), engine=disk_engine))
    rows = table(tmp_path / "out")
    assert [row["results"] for row in rows] == ["a", "bad", "liver/a", "liver/deep/b", "s"]
    assert "not a slide or an image that can be read" in rows[1]["error"]
    shutil.copy(folder / "a.png", folder / "bad.png")
    run(folder / "bad.png")
    assert "error" not in table(tmp_path / "out")[0]
    (folder / "a.png").write_bytes(b"damaged since")
    run(recursive=False)
    assert table(tmp_path / "out")[0]["error"] != ""
    assert table(tmp_path / "out")[0]["nuclei"] == ""


def test_a_slide_by_other_settings_is_refused_and_its_row_stays(
    tmp_path: Path, make_disks: Disks, disk_card: Card, disk_engine: Any
) -> None:
    slide = save_pyramid(tmp_path / "s.tif", make_disks(300, 400, 16, seed=9), mpp=0.5)
    out, model = tmp_path / "out", Model(disk_card, {})
    list(segment_slides([slide], out, ["csv"], model, engine=disk_engine))
    before = (out / "summary.csv").read_text()
    (refused,) = segment_slides([slide], out, ["csv"], model, engine=disk_engine, mpp=0.25)
    assert refused.error is not None
    assert (out / "summary.csv").read_text() == before


def test_files_of_an_image_that_changed_do_not_stay_beside_new_ones(
    run: Run, folder: Path, tmp_path: Path, make_disks: Disks
) -> None:
    out = tmp_path / "out"
    run(folder / "a.png", formats=["csv", "labels"])
    run(folder / "a.png", formats=["geojson"])  # one more of the same image
    assert {path.name for path in out.glob("a*")} == {"a.csv", "a_labels.tif", "a.geojson"}
    (result,) = run(folder / "a.png", formats=["csv", "labels"])
    assert result.kept
    Image.fromarray(make_disks(90, 90, 16, seed=8)).save(folder / "a.png")
    run(folder / "a.png", formats=["geojson"])
    assert {path.name for path in out.glob("a*")} == {"a.geojson"}


def test_an_image_counts_once_whatever_it_was_called_before(run: Run, tmp_path: Path, make_disks: Disks) -> None:
    for name in ("p1", "p2"):
        (tmp_path / name).mkdir()
        Image.fromarray(make_disks(60, 60, 16)).save(tmp_path / name / "a.png")
    run(tmp_path / "p1")
    run(tmp_path / "p1", tmp_path / "p2")
    assert [row["results"] for row in table(tmp_path / "out")] == ["p1/a", "p2/a"]


def test_the_same_region_by_another_path_is_the_same(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    region = {"type": "Polygon", "coordinates": [[[0, 0], [60, 0], [60, 60], [0, 60], [0, 0]]]}
    (tmp_path / "r.geojson").write_text(json.dumps(region))
    monkeypatch.chdir(tmp_path)
    run(folder / "a.png", roi="r.geojson")
    (result,) = run(folder / "a.png", roi=str(tmp_path / "r.geojson"))
    assert result.kept
    (tmp_path / "r.geojson").write_text(json.dumps(region).replace("60", "50"))
    with pytest.raises(HemalumError, match=r"roi is r\.geojson [0-9a-f]{16} there, r\.geojson [0-9a-f]{16} here"):
        run(folder / "a.png", roi="r.geojson")


@pytest.fixture
def estimates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the nuclei of the next images tell of their scale."""
    import hemalum.inference.series as series

    values: list[float] = []
    monkeypatch.setattr(series, "estimate_mpp", lambda *_: SimpleNamespace(mpp=values.pop(0)))
    return values


def test_a_series_that_goes_on_refuses_another_scanner(run: Run, stripes: Path, estimates: list[float]) -> None:
    estimates += [0.25, 0.26, 0.25, 0.24]
    run(stripes, mpp="series")
    shutil.copy(stripes / "0.png", stripes / "4.png")
    estimates += [0.5]
    with pytest.raises(HemalumError, match=r"was begun at 0\.25 µm per px, and the nuclei of these images tell 0\.5"):
        run(stripes, mpp="series")
    estimates += [0.5]
    (result,) = run(stripes / "4.png", mpp="series", overwrite=True)
    assert result.row["mpp"] == 0.5


def test_one_image_of_another_scanner_among_many_is_named(
    run: Run, stripes: Path, estimates: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4, 9):
        shutil.copy(stripes / "0.png", stripes / f"{number}.png")
    estimates += [0.25] * 8 + [0.5]
    run(stripes, mpp="series")
    assert (
        f"{stripes / '8.png'}: its nuclei look like 0.5 µm per px, and the series has 0.25: is it of another scanner?"
    ) in caplog.messages


def test_an_image_without_a_scale_joins_a_series_whose_images_say_theirs(
    run: Run, tmp_path: Path, make_disks: Disks, estimates: list[float]
) -> None:
    (tmp_path / "series").mkdir()
    save_pyramid(tmp_path / "series" / "a.tif", make_disks(200, 220, 16, seed=3), mpp=0.4, levels=1)
    run(tmp_path / "series", mpp="series")
    Image.fromarray(make_disks(200, 220, 16, seed=3)).save(tmp_path / "series" / "b.png")
    estimates += [0.45]
    first, second = run(tmp_path / "series", mpp="series")
    assert (first.kept, second.kept) == (True, False)
    assert (second.row["mpp"], second.row["mpp_source"]) == (0.45, "estimate")


def test_fluorescence_is_tissue_all_over() -> None:
    from hemalum.slides import Slide
    from hemalum.slides.tissue import field_tissue

    image = np.zeros((400, 400, 3), np.uint8)
    image[::40] = image[:, :60] = 255
    assert field_tissue(Slide.of(image), 0.5, stain="fluorescence").share == 1
    assert field_tissue(Slide.of(image), 0.5).share < 1
