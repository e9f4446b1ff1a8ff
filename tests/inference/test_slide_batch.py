"""Slides go to stores, exports and logs; a broken one stops nobody, and what is finished is not done again."""

import errno
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from builders.slides import overwrite, save_pyramid, tile_bytes
from hemalum.errors import HemalumError
from hemalum.inference.cohort import SlideInput
from hemalum.inference.inputs import ImageInput
from hemalum.inference.slide import hold
from hemalum.inference.slide_batch import SlideProgress, SlideResult, segment_slides
from hemalum.models.card import Card
from hemalum.models.model import Model
from hemalum.nuclei.store import EXPORTS, open_store


@pytest.fixture(scope="module")
def model(disk_card: Card) -> Model:
    return Model(disk_card, {})


@pytest.fixture
def slide(tmp_path: Path, make_disks: Callable[..., NDArray[np.uint8]]) -> Path:
    (tmp_path / "in").mkdir()
    return save_pyramid(tmp_path / "in" / "a.tif", make_disks(300, 400, 16, seed=1), mpp=0.5)


@pytest.fixture
def glass(tmp_path: Path) -> Path:
    """2,100 x 2,200 px of white: large enough for tissue to be looked for."""
    return save_pyramid(tmp_path / "in" / "glass.tif", np.full((2100, 2200, 3), 245, np.uint8), mpp=0.5)


@pytest.fixture
def run(tmp_path: Path, model: Model, disk_engine: Any) -> Callable[..., list[SlideResult]]:
    def run(*slides: Any, formats: tuple[str, ...] = ("csv",), **options: Any) -> list[SlideResult]:
        return list(segment_slides(slides, tmp_path / "out", formats, model, engine=disk_engine, **options))

    return run


def log_of(result: SlideResult) -> str:
    return (result.path.parents[1] / "out" / f"{result.name}.log").read_text()


def test_all_formats_and_the_log(run: Callable[..., list[SlideResult]], slide: Path, tmp_path: Path) -> None:
    (result,) = run(slide, formats=tuple(EXPORTS), command="hemalum segment a.tif -o out")
    assert result.error is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["a.nuclei", "a.log", "summary.csv", "summary.jsonl", *("a" + ending for ending in EXPORTS.values())]
    )
    summary = result.summary
    assert summary is not None
    count = len(json.loads((tmp_path / "out" / "a.geojson").read_text())["features"])
    assert count == summary.count > 50
    assert len((tmp_path / "out" / "a.csv").read_text().splitlines()) == count + 1
    # a small image is tissue all over
    assert summary.area_mm2 == pytest.approx(300 * 400 * 0.5**2 / 1e6, rel=0.02)  # in px of the mask
    assert summary.per_mm2 == pytest.approx(count / summary.area_mm2)
    picture = tifffile.imread(slide)
    from PIL import Image

    assert np.array_equal(np.asarray(Image.open(result.files["thumbnail"]))[0, 0], picture[0, 0])
    lines = log_of(result).splitlines()
    assert "hemalum segment a.tif -o out" in lines[0]
    assert any('"mpp": 0.5' in line and '"engine": "disks f32"' in line for line in lines)
    assert any(f'result: {{"nuclei": {count}' in line for line in lines)
    assert f"{count} nuclei" in lines[-1]


def test_what_is_finished_is_not_done_again(
    run: Callable[..., list[SlideResult]], slide: Path, disk_engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (first,) = run(slide, formats=("csv", "geojson"))
    before = {name: path.stat().st_mtime_ns for name, path in first.files.items()}
    manifest = (first.store.path / "regions.parquet").stat().st_mtime_ns  # type: ignore[union-attr]
    first.files["geojson"].unlink()
    os.utime(first.files["csv"], ns=(manifest, manifest))  # as old as the store is not older
    with caplog.at_level(logging.INFO):
        (second,) = run(slide, formats=("csv", "geojson"))
    assert second.error is None
    assert second.files["csv"].stat().st_mtime_ns == manifest
    assert second.files["geojson"].stat().st_mtime_ns > before["geojson"]
    assert "is complete; nothing is left to segment" in caplog.text
    assert f"{second.files['csv']}: is there, and no older than the nuclei: kept" in caplog.text
    assert f"{second.files['geojson']}: is there" not in caplog.text
    assert log_of(first).count("a.csv: written in") == 1  # appended, and said once
    assert log_of(first).count("segment_slides") == 2


@pytest.mark.parametrize("name", ["geojson", "geojson.gz"])
def test_outlines_are_written_again_when_they_are_to_be_simplified_otherwise(
    run: Callable[..., list[SlideResult]], slide: Path, name: str
) -> None:
    sizes = []
    for simplify in (0.0, 0.5, 0.5, 0.0):
        (result,) = run(slide, formats=(name, "csv"), simplify=simplify)
        sizes.append(result.files[name].stat().st_size)
    assert sizes[1] == sizes[2] < 0.8 * sizes[0] == 0.8 * sizes[3]
    assert log_of(result).count(f"{result.files[name]}: written in") == 3
    assert log_of(result).count("a.csv: written in") == 1


def test_an_export_older_than_the_store_is_written_again(run: Callable[..., list[SlideResult]], slide: Path) -> None:
    (first,) = run(slide)
    text = first.files["csv"].read_text()
    first.files["csv"].write_text("old")
    os.utime(first.files["csv"], (0, 0))
    run(slide)
    assert first.files["csv"].read_text() == text


def test_a_run_that_was_stopped_goes_on(
    run: Callable[..., list[SlideResult]],
    tmp_path: Path,
    make_disks: Callable[..., NDArray[np.uint8]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "in").mkdir()
    path = save_pyramid(tmp_path / "in" / "b.tif", make_disks(300, 2400, 16, seed=3), mpp=0.5)
    (first,) = run(path, region=1024)
    assert first.store is not None
    regions = len(first.store.finished)
    assert regions > 1
    expected = first.files["csv"].read_text()
    first.store.part_path((0, 1)).unlink()
    with caplog.at_level(logging.INFO):
        (second,) = run(path, region=1024)
    assert f"{regions - 1} of {regions} regions are finished" in caplog.text
    assert second.files["csv"].read_text() == expected
    assert "ended by" not in log_of(second)


def test_a_broken_slide_is_named_and_the_rest_go_on(
    run: Callable[..., list[SlideResult]], slide: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "in" / "b.tif"
    broken.write_bytes(slide.read_bytes()[:-3000])
    no_slide = tmp_path / "in" / "c.svs"
    no_slide.write_text("no slide")
    results = run(broken, no_slide, tmp_path / "in" / "d.svs", slide)
    assert [result.error is None for result in results] == [False, False, False, True]
    assert str(results[0].error).startswith(f"{broken}: the file is truncated")
    assert "not a slide or an image that can be read" in str(results[1].error)
    assert results[2].error == f"{tmp_path / 'in' / 'd.svs'}: no such file"
    assert "ERROR ended by HemalumError" in log_of(results[0])
    assert not (tmp_path / "out" / "b.nuclei").exists()


def test_no_mpp(run: Callable[..., list[SlideResult]], slide: Path, tmp_path: Path) -> None:
    path = save_pyramid(tmp_path / "in" / "b.tif", tifffile.imread(slide), mpp=None)
    (result,) = run(path)
    assert str(result.error).startswith(f"{path}: the file states no scale, and that of a slide is not estimated")
    assert "`mpp`" in str(result.error)
    (result,) = run(path, mpp=0.5)
    assert result.error is None
    assert result.store is not None
    assert (result.store.run.mpp, result.store.run.mpp_source) == (0.5, "user")


def test_a_slide_knows_better_than_the_options(run: Callable[..., list[SlideResult]], slide: Path) -> None:
    one = SlideInput(slide, "one", mpp=0.4, stain="he", roi="0,0,200,300")
    results = run(one, SlideInput(slide, "two"), SlideInput(slide, "three", roi="200,0,200,300"), mpp=0.5)
    assert [result.store.run.mpp for result in results if result.store] == [0.4, 0.5, 0.5]
    assert [result.summary.area_of for result in results if result.summary] == [
        "tissue in roi",
        "tissue",
        "tissue in roi",
    ]
    assert results[0].store is not None
    assert results[0].store.run.settings["stain_source"] == "set"
    count = [result.summary.count for result in results if result.summary]
    assert 0 < count[2] < count[1]
    assert results[2].summary is not None
    assert results[2].summary.area_mm2 == pytest.approx(200 * 300 * 0.5**2 / 1e6)


def test_a_slide_has_a_channel_of_its_own(run: Callable[..., list[SlideResult]], slide: Path) -> None:
    other, plain = run(SlideInput(slide, "other", channel="DAPI"), SlideInput(slide, "plain"))
    assert other.error is not None
    assert "channel" in other.error
    assert plain.error is None


def test_glass_has_no_tissue_and_gives_valid_empty_results(
    run: Callable[..., list[SlideResult]], slide: Path, glass: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    formats = ("geojson", "geojson.gz", "csv", "parquet", "thumbnail", "spatialdata", "ome-zarr")
    (result,) = run(glass, formats=formats)
    assert result.error is None
    assert f"{glass}: no tissue is seen; without the tissue mask all of it is looked at" in caplog.text
    assert json.loads(result.files["geojson"].read_text())["features"] == []
    assert len(result.files["csv"].read_text().splitlines()) == 1
    assert result.summary is not None
    assert (result.summary.count, result.summary.area_mm2, result.summary.per_mm2) == (0, 0.0, None)
    assert result.row["warnings"] == "there is no tissue, or glass alone was looked at"
    (everywhere,) = run(SlideInput(glass, "all"), formats=formats, tissue_mask=False)
    assert everywhere.summary is not None
    assert (everywhere.summary.count, everywhere.summary.per_mm2, everywhere.summary.area_of) == (0, 0, "slide")


def test_a_tile_that_cannot_be_read_is_in_the_log(run: Callable[..., list[SlideResult]], slide: Path) -> None:
    offset, _ = tile_bytes(slide, 0, 3)
    overwrite(slide, offset, b"\xff" * 40)
    (result,) = run(slide)
    assert result.error is None
    assert "broken: level 0, x 192, y 0" in log_of(result)
    assert '"broken_tiles": 1' in log_of(result)


@pytest.mark.fault
@pytest.mark.parametrize("writer", ["write_part", "_write_csv"])
def test_a_full_disk_is_named_for_each_slide(
    run: Callable[..., list[SlideResult]], slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    import hemalum.nuclei.store.export as export
    import hemalum.nuclei.store.store as store
    from hemalum.files import atomic_path

    def full(*arguments: Any, **_: Any) -> None:
        path = next(argument for argument in arguments if isinstance(argument, Path))
        with atomic_path(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    module: Any = store if writer == "write_part" else export
    with monkeypatch.context() as patch:
        patch.setattr(module, writer, full)
        results = run(slide, SlideInput(slide, "next"))
    assert len(results) == 2
    for result in results:
        assert re.fullmatch(r"cannot write .*: No space left on device", result.error or "")
    assert "No space left" in (tmp_path / "out" / "summary.csv").read_text()
    (result,) = run(slide)
    assert result.error is None


def test_a_log_on_a_full_disk_does_not_end_the_run(
    run: Callable[..., list[SlideResult]], slide: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    from hemalum.inference import slide_log

    class Full:
        def write(self, _: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None: ...

    before = slide_log.SlideLog.__enter__

    def enter(log: slide_log.SlideLog) -> slide_log.SlideLog:
        before(log)._file = Full()  # type: ignore[assignment]
        return log

    monkeypatch.setattr(slide_log.SlideLog, "__enter__", enter)
    (result,) = run(slide)
    assert result.error is None
    assert "a.log: the log is not whole (No space left on device)" in caplog.text


def test_two_runs_into_one_folder(run: Callable[..., list[SlideResult]], slide: Path, tmp_path: Path) -> None:
    (first,) = run(slide)
    assert first.store is not None
    with hold(first.store):
        (second,) = run(slide)
    assert second.error == f"{tmp_path / 'out' / 'a.nuclei'}: another process is segmenting into it"


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"mpp": 0.6}, "mpp is 0.5 there, 0.6 here"),
        ({"roi": "0,0,100,100"}, "settings.roi is None there, POLYGON"),
        ({"region": 1024}, "grid.height is 1200.0 there, 300.0 here"),
        ({"tissue_mask": False}, "settings.tissue_mask is"),
    ],
)
def test_the_store_of_another_run_is_refused(
    run: Callable[..., list[SlideResult]], slide: Path, options: dict[str, Any], difference: str, tmp_path: Path
) -> None:
    run(slide)
    count = open_store(tmp_path / "out" / "a.nuclei").count
    (result,) = run(slide, **options)
    assert f"a.nuclei: holds the nuclei of another run ({difference}" in str(result.error)
    assert open_store(tmp_path / "out" / "a.nuclei").count == count


def test_the_store_of_another_model_is_refused(slide: Path, tmp_path: Path, model: Model, disk_engine: Any) -> None:
    other = Model(model.card.model_copy(update={"name": "others"}), {"weight": np.ones(3, np.float32)})
    for one, expected in ((model, ""), (other, "model is disks there, others here")):
        (result,) = segment_slides([slide], tmp_path / "out", ["csv"], one, engine=disk_engine)
        assert expected in str(result.error or "")
    assert result.error is not None


@pytest.mark.parametrize(
    ("formats", "options", "message"),
    [
        (("geojsn",), {}, "unknown format 'geojsn', did you mean 'geojson'?"),
        ((), {}, "no format is given; known: geojson, geojson.gz"),
        (("csv",), {"workers": 0}, "workers is 0: want 1 to "),
        (("csv",), {"workers": 10_000}, "workers is 10000: want 1 to "),
        (("csv",), {"mpp": 0.001}, "mpp 0.001 µm per px is out of range"),
        (("csv",), {"stain": "hdap"}, "unknown stain 'hdap'"),
        (("csv",), {"organ": "lung"}, "tells no organs apart: leave the organ out"),
    ],
)
def test_mistakes_are_named_before_anything_is_done(
    run: Callable[..., list[SlideResult]],
    slide: Path,
    tmp_path: Path,
    formats: tuple[str, ...],
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(HemalumError) as caught:
        run(slide, formats=formats, **options)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_progress_names_the_step(run: Callable[..., list[SlideResult]], slide: Path) -> None:
    seen: list[SlideProgress] = []
    run(slide, on_progress=seen.append)
    steps = [one.step for one in seen]
    assert list(dict.fromkeys(steps)) == ["segment", "csv"]
    assert seen[0].share == 0
    assert seen[0].area_mm2 == pytest.approx(0.03)
    last = [one for one in seen if one.step == "segment"][-1]
    assert last.share == 1


def test_the_scheduler_is_passed_on_when_it_is_set(
    run: Callable[..., list[SlideResult]], slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hemalum.inference.slide_batch as module

    asked: list[dict[str, Any]] = []

    def segment_slide(*_: Any, **options: Any) -> None:
        asked.append(options)
        raise HemalumError("asked")

    monkeypatch.setattr(module, "segment_slide", segment_slide)
    run(slide)
    run(slide, scheduler="tcp://head:8786")
    assert "scheduler" not in asked[0]
    assert asked[1]["scheduler"] == "tcp://head:8786"


def test_nuclei_of_an_odd_size_are_warned_of(
    run: Callable[..., list[SlideResult]], slide: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(slide, mpp=2.0)
    assert "but its nuclei look like about" in caplog.text


@pytest.mark.fault
def test_another_run_is_refused_and_replaced_where_asked(
    run: Callable[..., list[SlideResult]], slide: Path, tmp_path: Path
) -> None:
    (first,) = run(slide)
    (refused,) = run(slide, mpp=0.25)
    assert refused.error is not None
    assert "holds the nuclei of another run (mpp is 0.5 there, 0.25 here)" in refused.error
    assert refused.error.endswith("choose another folder, or `overwrite`")
    (tmp_path / "out" / "a.nuclei" / "thesis.tex").write_text("")
    (kept,) = run(slide, mpp=0.25, overwrite=True)
    assert kept.error is not None
    assert kept.error.endswith("a.nuclei: is not overwritten, as a file of yours is in it: thesis.tex")
    (tmp_path / "out" / "a.nuclei" / "thesis.tex").unlink()
    (again,) = run(slide, mpp=0.25, overwrite=True)
    assert again.error is None
    assert again.summary is not None
    assert first.summary is not None
    assert again.row["mpp"] == 0.25


def test_slides_of_sub_folders_are_laid_out_as_they_are(
    run: Callable[..., list[SlideResult]], slide: Path, tmp_path: Path
) -> None:
    (result,) = run(ImageInput(slide, "liver/case 1"))
    assert result.error is None
    assert result.name == "liver/case 1"
    assert result.store is not None
    assert result.store.path == tmp_path / "out" / "liver" / "case 1.nuclei"
    assert (tmp_path / "out" / "liver" / "case 1.log").is_file()
    assert "a.tif,liver/case 1,slide," in (tmp_path / "out" / "summary.csv").read_text()


@pytest.mark.fault
def test_a_filter_that_leaves_nothing_is_said(
    run: Callable[..., list[SlideResult]], slide: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (result,) = run(slide, keep={"min_area_um2": 1e6})
    assert result.error is None
    assert result.summary is not None
    assert result.summary.count == 0
    (line,) = [line for line in caplog.messages if "leaves none" in line]
    assert re.fullmatch(r".*a\.tif: the filter leaves none of \d+ nuclei", line)
    assert result.row["left_out_by_filter"] > 50
