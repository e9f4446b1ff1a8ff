"""Slides are found in folders as images are; what belongs to a slide, or to an earlier run, is none."""

import logging
import shutil
from pathlib import Path

import pytest
from PIL import Image

from builders.slides import draw_picture, save_ome_zarr, save_pyramid, save_svs
from hemalum.errors import HemalumError
from hemalum.inference.inputs import ImageInput, find_images, find_inputs, stem

PICTURE = draw_picture(80, 100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(PICTURE).save(folder / "a.png")
    save_svs(folder / "b.SVS", PICTURE)
    save_ome_zarr(folder / "c.ome.zarr", PICTURE)
    save_pyramid(folder / "d.tif", PICTURE)
    (folder / "e.mrxs").write_bytes(b"\xff\xd8 a slide of MIRAX stands beside the folder of its pixels")
    (folder / "e").mkdir()
    (folder / "e" / "Slidedat.ini").write_text("[GENERAL]")
    (folder / "e" / "Data0000.dat").write_bytes(b"pixels")
    (folder / "f").mkdir()
    (folder / "f" / "1.dcm").write_bytes(bytes(128) + b"DICM")
    (folder / "more").mkdir()
    Image.fromarray(PICTURE).save(folder / "more" / "deeper.png")
    (folder / "g.nuclei" / "parts").mkdir(parents=True)
    (folder / "notes.csv").write_text("no image")
    return folder


def names(inputs: list[ImageInput]) -> list[str]:
    return [one.path.name for one in inputs]


def test_a_folder_of_slides_and_images(folder: Path, tmp_path: Path) -> None:
    inputs = find_images([folder], tmp_path / "out", recursive=False)
    assert names(inputs) == ["a.png", "b.SVS", "c.ome.zarr", "d.tif", "e.mrxs", "f"]
    assert [one.name for one in inputs] == ["a", "b", "c", "d", "e", "f"]
    images, slides = find_inputs([folder], tmp_path / "out")
    assert names(images) == ["a.png", "deeper.png"]
    assert [one.name for one in images] == ["a", "more/deeper"]
    assert names(slides) == ["b.SVS", "c.ome.zarr", "d.tif", "e.mrxs", "f"]


def test_a_folder_that_is_a_slide(folder: Path, tmp_path: Path) -> None:
    for name in ("c.ome.zarr", "f"):
        assert [one.path for one in find_images([folder / name], tmp_path)] == [folder / name]


@pytest.mark.fault
def test_a_dicom_slide_beside_images_is_not_guessed(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "b.SVS", folder / "f" / "x.svs")
    with pytest.raises(HemalumError, match=r"f: holds a DICOM slide beside x\.svs; name the files that are meant$"):
        find_images([folder / "f"], tmp_path)


@pytest.mark.fault
def test_the_data_of_a_mirax_slide_are_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"in/e: no images in this folder \(\.png, .*\.svs, .* OME-Zarr and DICOM"):
        find_images([folder / "e"], tmp_path)


def test_results_in_the_same_folder_are_no_slides(folder: Path, tmp_path: Path) -> None:
    before = names(find_images([folder], folder))
    save_ome_zarr(folder / "c_labels.ome.zarr", PICTURE)
    save_ome_zarr(folder / "c.spatialdata.zarr", PICTURE)
    Image.fromarray(PICTURE).save(folder / "c_thumbnail.png")
    assert names(find_images([folder], folder)) == before
    assert len(find_images([folder], tmp_path / "out")) == len(before) + 3


@pytest.mark.fault
def test_a_slide_and_an_image_of_one_name(folder: Path, tmp_path: Path) -> None:
    paths = [folder / "a.png", folder / "A.svs"]
    (folder / "A.svs").write_bytes(b"")
    with pytest.raises(HemalumError, match=r"a\.png and .*A\.svs would both write .*A\.\*: rename one"):
        find_images(paths, tmp_path)


def test_sorting_says_nothing_yet(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        find_inputs([folder / "e.mrxs", folder / "d.tif"], tmp_path)
        assert caplog.records == []
        logging.getLogger("hemalum.test").info("but the log is on again")
    assert len(caplog.records) == 1


def test_the_last_number_of_a_dicom_id_is_no_ending() -> None:
    assert stem("x/1.2.840.10008") == "1.2.840.10008"
    assert stem("x/1.2.840.10008.dcm") == "1.2.840.10008"
    assert stem("x/a.ome.zarr") == "a"
