"""Label files by name: which belongs to which image, in `import`, `check` and `evaluate` alike."""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from builders.labels import field, make_source, photograph, save
from hemalum.data import LABEL_ENDINGS
from hemalum.data.check import check_dataset
from hemalum.data.image import IMAGE_SUFFIXES
from hemalum.data.importing import import_dataset
from hemalum.data.label_files import apart, join_labels
from hemalum.data.readers import folder
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.experiments.label_maps import LabelMaps

pytestmark = pytest.mark.fault

NAMES = [
    "{}.png",
    "{}_masks.png",
    "{}_cp_masks.tif",
    "{}-labels.tif",
    "{}_Labels.ome.tif",
    "{}.labels.png",
    "{} labels.png",
    "{}_seg.tif",
    "{}_instances.npy",
    "{}_inst.png",
    "{}_inst_map.npy",
    "{}_label_map.tif",
    "{}_GT.png",
    "{}_ground_truth.tif",
    "{}_annotation.png",
    "{}_nuclei.tif",
    "{}-lbl.tif",
    "{}-labelled.png",
    "{}_Object Identities.tif",
    "{}.png_mask.png",
    "{}.tif.png",
    "{}.jpg-labels.tif",
    "{}_mask.tif.png",
    "mask_{}.png",
    "label-{}.tif",
    "gt_{}.png",
    "Mask of {}.tif",
    "Count Masks of {}.tif",
    "{}.mat",
    "{}.bmp",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_way_to_name_labels_joins(tmp_path: Path, name: str) -> None:
    fields = [field(seed=number) for number in range(2)]
    for number, labels in enumerate(fields):
        save(tmp_path / "images" / f"f{number}.png", photograph(labels))
        save(tmp_path / "labels" / name.format(f"f{number}"), labels.astype(np.uint8))
    for sample, labels in zip(folder.read(tmp_path), fields, strict=True):
        np.testing.assert_array_equal(sample.instances, labels)
    assert not [problem for problem in check_dataset(tmp_path) if problem.level == "error"]
    maps = LabelMaps(tmp_path / "labels")
    maps.check(["f0", "f1"])
    image = photograph(fields[1])
    np.testing.assert_array_equal(maps(Sample(image, fields[1], id="f1", source="f1", group="f1")), fields[1])


SAME = [
    ("Zürich 1", unicodedata.normalize("NFD", "Zürich 1") + "_masks"),
    (unicodedata.normalize("NFD", "é"), "é"),
    ("Case1", "case1"),
    ("case1", "CASE1_Labels"),
    ("case 1", "case  1 "),
    ("case 1", "case\u00a01"),
    ("case 1", "case_1"),
    ("case-1", "case_1-labels"),
    ("case 1", "case%201"),
    ("ｃａｓｅ", "case"),
    ("f0_img", "f0_masks"),
    ("f0.ome", "f0"),
    ("f0_masks", "f0_masks"),
    ("f0_HE", "f0_labels"),
]


@pytest.mark.parametrize(("image", "label"), SAME)
def test_names_that_a_person_cannot_tell_apart(image: str, label: str) -> None:
    path = Path(f"{label}.png")
    assert join_labels([path], [image, "another"]).by_image == {image: [path]}


def test_a_name_that_fits_two_images_belongs_to_neither(tmp_path: Path, error_line: Callable[..., str]) -> None:
    for name in ("case 1", "case-1"):
        save(tmp_path / "images" / f"{name}.png", photograph(field()))
    save(tmp_path / "labels" / "case_1.png", field().astype(np.uint8))
    assert error_line(lambda: list(folder.read(tmp_path))) == (
        f"{tmp_path}/labels/case_1.png: fits the images case 1 and case-1 as well; join them in index.csv"
    )


def test_the_exact_name_comes_before_the_same_to_a_person() -> None:
    files = [Path("Case.png"), Path("case.png")]
    assert join_labels(files, ["case", "Case"]).by_image == {"case": [files[1]], "Case": [files[0]]}
    assert join_labels([Path("a_masks.png")], ["a", "a_masks"]).by_image == {"a_masks": [Path("a_masks.png")]}


def test_images_and_labels_in_one_folder(tmp_path: Path) -> None:
    for root, images in (("flat", "flat"), ("within", "within/images")):
        for number in range(2):
            labels = field(seed=number)
            save(tmp_path / images / f"f{number}.png", photograph(labels))
            save(tmp_path / images / f"f{number}_cp_masks.png", labels.astype(np.uint16))
        samples = list(folder.read(tmp_path / root))
        assert [sample.id for sample in samples] == ["f0", "f1"]
        np.testing.assert_array_equal(samples[1].instances, field(seed=1))


BESIDE = ["f0_flows.tif", "f0_cp_outlines.png", "f0_outlines_cp_masks.png", "f0_cp_output.png", "f0_seg.npy"]


@pytest.mark.parametrize("where", [".", "labels"])
def test_what_programs_write_beside_masks_is_named(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / ("images" if where == "labels" else ".") / "f0.png", photograph(field()))
    save(tmp_path / where / "f0_cp_masks.png", field().astype(np.uint16))
    for name in BESIDE:
        save(tmp_path / where / name, photograph(field()))
    (sample,) = folder.read(tmp_path)
    np.testing.assert_array_equal(sample.instances, field())
    (line,) = caplog.messages
    assert ": not read, since nearer label files are there: f0_seg.npy, f0_cp_outlines.png, " in line


def test_a_label_file_beside_a_nearer_one_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_source(tmp_path, ["{}.png", "{}_masks.png"])
    assert len(list(folder.read(tmp_path))) == 2
    assert f"{tmp_path}/labels: not read, since nearer label files are there: f0.png, f1.png" in caplog.messages


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("f0x.png", "labels/f0x.png: no image named f0x.* in {root}/images; f0.png nearly fits: rename one of them, "
         "or join them in index.csv"),
        ("zebra_masks.png", "labels/zebra_masks.png: no image named zebra.* in {root}/images"),
        ("f0.gif", "images/f0.png: no label file named f0.* in {root}/labels; f0.gif is of no format that is read "
         f"({', '.join(LABEL_ENDINGS)})"),
    ],
)  # fmt: skip
def test_what_joins_nothing(tmp_path: Path, label: str, message: str, error_line: Callable[..., str]) -> None:
    make_source(tmp_path, [], count=1)
    (tmp_path / "labels").mkdir()
    save(tmp_path / "labels" / label, field().astype(np.uint8))
    assert error_line(lambda: list(folder.read(tmp_path))) == f"{tmp_path}/{message.format(root=tmp_path)}"


def test_two_label_files_for_one_image(tmp_path: Path, error_line: Callable[..., str]) -> None:
    make_source(tmp_path, ["{}_masks.png", "{}_labels.png"], count=1)
    assert error_line(lambda: list(folder.read(tmp_path))) == (
        f"{tmp_path}/labels/f0_masks.png: a second label map for image f0, beside f0_labels.png; keep one"
    )


def test_a_folder_of_another_name_is_named(tmp_path: Path, error_line: Callable[..., str]) -> None:
    make_source(tmp_path, ["{}.png"])
    (tmp_path / "labels").rename(tmp_path / "masks")
    assert error_line(lambda: list(folder.read(tmp_path))) == (
        f"{tmp_path}/labels: no such folder; want images/ and labels/, or an index.csv; "
        "there is masks/ (`labels` masks)"
    )


@pytest.mark.parametrize("name", ["{}.tif", "{}.npy", "{}_classes.tif", "{}_type_map.png", "{}_masks.png"])
def test_class_maps_in_every_format(tmp_path: Path, name: str) -> None:
    fields = make_source(tmp_path, ["{}_masks.png"])
    for number, labels in enumerate(fields):
        classes = np.where(labels > 0, 1 + labels % 2, 0).astype(np.uint8)
        save(tmp_path / "classes" / name.format(f"f{number}"), classes)
    dataset = import_dataset("folder", tmp_path, tmp_path / "out", mpp=0.5, class_names="a,b")
    assert dataset.info.classes == {1: "a", 2: "b"}
    for sample in dataset:
        assert sample.classes is not None
        ids = np.unique(sample.instances)[1:]
        assert sample.classes[ids].tolist() == (1 + ids % 2).tolist()


def test_a_missing_class_map_is_named(tmp_path: Path, error_line: Callable[..., str]) -> None:
    (labels, _) = make_source(tmp_path, ["{}.png"])
    save(tmp_path / "classes" / "f0.tif", (labels > 0).astype(np.uint8))
    assert error_line(lambda: list(folder.read(tmp_path))) == (
        f"{tmp_path}/classes/f1.png: missing; classes/ must have a class map for every image"
    )


def looks(name: str) -> str:
    return re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", name).casefold()).strip("_")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text("aeéüßıＡ１234 _-.", min_size=1, max_size=8), min_size=1, max_size=4, unique_by=looks),
    st.sampled_from(NAMES),
    st.sampled_from(["NFC", "NFD", "NFKC"]),
)
def test_labels_named_after_images_join_them(names: list[str], pattern: str, form: str) -> None:
    """Whatever images are called, in whatever form the labels' names are stored: each joins its own."""
    assume(all(looks(name) and not name.startswith(".") for name in names))
    files = {name: Path(unicodedata.normalize(form, pattern.format(name))) for name in names}
    assert join_labels(files.values(), names).by_image == {name: [file] for name, file in files.items()}


def test_what_is_an_image_stays_one(tmp_path: Path) -> None:
    """No picture is lost to its neighbors where all lie in one folder."""
    for name in ("a.png", "b_masks.png", "nuclei_1.png", "nuclei_1_masks.png", "c.jpg", "c_seg.tif", "d_overlay.png"):
        (tmp_path / name).write_bytes(b"")
    images, labels = apart(tmp_path)
    assert [path.name for path in images] == ["a.png", "b_masks.png", "c.jpg", "d_overlay.png", "nuclei_1.png"]
    assert [path.name for path in labels] == ["c_seg.tif", "nuclei_1_masks.png"]
    assert all(path.suffix in IMAGE_SUFFIXES for path in images)


def test_evaluate_names_files_of_no_image(tmp_path: Path) -> None:
    save(tmp_path / "x.png", field().astype(np.uint8))
    with pytest.raises(HemalumError, match=r"no file belongs to any of 1 image; .* 'q', files like 'x'"):
        LabelMaps(tmp_path).check(["q"])
