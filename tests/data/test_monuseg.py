"""MoNuSeg: a miniature of both archives, faults as one change each, and the real item."""

import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from hemalum.data.importing import import_dataset
from hemalum.data.readers import monuseg
from hemalum.errors import HemalumError

TRAIN = ("TCGA-A7-A13E-01Z-00-DX1", "TCGA-B0-5710-01Z-00-DX1", "TCGA-G9-6336-01Z-00-DX1", "TCGA-XX-0000-01Z-00-DX1")
TEST = ("TCGA-2Z-A9J9-01A-01-TS1", "TCGA-HT-8564-01Z-00-DX1")


def annotations(corners: list[tuple[int, int]], scale: str = "0.252000") -> str:
    regions = "".join(
        f'<Region Id="{number}" Type="0" NegativeROA="0"><Vertices>'
        + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in [(x, y), (x + 8, y), (x + 8, y + 6), (x, y + 6)])
        + "</Vertices></Region>"
        for number, (x, y) in enumerate(corners, start=1)
    )
    inner = f'<Annotation Id="1"><Regions>{regions}</Regions></Annotation>'
    return f'<Annotations MicronsPerPixel="{scale}">{inner}</Annotations>'


def put(image: Path, xml: Path, seed: int, **options: str) -> None:
    for file in (image, xml):
        file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    tifffile.imwrite(image, pixels)
    xml.write_text(annotations([(2, 3), (20, 10), (57, 37)], **options))  # the third is cut by the image's corner


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    training = tmp_path / "src" / "MoNuSeg 2018 Training Data" / "MoNuSeg 2018 Training Data"
    for seed, name in enumerate(TRAIN):
        put(training / "Tissue Images" / f"{name}.tif", training / "Annotations" / f"{name}.xml", seed)
    for seed, name in enumerate(TEST, start=10):
        folder = tmp_path / "src" / "MoNuSegTestData"
        put(folder / f"{name}.tif", folder / f"{name}.xml", seed)
    return tmp_path / "src"


def test_both_archives(archive: Path) -> None:
    samples = list(monuseg.read(archive))
    assert [(s.id, s.group, s.organ, s.part) for s in samples] == [
        (TEST[0], "2Z-A9J9", "kidney", "test"),
        (TRAIN[0], "A7-A13E", "breast", "train"),
        (TRAIN[1], "B0-5710", "kidney", "train"),
        (TRAIN[2], "G9-6336", "prostate", "train"),
        (TEST[1], "HT-8564", "brain", "test"),
        (TRAIN[3], "XX-0000", None, "train"),
    ]
    expected = np.zeros((40, 60), np.int32)
    expected[3:9, 2:10] = 1
    expected[10:16, 20:28] = 2
    expected[37:, 57:] = 3
    for sample in samples:
        assert np.array_equal(sample.instances, expected)
        assert (sample.mpp, sample.mpp_source, sample.stain) == (0.252, "file", "H&E")


@pytest.mark.parametrize(
    ("below", "parts"),
    [
        ("MoNuSegTestData", ["test", "test"]),
        ("MoNuSeg 2018 Training Data/MoNuSeg 2018 Training Data", ["train"] * 4),
    ],
)
def test_one_archive(archive: Path, below: str, parts: list[str]) -> None:
    assert [sample.part for sample in monuseg.read(archive / below)] == parts


def test_files_side_by_side_are_of_no_known_part(archive: Path, tmp_path: Path) -> None:
    shutil.copytree(archive / "MoNuSegTestData", tmp_path / "mine")
    (sample, _) = monuseg.read(tmp_path / "mine")
    assert sample.part is None


def test_hidden_files_are_passed_over(archive: Path) -> None:
    (archive / "MoNuSegTestData" / f"._{TEST[0]}.xml").write_bytes(b"\0\5\x16\7")
    extra = archive / "__MACOSX" / "MoNuSegTestData"
    extra.mkdir(parents=True)
    (extra / f"{TEST[0]}.xml").write_bytes(b"\0")
    assert len(list(monuseg.read(archive))) == 6


@pytest.mark.parametrize("scale", ["0.000000", "1.0", "0.5"])
def test_a_scale_that_contradicts_the_publication_is_not_taken(archive: Path, tmp_path: Path, scale: str) -> None:
    for file in archive.rglob("*.xml"):
        file.write_text(annotations([(2, 3)], scale))
    assert next(monuseg.read(archive)).mpp is None
    dataset = import_dataset("monuseg", archive, tmp_path / "set")
    assert (dataset.info.mpp, dataset.info.mpp_source) == (0.25, "published")


def test_the_published_split_is_taken(archive: Path, tmp_path: Path) -> None:
    dataset = import_dataset("monuseg", archive, tmp_path / "set")
    assert sorted(row.id for row in dataset.rows if row.split == "test") == sorted(TEST)
    assert dataset.info.split.counts == {"train": 3, "val": 1, "test": 2}
    assert dataset.info.split.published


def test_faults(archive: Path, tmp_path: Path) -> None:
    test = archive / "MoNuSegTestData"
    training = archive / "MoNuSeg 2018 Training Data" / "MoNuSeg 2018 Training Data"

    def line() -> str:
        with pytest.raises(HemalumError) as error:
            list(monuseg.read(archive))
        return str(error.value)

    (training / "Annotations" / f"{TRAIN[0]}.xml").rename(tmp_path / "aside.xml")
    image = training / "Tissue Images" / f"{TRAIN[0]}.tif"
    assert line() == f"{training}/Annotations/{TRAIN[0]}.xml: missing; it annotates {image}"
    image.unlink()
    (test / f"{TEST[0]}.xml").rename(tmp_path / "aside2.xml")
    assert line() == f"{test}/{TEST[0]}.xml: missing; it annotates {test}/{TEST[0]}.tif"
    (tmp_path / "aside2.xml").rename(test / f"{TEST[0]}.xml")
    (test / f"{TEST[0]}.tif").unlink()
    assert line() == f"{test}/{TEST[0]}.xml: its image {TEST[0]}.tif is missing"
    put(test / f"{TEST[0]}.tif", test / f"{TEST[0]}.xml", 0)
    (test / f"{TEST[0]}.xml").write_text(annotations([(2, 3), (400, 10)]))
    assert line() == (
        f"{test}/{TEST[0]}.xml: Region 2 reaches from (400, 10) to (408, 16), over 100 px outside the image of "
        "60 x 40; do the two belong together?"
    )
    with pytest.raises(HemalumError) as error:
        list(monuseg.read(tmp_path / "nowhere"))
    assert str(error.value) == (
        f"{tmp_path}/nowhere: no .xml annotations; want the unpacked 'MoNuSeg 2018 Training Data' or "
        "'MoNuSegTestData'"
    )


@pytest.mark.fault
def test_an_image_in_both_archives(archive: Path, tmp_path: Path) -> None:
    test = archive / "MoNuSegTestData"
    put(test / f"{TRAIN[0]}.tif", test / f"{TRAIN[0]}.xml", 0)
    with pytest.raises(HemalumError, match=f"the id '{TRAIN[0]}' occurs more than once; name the images apart"):
        import_dataset("monuseg", archive, tmp_path / "set")


def test_the_real_item(real_data: Path) -> None:
    folder = real_data / "original_layouts" / "monuseg"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    samples = list(monuseg.read(folder))
    assert len(samples) == len(list(folder.glob("*.xml")))
    for sample in samples:
        regions = list(ElementTree.parse(folder / f"{sample.id}.xml").iter("Region"))
        assert sample.instances.max() == len(regions)
        assert np.array_equal(sample.image, np.asarray(Image.open(folder / f"{sample.id}.tif")))
        assert (sample.organ, sample.group, sample.mpp) == ("kidney", "B0-5710", 0.252)
