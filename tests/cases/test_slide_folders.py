"""A folder takes whatever a reader can open, and names what looks like an image and is passed over."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from builders.other_user import open_folder, require_other_user, run_as
from builders.slides import draw_picture, save_ome_zarr, save_pyramid, save_svs
from hemalum.errors import HemalumError
from hemalum.inference.inputs import find_images, find_inputs
from hemalum.slides import images_in
from hemalum.slides.folder import FILE_SUFFIXES, FOREIGN

pytestmark = pytest.mark.fault

PICTURE = draw_picture(64, 80)
DICOM = bytes(128) + b"DICM"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "name",
    ["a.png", "a.PNG", "a.jpg", "a.JPEG", "a.bmp", "a.tif", "a.TIFF", "a.webp", "a.jp2", "a.gif", "a.ppm", "a.jfif"],
)
def test_a_picture_is_taken(folder: Path, tmp_path: Path, name: str) -> None:
    Image.fromarray(PICTURE).save(folder / name)
    assert [one.path for one in find_images([folder], tmp_path / "out")] == [folder / name]


def test_a_folder_takes_what_is_opened_when_it_is_named(folder: Path, tmp_path: Path) -> None:
    """JPEG XR, which Pillow does not know, and a picture beyond the size at which Pillow refuses."""
    imagecodecs = pytest.importorskip("imagecodecs")
    (folder / "a.wdp").write_bytes(imagecodecs.jpegxr_encode(PICTURE))
    (folder / "b.ppm").write_bytes(b"P6\n20000 20000\n255\n" + PICTURE.tobytes())
    (folder / "c.pbm").write_bytes(b"P4\n8 2\n\x0f\xf0")
    files = sorted(folder.iterdir())
    assert [one.path for one in find_images([folder], tmp_path / "out")] == files
    for file in files:
        assert [one.path for one in find_images([file], tmp_path / "out")] == [file]


def test_no_ending_that_is_taken_is_listed_as_foreign() -> None:
    assert not set(FOREIGN) & set(FILE_SUFFIXES)


def test_a_file_is_known_by_how_it_begins(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(folder / "field", format="PNG")
    save_pyramid(folder / "slide.lsm", PICTURE)
    (folder / "IM000001").write_bytes(DICOM)
    assert images_in(folder) == [folder / "IM000001", folder / "field", folder / "slide.lsm"]


def test_images_and_slides_may_be_mixed(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(folder / "a.webp")
    save_svs(folder / "b.svs", PICTURE)
    save_ome_zarr(folder / "c.zarr", PICTURE)
    (folder / "d").mkdir()
    (folder / "d" / "1.dcm").write_bytes(DICOM)
    images, slides = find_inputs([folder], tmp_path / "out")
    assert [one.path.name for one in images] == ["a.webp"]
    assert [one.path.name for one in slides] == ["b.svs", "c.zarr", "d"]


def test_what_cannot_be_opened_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(PICTURE).save(folder / "a.png")
    for name in ("b.VSI", "c.nd2", "d.isyntax"):
        (folder / name).write_bytes(b"of another program")
    with caplog.at_level(logging.WARNING):
        assert images_in(folder) == [folder / "a.png"]
    assert caplog.messages == [
        f"{folder}: passed over, as no reader opens it: b.VSI, c.nd2, d.isyntax "
        "(docs/how-to/slides.md lists the formats)"
    ]
    for number in range(3):
        (folder / f"e{number}.heic").touch()
    caplog.clear()
    images_in(folder)
    assert "d.isyntax, e0.heic, e1.heic and 1 more (docs/" in caplog.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"text"),
        ("index.csv", b"image,label\n"),
        ("a.geojson", b"{}"),
        ("a.xml", b"<?xml version='1.0'?><Annotations/>"),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        ("film.mpg", b"\x00\x00\x01\xb3\x16\x00\xf0\xc4"),
        ("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"),
        ("report.pdf", b"%PDF-1.7\n"),
        ("archive.zip", b"PK\x03\x04"),
        ("table.hdf5", b"\x89HDF\r\n\x1a\n"),
        (".hidden.png", b""),
    ],
)
def test_what_is_no_image_is_passed_over_in_silence(
    folder: Path, caplog: pytest.LogCaptureFixture, name: str, content: bytes
) -> None:
    (folder / name).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert images_in(folder) == []
    assert caplog.messages == []


def test_the_files_of_a_hamamatsu_slide_are_no_images(folder: Path) -> None:
    (folder / "s.vms").write_text(
        "[Virtual Microscope Specimen]\r\nImageFile=s.jpg\r\nImageFile(1,0)=s(1,0).jpg\r\nMapFile=s_map2.jpg\r\n"
    )
    for name in ("s.jpg", "s(1,0).jpg", "s_map2.jpg", "other.jpg"):
        Image.fromarray(PICTURE).save(folder / name)
    assert images_in(folder) == [folder / "other.jpg"]


def test_a_folder_of_folders_names_those_with_images(folder: Path, tmp_path: Path) -> None:
    for name in ("p1", "p2", "empty"):
        (folder / name).mkdir()
    for name in ("p1", "p2"):
        Image.fromarray(PICTURE).save(folder / name / "a.png")
    with pytest.raises(HemalumError, match=r"OME-Zarr and DICOM\); its folders p1, p2 hold some: name them$"):
        find_images([folder], tmp_path / "out", recursive=False)


@pytest.fixture
def shared() -> Iterator[Path]:
    yield from open_folder()


@pytest.mark.skipif(os.name != "posix", reason="users of POSIX")
def test_a_folder_within_that_cannot_be_read_is_passed_over(shared: Path) -> None:
    require_other_user()
    (shared / "lost+found").mkdir(mode=0o700)
    Image.fromarray(PICTURE).save(shared / "a.png")
    (shared / "a.png").chmod(0o644)
    code = "from pathlib import Path\nfrom hemalum.slides import images_in\nprint(*images_in(Path('.')))"
    assert run_as(["-c", code], {}, cwd=shared) == ("a.png\n", "")
