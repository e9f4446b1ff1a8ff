"""CryoNuSeg: a miniature of the archive and of the authors' case folders, and the real cases."""

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from hemalum.data.readers import READERS, cryonuseg
from hemalum.errors import HemalumError

NAMES = ("Human_AdrenalGland_01", "Human_Larynx_02", "Human_Testes_03")
AGAIN = "Annotator 1 (biologist second round of manual marks up)"
OTHER = "Annotator 2 (bioinformatician)"


def freehand(left: int, top: int, right: int, bottom: int) -> bytes:
    """A .roi file as ImageJ writes it: type 7, box, and the corners from the box's own corner."""
    head = struct.pack(">4shBBhhhhH", b"Iout", 227, 7, 0, top, left, bottom, right, 4).ljust(64, b"\0")
    width, height = right - left, bottom - top
    return head + struct.pack(">8h", 0, width, width, 0, 0, 0, height, height)


def roi_set(path: Path, boxes: list[tuple[int, int, int, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for left, top, right, bottom in boxes:
            archive.writestr(
                f"{(top + bottom) // 2:04d}-{(left + right) // 2:04d}.roi", freehand(left, top, right, bottom)
            )


def image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.random.default_rng(seed).integers(0, 256, (52, 52, 3), dtype=np.uint8))


@pytest.fixture
def archive(tmp_path: Path, grid_labels: np.ndarray) -> Path:
    """Images once, labels by three annotators, two of them in a folder within a folder of the same name."""
    root = tmp_path / "src"
    for seed, name in enumerate(NAMES):
        image(root / "tissue images" / f"{name}.tif", seed)
        for number, folder in enumerate(("Annotator 1 (biologist)", f"{AGAIN}/{AGAIN}", f"{OTHER}/{OTHER}")):
            truth = root / folder
            labels = np.where(grid_labels > number, grid_labels, 0).astype(np.uint16)
            for kind, suffix, pixels in (
                ("label masks modify", "tif", labels),
                ("label masks", "tif", labels * 2),
                ("mask binary", "png", ((labels > 0) * 255).astype(np.uint8)),
            ):
                file = truth / kind / f"{name}.{suffix}"
                file.parent.mkdir(parents=True, exist_ok=True)
                if suffix == "tif":
                    tifffile.imwrite(file, pixels)
                else:
                    Image.fromarray(pixels).save(file)
            roi_set(truth / "Imagj_zips" / f"{name}.zip", [(2, 2, 10, 9), (8, 5, 30, 40)])
            (truth / "distance maps").mkdir(exist_ok=True)
    return root


@pytest.mark.parametrize("below", [True, False])
def test_label_maps(archive: Path, grid_labels: np.ndarray, below: bool) -> None:
    samples = list(cryonuseg.read(archive if below else archive.parent))
    assert [(s.id, s.group, s.organ, s.stain, s.part) for s in samples] == [
        ("Human_AdrenalGland_01", "Human_AdrenalGland_01", "adrenal gland", "H&E", None),
        ("Human_Larynx_02", "Human_Larynx_02", "larynx", "H&E", None),
        ("Human_Testes_03", "Human_Testes_03", "testes", "H&E", None),
    ]
    for sample in samples:
        assert np.array_equal(sample.instances, grid_labels)
    assert READERS["cryonuseg"].mpp == 0.25


@pytest.mark.parametrize(("annotator", "nuclei"), [("1", 5), ("1-again", 4), ("2", 3)])
def test_annotators(archive: Path, annotator: str, nuclei: int) -> None:
    sample = next(cryonuseg.read(archive, annotator=annotator))
    assert np.unique(sample.instances).size == nuclei + 1


def test_variants(archive: Path, grid_labels: np.ndarray) -> None:
    assert np.array_equal(next(cryonuseg.read(archive, variant="label masks")).instances, grid_labels * 2)
    binary = next(cryonuseg.read(archive, variant="mask binary")).instances
    assert np.array_equal(binary > 0, grid_labels > 0)
    assert binary.max() == 5
    drawn = next(cryonuseg.read(archive, variant="rois")).instances
    expected = np.zeros((52, 52), np.int32)
    expected[5:40, 8:30] = 2  # the smaller has the overlap; ids go by the entries' names (row-column)
    expected[2:9, 2:10] = 1
    assert np.array_equal(drawn, expected)


def test_case_folders(tmp_path: Path) -> None:
    for seed, case in enumerate(("TCGA-DE-A4MA", "TCGA-S4-A8RO")):
        image(tmp_path / case / f"{case}-01A-01-TSA.F006C5F1-9982.tif", seed)
        roi_set(tmp_path / case / "RoiSet.zip", [(2, 2, 10, 9), (20, 20, 30, 30)][: seed + 1])
        (tmp_path / case / "Centroid.txt").write_text("X Y\n8383.2594 4079.449")
    first = next(cryonuseg.read(tmp_path))
    assert (first.id, first.group) == ("TCGA-DE-A4MA-01A-01-TSA.F006C5F1-9982", "TCGA-DE-A4MA")
    assert first.instances.sum() == 56
    image(tmp_path / "TCGA-DE-A4MA" / "other.tif", 5)
    with pytest.raises(HemalumError) as error:
        next(cryonuseg.read(tmp_path))
    assert str(error.value) == f"{tmp_path}/TCGA-DE-A4MA: holds 2 .tif files, want the one image of RoiSet.zip"


def test_faults(archive: Path, tmp_path: Path) -> None:
    truth = archive / "Annotator 1 (biologist)"

    def line(**options: Any) -> str:
        with pytest.raises(HemalumError) as error:
            list(cryonuseg.read(archive, **options))
        return str(error.value)

    assert line(annotator="3") == "annotator '3': choices are 1, 1-again, 2"
    assert line(variant="labels") == (
        f"{truth}/labels: no such folder of labels; there are Imagj_zips, distance maps, label masks, "
        "label masks modify, mask binary, and 'rois'"
    )
    (truth / f"Imagj_zips/{NAMES[0]}.zip").unlink()
    assert line(variant="rois") == f"{truth}: no {NAMES[0]}.zip in it; it holds the RoiSet of {NAMES[0]}.tif"
    file = truth / f"label masks modify/{NAMES[1]}.tif"
    tifffile.imwrite(file, np.zeros((50, 52), np.uint16))
    assert line() == f"{file}: label map is 52 x 50, its image 52 x 52"
    file.unlink()
    assert line() == f"{file}: missing; it holds the labels of {NAMES[1]}.tif"
    truth.rename(archive / "Annotator 9")
    assert line() == f"{truth}: no such annotator; there are {AGAIN}, {OTHER}, Annotator 9"
    (archive / "tissue images").rename(archive / "images")
    assert line() == f"{archive}: no 'tissue images'; want the unpacked CryoNuSeg archive"
    (archive / "TCGA-DE-A4MA.zip").touch()
    assert line().endswith("archive, or the cases as folders: unpack TCGA-DE-A4MA.zip and the others first")


def test_a_hostile_roi_set_is_one_line(archive: Path) -> None:
    file = archive / f"Annotator 1 (biologist)/Imagj_zips/{NAMES[0]}.zip"
    with zipfile.ZipFile(file, "a") as changed:
        changed.writestr("../../outside.roi", b"")
    with pytest.raises(HemalumError) as error:
        list(cryonuseg.read(archive, variant="rois"))
    assert str(error.value) == (
        f"{file}: entry '../../outside.roi' leads out of the archive; this is no RoiSet of ImageJ"
    )


def test_the_real_cases(real_data: Path, tmp_path: Path) -> None:
    cases = sorted((real_data / "original_layouts/cryonuseg").glob("TCGA-*.zip"))
    if not cases:
        pytest.skip("no CryoNuSeg items")
    counts = {}
    for case in cases:
        with zipfile.ZipFile(case) as packed:
            packed.extractall(tmp_path / case.stem)  # what a user does first
        with zipfile.ZipFile(tmp_path / case.stem / "RoiSet.zip") as rois:
            counts[case.stem] = len(rois.namelist())
    assert counts == {"TCGA-DE-A4MA": 59, "TCGA-S4-A8RO": 117}
    samples = {sample.group: sample for sample in cryonuseg.read(tmp_path)}
    assert samples["TCGA-DE-A4MA"].instances.max() == 59
    assert samples["TCGA-S4-A8RO"].instances.max() == 116  # two outlines cover the same pixels
    for case, sample in samples.items():
        picture = Image.open(next((tmp_path / case).glob("*.tif")))
        assert np.array_equal(sample.image, np.asarray(picture))
