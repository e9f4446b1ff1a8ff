"""The `folder` reader: what users have, and everything they can get wrong."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hemalum.data.importing import import_dataset
from hemalum.data.readers import folder
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError


def read(path: Path, **options: Any) -> list[Sample]:
    return list(folder.read(path, **options))


def test_index_joins_and_describes(make_folder: Callable[..., Path], grid_labels: np.ndarray) -> None:
    root = make_folder(4)
    samples = read(root, group="patient")
    assert [sample.id for sample in samples] == ["tile_0", "tile_1", "tile_2", "tile_3"]
    assert [sample.group for sample in samples] == ["p0", "p0", "p1", "p1"]
    assert all(sample.mpp == 0.5 and sample.mpp_source == "file" for sample in samples)
    assert np.array_equal(samples[2].image, np.asarray(Image.open(root / "images/tile_2.png")))
    assert np.array_equal(samples[2].instances, grid_labels)


def test_stems_join_without_an_index(make_folder: Callable[..., Path]) -> None:
    root = make_folder(3, index=False)
    (root / "labels/notes.txt").write_text("not an image: ignored")
    Image.open(root / "images/tile_1.png").save(root / "images/tile_1.jpg")
    (root / "images/tile_1.png").unlink()
    samples = read(root)
    assert [(sample.id, sample.group, sample.mpp) for sample in samples] == [
        ("tile_0", "tile_0", None),
        ("tile_1", "tile_1", None),
        ("tile_2", "tile_2", None),
    ]


def test_other_folder_names_and_paths_from_the_root(make_folder: Callable[..., Path]) -> None:
    root = make_folder(2)
    shutil.move(root / "labels", root / "truth")
    (root / "my.csv").write_text("image,label,group,organ,stain,source\nimages/tile_0.png,tile_0.png,g,lung,H&E,s1\n")
    (sample,) = read(root, labels="truth", index="my.csv")
    assert (sample.group, sample.organ, sample.stain, sample.source) == ("g", "lung", "H&E", "s1")


@pytest.mark.parametrize("value", [1, 255])
def test_binary_masks_become_components_and_the_log_says_so(
    make_folder: Callable[..., Path], grid_labels: np.ndarray, caplog: pytest.LogCaptureFixture, value: int
) -> None:
    caplog.set_level(logging.WARNING)
    root = make_folder(2)
    mask = (grid_labels > 0).astype(np.uint8) * value
    mask[0, 0] = mask[1, 1] = value  # touch at a corner: one piece with 8 neighbors
    Image.fromarray(mask).save(root / "labels/tile_1.png")
    merged, split = read(root)
    assert split.instances.max() == 6
    for number in range(1, 6):
        ids = np.unique(split.instances[grid_labels == number])
        assert ids.size == 1
        assert np.array_equal(split.instances == ids[0], grid_labels == number)
    assert np.array_equal(merged.instances, grid_labels)
    assert "1 of 2 label files are binary masks; their connected components became the nuclei" in caplog.text


def test_label_maps_are_not_taken_for_masks(
    make_folder: Callable[..., Path], grid_labels: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_folder(2)
    Image.fromarray((grid_labels == 1).astype(np.uint8)).save(root / "labels/tile_0.png")  # a single nucleus
    Image.fromarray(np.zeros((52, 52), np.uint8)).save(root / "labels/tile_1.png")  # none
    one, none = read(root)
    assert (one.instances.max(), none.instances.max()) == (1, 0)
    assert "binary" not in caplog.text


def test_class_maps(make_folder: Callable[..., Path], grid_labels: np.ndarray) -> None:
    root = make_folder(1, index=False)
    class_ids = np.array([0, 3, 1, 1, 2, 4], np.uint8)
    (root / "types").mkdir()
    Image.fromarray(class_ids[grid_labels]).save(root / "types/tile_0.png")
    (sample,) = read(root)
    assert sample.classes.tolist() == class_ids.tolist()


@pytest.mark.fault
def test_class_names(
    make_folder: Callable[..., Path],
    grid_labels: np.ndarray,
    tmp_path: Path,
    error_line: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = make_folder(2, index=False)
    (root / "types").mkdir()
    for number in range(2):
        class_ids = np.array([0, 3, 1, 1, 2, 0], np.uint8)
        Image.fromarray(class_ids[grid_labels]).save(root / f"types/tile_{number}.png")
    list(read(root))
    assert "class maps without names" in caplog.text
    for class_names in ("lymphocyte, epithelial,other", ["lymphocyte", "epithelial", "other"]):
        dataset = import_dataset("folder", root, tmp_path / "set", class_names=class_names, overwrite=True)
        assert dataset.info.classes == {1: "lymphocyte", 2: "epithelial", 3: "other"}
    by_id = {3: "other", 1: "lymphocyte", 2: "epithelial"}
    assert import_dataset("folder", root, tmp_path / "by", class_names=by_id).info.classes == dataset.info.classes
    assert error_line(lambda: list(read(root, class_names="a,b"))).endswith(
        "types/tile_0.png: class 3 has no name; named are 1 a, 2 b"
    )
    assert error_line(lambda: list(read(root, class_names="a,,b"))) == (
        "class_names 'a, , b': want different names in the order of the ids, from 1"
    )
    assert "ids are 0 to 1, must be 1 to 255" in error_line(lambda: list(read(root, class_names={0: "a", 1: "b"})))
    plain = make_folder(1, index=False, name="plain")
    assert error_line(lambda: list(read(plain, class_names="a,b"))) == (
        f"{plain}: class_names without class maps; want a folder classes or types"
    )


def _image_missing(root: Path) -> None:
    (root / "images/tile_1.png").unlink()


def _label_missing(root: Path) -> None:
    (root / "labels/tile_1.png").unlink()


def _label_empty(root: Path) -> None:
    (root / "index.csv").write_text("image,label\ntile_0.png,tile_0.png\ntile_1.png,\n")


def _no_column(root: Path) -> None:
    (root / "index.csv").write_text("picture,label\ntile_0.png,tile_0.png\n")


def _no_rows(root: Path) -> None:
    (root / "index.csv").write_text("image,label\n")


def _twice(root: Path) -> None:
    (root / "index.csv").write_text("image,label\ntile_0.png,tile_0.png\ntile_0.png,tile_1.png\n")


def _bad_mpp(root: Path) -> None:
    (root / "index.csv").write_text("image,label,mpp\ntile_0.png,tile_0.png,40x\n")


def _no_group(root: Path) -> None:
    (root / "index.csv").write_text("image,label,group\ntile_0.png,tile_0.png,\n")


def _not_text(root: Path) -> None:
    (root / "index.csv").write_bytes(b"image,label\n\x81\x8d.png,a.png\n")


def _other_size(root: Path) -> None:
    Image.fromarray(np.ones((52, 40), np.uint8)).save(root / "labels/tile_1.png")


def _not_an_image(root: Path) -> None:
    (root / "images/tile_1.png").write_text("text")


def _no_class_map(root: Path) -> None:
    (root / "types").mkdir()


def _class_size(root: Path) -> None:
    (root / "types").mkdir()
    for number in range(3):
        Image.fromarray(np.ones((52, 40), np.uint8)).save(root / f"types/tile_{number}.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            _image_missing,
            "{root}/index.csv, row 3: image 'tile_1.png' is neither in {root}/images nor in {root}, "
            "did you mean 'tile_2.png' or 'tile_0.png'?",
        ),
        (
            _label_missing,
            "{root}/index.csv, row 3: label 'tile_1.png' is neither in {root}/labels nor in {root}, "
            "did you mean 'tile_2.png' or 'tile_0.png'?",
        ),
        (_label_empty, "{root}/index.csv, row 3: label is empty"),
        (
            _no_column,
            "{root}/index.csv: column 'image' is missing; want at least image,label; its first row is picture, label",
        ),
        (_no_rows, "{root}/index.csv: no images"),
        (_twice, "{root}: the id 'tile_0' occurs 2 times; name the images apart"),
        (_bad_mpp, "{root}/index.csv, row 2: mpp is '40x', not a number"),
        (_no_group, "{root}/index.csv, row 2: group is empty; a split goes by it"),
        (_other_size, "{root}/labels/tile_1.png: label map is 40 x 52, its image 52 x 52"),
        (
            _not_an_image,
            "{root}/images/tile_1.png: not an image that can be read (PNG, JPEG, BMP, TIFF, WebP, JPEG 2000, "
            "JPEG XR)",
        ),
        (_no_class_map, "{root}/types/tile_0.png: missing; types/ must have a class map for every image"),
        (_class_size, "{root}/types/tile_0.png: class map is 40 x 52, its image 52 x 52"),
    ],
)
def test_faults_with_an_index(
    make_folder: Callable[..., Path], spoil: Callable[[Path], object], message: str
) -> None:
    root = make_folder(3)
    spoil(root)
    with pytest.raises(HemalumError) as error:
        read(root)
    assert str(error.value) == message.format(root=root)


@pytest.mark.fault
def test_an_index_that_is_no_text(make_folder: Callable[..., Path]) -> None:
    root = make_folder(1)
    _not_text(root)
    with pytest.raises(HemalumError, match=r"index\.csv: is neither UTF-8 nor Windows-1252; save it as UTF-8$"):
        read(root)


def _no_labels_folder(root: Path) -> None:
    shutil.rmtree(root / "labels")


def _no_images(root: Path) -> None:
    for kind in ("images", "labels"):
        for file in (root / kind).iterdir():
            file.unlink()


def _same_stem(root: Path) -> None:
    shutil.copy(root / "images/tile_1.png", root / "images/tile_1.jpg")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_image_missing, "{root}/labels/tile_1.png: no image named tile_1.* in {root}/images"),
        (_label_missing, "{root}/images/tile_1.png: no label file named tile_1.* in {root}/labels"),
        (_no_labels_folder, "{root}/labels: no such folder; want images/ and labels/, or an index.csv"),
        (_no_images, "{root}/images: no images"),
        (_same_stem, "{root}/images/tile_1.png: tile_1.jpg has the same stem; keep one of them"),
    ],
)
def test_faults_without_an_index(
    make_folder: Callable[..., Path], spoil: Callable[[Path], object], message: str
) -> None:
    root = make_folder(3, index=False)
    spoil(root)
    with pytest.raises(HemalumError) as error:
        read(root)
    assert str(error.value) == message.format(root=root)


@pytest.mark.fault
def test_faults_of_the_options(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(1)
    with pytest.raises(HemalumError, match="no column 'organ' to group by; columns are image, label, patient, mpp"):
        read(root, group="organ")
    with pytest.raises(HemalumError, match=r"other\.csv: no such index"):
        read(root, index="other.csv")
    with pytest.raises(HemalumError, match="nowhere: no such folder"):
        read(tmp_path / "nowhere")


def test_survey_names_every_fault(make_folder: Callable[..., Path]) -> None:
    root = make_folder(4, index=False)
    (root / "images/tile_1.png").unlink()
    (root / "labels/tile_3.png").unlink()
    pairs, faults = folder.survey(root)
    assert [pair.id for pair in pairs] == ["tile_0", "tile_2"]
    assert len(faults) == 2


@pytest.mark.parametrize("name", ["tnbc", "nuinsseg_human", "dsb2018", "consep_train"])
def test_real_folders(real_data: Path, name: str) -> None:
    """The first images agree with the counts of the index, which another program wrote."""
    import csv

    with (real_data / name / "index.csv").open() as stream:
        counts = [int(line["nuclei"]) for line in csv.DictReader(stream)]
    for sample, count in zip(folder.read(real_data / name), counts[:6], strict=False):
        assert np.unique(sample.instances[sample.instances > 0]).size == count
        assert (sample.classes is not None) == (name == "consep_train")
