"""A set given to the wrong reader is told whose it is: file names alone, as published, for every pair of formats."""

import pytest

from hemalum.data.formats import READERS, looks_like
from hemalum.data.importing import import_dataset
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
    "kvasir": [["images/cju0.jpg", "masks/cju0.jpg", "kavsir_bboxes.json"], ["Kvasir-SEG/images/cju0.jpg"]],
}
CASES = [
    pytest.param(name, files, id=f"{name}-{i}") for name, some in LAYOUTS.items() for i, files in enumerate(some)
]


@pytest.fixture
def lay_out(tmp_path):
    def lay_out(files):
        for file in files:
            (tmp_path / "src" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "src" / file).touch()
        return tmp_path / "src"

    return lay_out


@pytest.mark.parametrize(("name", "files"), CASES)
def test_each_layout_looks_like_its_own_format_only(lay_out, name, files):
    assert looks_like(lay_out(files)) == [name]


@pytest.mark.parametrize(("name", "files"), CASES)
def test_every_other_reader_says_so(lay_out, tmp_path, name, files):
    src = lay_out(files)
    for other in READERS:
        if other == name or READERS[other].read is READERS[name].read:
            continue
        with pytest.raises(HemalumError) as error:
            import_dataset(other, src, tmp_path / "set")
        assert str(error.value).endswith(f"; it looks like format '{name}'"), f"{other}: {error.value}"
        assert "\n" not in str(error.value)
    assert not (tmp_path / "set").exists()


def test_every_public_format_has_a_layout_here():
    assert {name for name, reader in READERS.items() if reader.markers} <= set(LAYOUTS)
