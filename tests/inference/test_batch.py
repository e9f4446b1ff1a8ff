"""Folders of images: every good one gets its files, every bad one is named, nothing is overwritten."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from hemalum.errors import HemalumError
from hemalum.inference.batch import segment_paths
from hemalum.inference.inputs import FILE_SUFFIXES, FORMATS, find_images, stem
from hemalum.models.card import Card
from hemalum.models.model import Model


@pytest.fixture(scope="module")
def model(disk_card: Card) -> Model:
    return Model(disk_card, {})


@pytest.fixture
def folder(tmp_path: Path, make_disks: Callable[..., NDArray[np.uint8]]) -> Path:
    inside = tmp_path / "images"
    inside.mkdir()
    Image.fromarray(make_disks(120, 140, 16, seed=1)).save(inside / "a.png")
    tifffile.imwrite(inside / "b.ome.tif", make_disks(100, 90, 16, seed=2), photometric="rgb")
    (inside / "c.png").write_bytes(b"no image")
    (inside / "notes.txt").write_text("not an image, not looked at")
    return inside


def test_one_bad_file_among_many(folder: Path, tmp_path: Path, model: Model, disk_engine: Any) -> None:
    out = tmp_path / "out"
    results = list(segment_paths([folder], out, list(FORMATS), model, mpp=0.5, engine=disk_engine))
    assert [result.path.name for result in results] == ["a.png", "b.ome.tif", "c.png"]
    assert results[2].error == (
        f"{folder / 'c.png'}: not a slide or an image that can be read (docs/how-to/slides.md lists the formats)"
    )
    assert results[2].nuclei is None
    assert results[2].files == {}
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [name + ending for name in ("a", "b") for ending in FORMATS.values()] + ["summary.csv", "summary.jsonl"]
    )
    first = results[0].nuclei
    assert first is not None
    assert first.count > 10
    assert len(json.loads((out / "a.geojson").read_text())["features"]) == first.count
    with (out / "a.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == first.count
    labels = tifffile.imread(out / "a_labels.tif")
    assert (labels.dtype, labels.shape) == (np.uint16, (120, 140))
    assert np.array_equal(labels, first.label_map())
    assert np.asarray(Image.open(out / "a_overlay.png")).shape == (120, 140, 3)
    assert results[0].files["csv"] == out / "a.csv"


def test_simplified_outlines_of_a_batch(folder: Path, tmp_path: Path, model: Model, disk_engine: Any) -> None:
    def size(**options: Any) -> int:
        list(segment_paths([folder / "a.png"], tmp_path, ["geojson"], model, mpp=0.5, engine=disk_engine, **options))
        return (tmp_path / "a.geojson").stat().st_size

    small = size(simplify=0.5)
    with pytest.raises(
        HemalumError, match=r"results by other settings are there \(simplify is 0.5 there, None here\)"
    ):
        size()
    assert small < 0.8 * size(overwrite=True)


@pytest.mark.fault
def test_simplified_outlines_are_for_geojson(folder: Path, tmp_path: Path, model: Model, disk_engine: Any) -> None:
    with pytest.raises(HemalumError) as caught:
        segment_paths([folder], tmp_path / "out", ["csv", "labels"], model, engine=disk_engine, simplify=0.5)
    assert str(caught.value) == (
        "`simplify` is for geojson and geojson.gz; none of them is written (csv, labels): leave it out"
    )
    assert not (tmp_path / "out").exists()


def test_two_images_of_one_name_are_refused(folder: Path, tmp_path: Path, model: Model, disk_engine: Any) -> None:
    Image.open(folder / "a.png").save(folder / "A.jpg")
    with pytest.raises(HemalumError) as caught:
        segment_paths([folder], tmp_path / "out", ["csv"], model, engine=disk_engine)
    assert str(caught.value) == (
        f"{folder / 'A.jpg'} and {folder / 'a.png'} would both write {tmp_path / 'out' / 'a'}.*: "
        "rename one, or run them apart"
    )
    assert not (tmp_path / "out").exists()


def test_results_of_an_earlier_run_in_the_same_folder_are_no_images(
    folder: Path, model: Model, disk_engine: Any
) -> None:
    for _ in range(2):
        results = list(segment_paths([folder], folder, ["overlay", "labels"], model, mpp=0.5, engine=disk_engine))
        assert [result.path.name for result in results] == ["a.png", "b.ome.tif", "c.png"]


def test_an_image_given_twice_is_done_once(folder: Path, tmp_path: Path) -> None:
    (image,) = find_images([folder / "a.png", folder / ".." / "images" / "a.png"], tmp_path)
    assert image.path == folder / "a.png"


def test_stems() -> None:
    assert stem(Path("x/a.b.png")) == "a.b"
    assert stem(Path("x/slide.ome.tif")) == "slide"


@pytest.mark.parametrize(
    ("paths", "formats", "message"),
    [
        (["a.png"], ["geojso"], "unknown format 'geojso', did you mean 'geojson'?"),
        (["a.png"], [], "no format is given; known: geojson, csv, parquet, labels, overlay"),
        (["none.png"], ["csv"], "{folder}/none.png: no such file or folder"),
        ([], ["csv"], "no image is given"),
        (["empty"], ["csv"], "{folder}/empty: no images in this folder ({suffixes}, folders of OME-Zarr and DICOM)"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(
    folder: Path, tmp_path: Path, model: Model, disk_engine: Any, paths: list[str], formats: list[str], message: str
) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(HemalumError) as caught:
        segment_paths([folder / path for path in paths], tmp_path / "out", formats, model, engine=disk_engine)
    assert str(caught.value) == message.format(folder=folder, suffixes=", ".join(FILE_SUFFIXES))
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written(
    folder: Path, tmp_path: Path, model: Model, disk_engine: Any
) -> None:
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(HemalumError) as caught:
        segment_paths([folder], tmp_path / "out", ["csv"], model, engine=disk_engine)
    assert str(caught.value) == f"cannot write in {tmp_path / 'out'}: File exists"


@pytest.mark.fault
def test_a_full_disk_for_one_image_leaves_nothing_half_written_and_the_others_go_on(
    folder: Path, tmp_path: Path, model: Model, disk_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    import pyarrow.csv

    write = pyarrow.csv.write_csv

    def full(table: Any, stream: Any, options: Any) -> None:
        if table.column("image")[0].as_py() == "a.png":
            stream.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, stream, options)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pyarrow.csv, "write_csv", full)
        failed, done, _ = segment_paths([folder], out, ["csv"], model, mpp=0.5, engine=disk_engine)
    assert failed.error == f"cannot write {out / 'a.csv'}: No space left on device"
    assert done.error is None
    assert sorted(path.name for path in out.iterdir()) == ["b.csv", "summary.csv", "summary.jsonl"]
    again, kept, _ = segment_paths([folder], out, ["csv"], model, mpp=0.5, engine=disk_engine)
    assert (again.error, again.kept, kept.kept) == (None, False, True)


def test_progress_names_the_image(folder: Path, tmp_path: Path, model: Model, disk_engine: Any) -> None:
    seen: list[tuple[str, float]] = []
    results = segment_paths(
        [folder / "a.png"], tmp_path / "out", ["csv"], model, mpp=0.5, engine=disk_engine,
        on_progress=lambda path, share: seen.append((path.name, share)),
    )  # fmt: skip
    assert len(list(results)) == 1
    assert seen[-1] == ("a.png", 1.0)
