"""What a path holds for review: its images and items, and what it says where it holds none."""

import os
from pathlib import Path

import pytest
from PIL import Image

from builders.models import disks
from builders.reviews import disk_model, open_session, save_fields, save_slide
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.review.fields import cut_windows
from hemalum.review.sources import ImageGone, ImagePool, cut_items, id_of, open_source


def test_a_folder_of_images(tmp_path: Path) -> None:
    folder = save_fields(tmp_path / "in")
    (folder / "a" / "bad.png").write_text("no image")
    source = open_source(folder, tmp_path / "p", mpp=0.5)
    assert [(image.name, image.stratum, image.shape, image.mpp) for image in source.images] == [
        ("a/two.png", "a", (120, 120), 0.5),
        ("b/one.png", "b", (120, 120), 0.5),
    ]
    assert [failure.name for failure in source.failures] == ["a/bad.png"]
    assert "bad.png" in source.failures[0].message
    assert source.images[0].id == id_of("a/two.png") != id_of("b/one.png")
    alone = open_source(folder / "a" / "two.png", tmp_path / "p")
    assert [(image.name, image.mpp) for image in alone.images] == [("two.png", None)]
    with pytest.raises(HemalumError, match="no images in this folder"):
        open_source(folder, tmp_path / "p", recursive=False)


def test_what_lies_in_the_project_is_no_source(tmp_path: Path) -> None:
    folder = save_fields(tmp_path / "in")
    save_fields(folder / "in.review", ["three.png"])
    source = open_source(folder, folder / "in.review")
    assert [image.name for image in source.images] == ["a/two.png", "b/one.png"]


def test_images_of_a_dataset_know_their_organs(mini: Path, tmp_path: Path) -> None:
    rows = Dataset.open(mini).rows
    source = open_source(mini, tmp_path / "p")
    assert [(one.name, one.organ, one.group, one.mpp) for one in source.images] == [
        (row.id, row.organ, row.group, row.mpp) for row in rows
    ]
    assert [one.stratum for one in source.images] == [row.organ or "" for row in rows]


def test_segmented_slides_in_folders(tmp_path: Path) -> None:
    save_slide(tmp_path / "out")
    save_slide(tmp_path / "out" / "more", name="b")
    source = open_source(tmp_path / "out", tmp_path / "p")
    assert [(one.name, one.path.name, one.shape, one.mpp, one.is_slide) for one in source.images] == [
        ("a", "a.png", (300, 300), 0.5, True),
        ("more/b", "b.png", (300, 300), 0.5, True),
    ]
    flat = open_source(tmp_path / "out", tmp_path / "p", recursive=False)
    assert [one.name for one in flat.images] == ["a"]
    one = open_source(tmp_path / "out" / "a.nuclei", tmp_path / "p")
    assert [image.name for image in one.images] == ["a"]


def test_a_slide_is_looked_for_where_it_is_said_to_be(tmp_path: Path) -> None:
    out = save_slide(tmp_path / "out")
    (tmp_path / "slides").mkdir()
    (out / "a.png").rename(tmp_path / "slides" / "a.png")
    with pytest.raises(HemalumError, match=r"nothing to review: .*a\.nuclei: its slide a\.png is not beside it"):
        open_source(out, tmp_path / "p")
    for slide in (tmp_path / "slides", tmp_path / "slides" / "a.png"):
        source = open_source(out, tmp_path / "p", slide=slide)
        assert source.images[0].path == tmp_path / "slides" / "a.png"


def test_items_are_images_or_windows_of_them(tmp_path: Path) -> None:
    save_fields(tmp_path / "in", ["large.png"], side=130)
    image = open_source(tmp_path / "in", tmp_path / "p").images[0]
    assert [(item.id, item.name, item.window) for item in cut_items(image, 1024)] == [(image.id, "large.png", None)]
    windows = cut_items(image, 100)
    assert [item.window for item in windows] == cut_windows((130, 130), 100)
    assert windows[1].name == "large.png 65,0,65,65"
    assert windows[1].id == id_of(windows[1].name)
    small = open_source(save_slide(tmp_path / "out", (100, 100)), tmp_path / "p").images[0]
    assert [item.window for item in cut_items(small, 1024)] == [(0, 0, 100, 100)]  # one name for all of a slide


@pytest.mark.fault
def test_nothing_to_review(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(HemalumError, match=r"empty: no images in this folder \(\.png"):
        open_source(tmp_path / "empty", tmp_path / "p")
    with pytest.raises(HemalumError, match=r"nowhere: no such file or folder"):
        open_source(tmp_path / "nowhere", tmp_path / "p")
    (tmp_path / "empty" / "bad.png").write_text("no image")
    with pytest.raises(HemalumError, match=r"empty: nothing to review: .*bad\.png: not a slide or an image"):
        open_source(tmp_path / "empty", tmp_path / "p")


@pytest.mark.fault
def test_a_project_is_no_source(tmp_path: Path) -> None:
    open_session(save_fields(tmp_path / "in"), tmp_path / "in.review").close()
    with pytest.raises(HemalumError, match=r"in\.review: is the project of a review: go on with it by `project`"):
        open_session(tmp_path / "in.review", tmp_path / "p")


@pytest.mark.fault
def test_a_whole_slide_has_to_be_segmented_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_fields(tmp_path / "in", ["slide.png"])
    monkeypatch.setattr("hemalum.review.sources.is_whole_slide", lambda path: True)
    with pytest.raises(
        HemalumError, match=r"slide\.png: is a whole slide: segment it first \(hemalum segment .*OUT\)"
    ):
        open_source(tmp_path / "in", tmp_path / "p")


@pytest.mark.fault
def test_options_for_another_kind_of_source(tmp_path: Path, mini: Path) -> None:
    images, slides = save_fields(tmp_path / "in"), save_slide(tmp_path / "out")
    save_slide(slides, name="b")
    with pytest.raises(HemalumError, match="`slide` is for segmented slides, and these are images: leave it out"):
        open_source(images, tmp_path / "p", slide=tmp_path)
    with pytest.raises(HemalumError, match="`mpp` is for images; the scale of a segmented slide is that of its run"):
        open_source(slides, tmp_path / "p", mpp=0.5)
    with pytest.raises(HemalumError, match="`mpp` is for images; a dataset has the scale of each of its own"):
        open_source(mini, tmp_path / "p", mpp=0.5)
    with pytest.raises(HemalumError, match="holds 2 slides: name the folder of all of them by `slide`"):
        open_source(slides, tmp_path / "p", slide=slides / "a.png")


def test_open_images_are_shared_and_closed(tmp_path: Path) -> None:
    images = open_source(save_fields(tmp_path / "in"), tmp_path / "p").images
    pool = ImagePool(most=1)
    with pool.open(images[0]) as first, pool.open(images[0]) as again, pool.open(images[1]) as other:
        assert first is again
        assert other.shape == (120, 120)
    with pool.open(images[0]):
        assert len(pool._opened) == 1
    pool.close()
    assert not pool._opened


@pytest.mark.fault
def test_an_image_that_is_gone_or_another(tmp_path: Path) -> None:
    folder = save_fields(tmp_path / "in")
    image = open_source(folder, tmp_path / "p").images[0]
    pool = ImagePool()
    with pool.open(image) as slide:
        before = slide.read(0, 0, 10, 10)
    content = image.path.read_bytes()
    image.path.unlink()
    with (
        pytest.raises(ImageGone, match=r"two\.png: is gone \(No such file or directory\); put it back"),
        pool.open(image),
    ):
        pass
    Image.fromarray(disks(120, 120, 12, seed=5)).save(image.path)
    with pytest.raises(ImageGone, match=r"two\.png: is another image than the one under review"), pool.open(image):
        pass
    image.path.write_bytes(content)
    os.utime(image.path, ns=(1, 1))  # the same image, written anew
    with pool.open(image) as slide:
        assert (slide.read(0, 0, 10, 10) == before).all()


@pytest.mark.fault
def test_the_slide_of_another_store(tmp_path: Path) -> None:
    out = save_slide(tmp_path / "out")
    Image.fromarray(disks(300, 300, 12, seed=5)).save(out / "a.png")
    with open_session(out, tmp_path / "p", disk_model(), mpp=None) as session:
        image = next(iter(session.images))
        with pytest.raises(ImageGone, match="is another image than the one under review"), session.open_image(image):
            pass
