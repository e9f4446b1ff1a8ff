"""A set given to the wrong reader is told whose it is: file names alone, as published, for every pair of formats."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hemalum.data.importing import import_dataset
from hemalum.data.readers import READERS, looks_like
from hemalum.errors import HemalumError

TCGA = "TCGA-A7-A13E-01Z-00-DX1"
MAT = f"Labels/{TCGA}.mat"
HASH = "0a7d30b252359a10fd298b638b90cb9ada3acced4e0c0e5a3692013f432ee4e9"
LAYOUTS = {
    "folder": [["images/a.png", "labels/a.png", "index.csv"], ["images/a.tif", "labels/a.tif"]],
    "ihc-pairs": [["he/roi_1.png", "ihc/roi_1.png", "index.csv"], ["he/roi_1.tif", "ihc/roi_1.tif"]],
    "dsb2018": [
        [f"stage1_train/{HASH}/images/{HASH}.png", f"stage1_train/{HASH}/masks/{HASH}.png"],
        [f"{HASH}/images/{HASH}.png", f"{HASH}/masks/{HASH}.png"],
    ],
    "tnbc": [
        ["Slide_01/01_1.png", "GT_01/01_1.png"],
        ["TNBC_NucleiSegmentation/Slide_01/01_1.png", "TNBC_NucleiSegmentation/GT_01/01_1.png"],
        ["TNBC_and_Brain_dataset/Slide_12/12_1.png", "TNBC_and_Brain_dataset/GT_12/12_1.png"],
    ],
    "nuinsseg": [
        [f"{root}human bladder/{kind}" for kind in ("tissue images/a.png", "mask binary/a.png", "Imagej_zips/a.zip")]
        for root in ("", "NuInsSeg/")
    ],
    "lizard": [["Lizard_Images1/consep_1.png", "Lizard_Labels/Labels/consep_1.mat", "Lizard_Labels/info.csv"]],
    "conic": [["images.npy", "labels.npy", "counts.csv", "patch_info.csv"]],
    "pannuke": [
        ["Fold 1/images/fold1/images.npy", "Fold 1/images/fold1/types.npy", "Fold 1/masks/fold1/masks.npy"],
        ["images/0_00408.png", "labels/0_00408.npy", "cell_count.csv", "types.csv"],
    ],
    "consep": [["Train/Images/train_1.png", "Train/Labels/train_1.mat", "Test/Labels/test_1.mat"]],
    "kumar": [
        [f"{part}/{kind}" for part in ("train", "test_same", "test_diff") for kind in (f"Images/{TCGA}.tif", MAT)]
    ],
    "monuseg": [
        [f"MoNuSeg 2018 Training Data/{kind}" for kind in (f"Tissue Images/{TCGA}.tif", f"Annotations/{TCGA}.xml")],
        [f"MoNuSegTestData/{TCGA}.tif", f"MoNuSegTestData/{TCGA}.xml"],
        [f"{TCGA}.tif", f"{TCGA}.xml"],
    ],
    "cryonuseg": [
        ["tissue images/Human_Skin_01.tif", "Annotator 1 (biologist)/label masks modify/Human_Skin_01.tif"],
        ["TCGA-DE-A4MA/RoiSet.zip", "TCGA-DE-A4MA/TCGA-DE-A4MA-01A-01-TSA.tif"],
    ],
    "etis": [["ETIS-LaribPolypDB/1.tif", "Ground Truth/p1.tif"]],
    "colondb": [["1.tiff", "p1.tiff", "s1.tiff", "c1.tiff"], ["CVC-ColonDB/1.bmp", "CVC-ColonDB/p1.bmp"]],
    "clinicdb": [
        ["Original/1.tif", "Ground Truth/1.tif"],
        ["PNG/Original/1.png", "PNG/Ground Truth/1.png", "metadata.csv"],
    ],
    "combined": [["one/dataset.yaml", "one/index.csv", "two/dataset.yaml", "two/index.csv"]],
    "kvasir": [["images/cju0.jpg", "masks/cju0.jpg", "kavsir_bboxes.json"], ["Kvasir-SEG/images/cju0.jpg"]],
}
CASES = [
    pytest.param(name, files, id=f"{name}-{i}") for name, some in LAYOUTS.items() for i, files in enumerate(some)
]


@pytest.fixture
def lay_out(tmp_path: Path) -> Callable[[list[str]], Path]:
    def lay_out(files: list[str]) -> Path:
        for file in files:
            (tmp_path / "src" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "src" / file).touch()
        return tmp_path / "src"

    return lay_out


@pytest.mark.parametrize(("name", "files"), CASES)
def test_each_layout_looks_like_its_own_format_only(
    lay_out: Callable[[list[str]], Path], name: str, files: list[str]
) -> None:
    assert looks_like(lay_out(files)) == [name]


@pytest.mark.parametrize(("name", "files"), CASES)
def test_every_other_reader_says_so(
    lay_out: Callable[[list[str]], Path], tmp_path: Path, name: str, files: list[str]
) -> None:
    src = lay_out(files)
    for other in READERS:
        if other == name or READERS[other].read is READERS[name].read:
            continue
        with pytest.raises(HemalumError) as error:
            import_dataset(other, src, tmp_path / "set")
        assert str(error.value).endswith(f"; it looks like format '{name}'"), f"{other}: {error.value}"
        assert "\n" not in str(error.value)
    assert not (tmp_path / "set").exists()


def test_every_public_format_has_a_layout_here() -> None:
    missing = sorted({name for name, reader in READERS.items() if reader.markers} - set(LAYOUTS))
    assert not missing, f"give {', '.join(missing)} a row in LAYOUTS: the names of its files, as published"


@pytest.mark.fault
def test_the_error_says_which_format_it_looks_like(tmp_path: Path, error_line: Callable[..., str]) -> None:
    (tmp_path / "test_same" / "Labels").mkdir(parents=True)
    (tmp_path / "lizard_labels" / "Lizard_Labels").mkdir(parents=True)
    line = error_line(lambda: import_dataset("consep", tmp_path, tmp_path / "set"))
    assert line == (
        f"{tmp_path}: no Train/Images and no Test/Images; want the unpacked CoNSeP archive; "
        "it looks like format 'lizard' or 'kumar'"
    )
    assert not (tmp_path / "set").exists()


@pytest.mark.fault
def test_the_right_format_is_not_contradicted(tmp_path: Path, error_line: Callable[..., str]) -> None:
    (tmp_path / "test_same" / "Labels").mkdir(parents=True)
    assert "looks like" not in error_line(lambda: import_dataset("kumar", tmp_path, tmp_path / "set"))


@pytest.mark.parametrize("name", [name for name in READERS if READERS[name].markers])
def test_every_marker_is_found(tmp_path: Path, name: str) -> None:
    for number, marker in enumerate(READERS[name].markers):
        root = tmp_path / str(number)
        (root / re.sub(r"\[(.)[^]]*]", r"\1", marker).replace("*", "1")).mkdir(parents=True)
        assert name in looks_like(root)
    assert looks_like(tmp_path / "nothing") == []
