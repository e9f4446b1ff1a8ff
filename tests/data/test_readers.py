"""Readers of published layouts, on miniatures with the same names, layout and dtypes, and on real items."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from hemalum.data.readers import READERS, dsb2018, nuinsseg, tnbc
from hemalum.errors import HemalumError


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


# --- 2018 Data Science Bowl


@pytest.fixture
def dsb_archive(tmp_path: Path, grid_labels: np.ndarray) -> Path:
    """stage1_train/<id>/images/<id>.png (RGBA) and masks/<hash>.png (0/255), one for each nucleus."""
    for number, name in enumerate(["0a7d", "b1f6"]):
        folder = tmp_path / "stage1_train" / name
        rgba = np.dstack([noise((52, 52), number), np.full((52, 52), 255, np.uint8)])
        save(folder / "images" / f"{name}.png", rgba)
        for nucleus in range(1, 6 - number):
            mask = (grid_labels == nucleus).astype(np.uint8) * 255
            save(folder / "masks" / f"{9 - nucleus:02x}c{nucleus}.png", mask)
    return tmp_path


@pytest.mark.parametrize("below", ["", "stage1_train"])
def test_dsb_masks_become_instances(dsb_archive: Path, grid_labels: np.ndarray, below: str) -> None:
    first, second = dsb2018.read(dsb_archive / below)
    assert (first.id, second.id) == ("0a7d", "b1f6")
    assert np.array_equal(first.image, noise((52, 52), 0))
    # masks are numbered by file name, which runs against the number of the disc here
    assert np.array_equal(first.instances, np.array([0, 5, 4, 3, 2, 1])[grid_labels])
    assert second.instances.max() == 4


def test_dsb_overlap_stays_with_the_first_and_empty_masks_go(
    dsb_archive: Path, grid_labels: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    masks = dsb_archive / "stage1_train/0a7d/masks"
    save(masks / "zz.png", ((grid_labels == 1) * 255).astype(np.uint8))
    save(masks / "aa.png", np.zeros((52, 52), np.uint8))
    first = next(dsb2018.read(dsb_archive))
    assert np.array_equal(first.instances > 0, grid_labels > 0)
    assert first.instances.max() == 5
    assert f"{int((grid_labels == 1).sum())} pixels in two masks stay with the first; 2 masks left" in caplog.text


@pytest.mark.parametrize(
    ("color", "stain"), [((10, 10, 10), "grey-fluo"), ((200, 200, 200), "grey-bright"), ((180, 90, 200), "colour")]
)
def test_dsb_stain_is_told_by_color(color: tuple[int, int, int], stain: str) -> None:
    assert dsb2018.stain_of(np.full((8, 8, 3), color, np.uint8)) == stain


@pytest.mark.fault
def test_dsb_faults(dsb_archive: Path, tmp_path: Path) -> None:
    masks = dsb_archive / "stage1_train/0a7d/masks"
    save(masks / "00.png", np.zeros((52, 50), np.uint8))
    with pytest.raises(HemalumError, match=r"00\.png: mask is 50 x 52, its image 52 x 52"):
        list(dsb2018.read(dsb_archive))
    for file in masks.iterdir():
        file.unlink()
    with pytest.raises(HemalumError, match=r"0a7d/masks: no masks; the test sets have none"):
        list(dsb2018.read(dsb_archive))
    save(dsb_archive / "stage1_train/0a7d/images/other.png", noise((8, 8)))
    with pytest.raises(HemalumError, match=r"0a7d/images: holds 2 files, want the one image"):
        list(dsb2018.read(dsb_archive))
    with pytest.raises(HemalumError, match="no <id>/images folders; want the layout of stage1_train"):
        list(dsb2018.read(tmp_path / "stage1_train/0a7d"))


def test_dsb_real_items_against_an_independent_parse(real_data: Path) -> None:
    root = real_data / "original_layouts" / "dsb2018"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    samples = list(dsb2018.read(root))
    assert len(samples) == len(list((root / "stage1_train").iterdir()))
    for sample in samples:
        files = sorted((root / "stage1_train" / sample.id / "masks").iterdir())
        areas = [int((np.asarray(Image.open(file)) > 0).sum()) for file in files]
        assert sample.instances.max() == len(files)
        assert np.bincount(sample.instances.ravel())[1:].tolist() == areas
        picture = Image.open(root / "stage1_train" / sample.id / "images" / f"{sample.id}.png")
        assert np.array_equal(sample.image, np.asarray(picture)[..., :3])


def test_dsb_stains_of_the_real_set(real_data: Path) -> None:
    import csv

    with (real_data / "dsb2018" / "index.csv").open() as stream:
        lines = list(csv.DictReader(stream))[::20]
    for line in lines:
        image = np.asarray(Image.open(real_data / "dsb2018/images" / line["image"]).convert("RGB"))
        assert dsb2018.stain_of(image) == line["stain"]


# --- TNBC


@pytest.fixture
def tnbc_archive(tmp_path: Path, grid_labels: np.ndarray) -> Path:
    """Slide_XX/XX_Y.png (RGBA in the archive) and GT_XX/XX_Y.png (8-bit 0/255)."""
    root = tmp_path / "TNBC_NucleiSegmentation"
    for patient, count in (("01", 2), ("11", 1)):
        for number in range(1, count + 1):
            rgba = np.dstack([noise((52, 52), number), np.full((52, 52), 255, np.uint8)])
            save(root / f"Slide_{patient}/{patient}_{number}.png", rgba)
            save(root / f"GT_{patient}/{patient}_{number}.png", ((grid_labels > 0) * 255).astype(np.uint8))
    return tmp_path


@pytest.mark.parametrize("below", ["", "TNBC_NucleiSegmentation"])
def test_tnbc(tnbc_archive: Path, grid_labels: np.ndarray, below: str) -> None:
    samples = list(tnbc.read(tnbc_archive / below))
    assert [(s.id, s.group, s.organ, s.stain) for s in samples] == [
        ("01_1", "01", "breast", "H&E"),
        ("01_2", "01", "breast", "H&E"),
        ("11_1", "11", "breast", "H&E"),
    ]
    assert np.array_equal(samples[0].instances > 0, grid_labels > 0)
    assert samples[0].instances.max() == 5
    assert READERS["tnbc"].mpp == 0.25


def test_tnbc_label_maps_are_kept(tnbc_archive: Path, grid_labels: np.ndarray) -> None:
    save(tnbc_archive / "TNBC_NucleiSegmentation/GT_01/01_1.png", (grid_labels * 3).astype(np.uint8))
    assert np.array_equal(next(tnbc.read(tnbc_archive)).instances, grid_labels * 3)


@pytest.mark.fault
def test_tnbc_faults(tnbc_archive: Path, tmp_path: Path) -> None:
    root = tnbc_archive / "TNBC_NucleiSegmentation"
    save(root / "GT_01/01_1.png", np.zeros((5, 52), np.uint8))
    with pytest.raises(HemalumError, match=r"GT_01/01_1\.png: mask is 52 x 5, its image 52 x 52"):
        list(tnbc.read(root))
    (root / "GT_01/01_1.png").unlink()
    with pytest.raises(HemalumError, match=r"GT_01/01_1\.png: missing; it is the mask of .*Slide_01/01_1\.png"):
        list(tnbc.read(root))
    for file in (root / "Slide_01").iterdir():
        file.unlink()
    with pytest.raises(HemalumError, match="Slide_01: no images"):
        list(tnbc.read(root))
    (root / "GT_01").rename(root / "truth")
    with pytest.raises(HemalumError, match="GT_01: missing; it holds the masks of Slide_01"):
        list(tnbc.read(root))
    with pytest.raises(HemalumError, match="no Slide_XX folders; want the unpacked TNBC archive"):
        list(tnbc.read(tmp_path / "nowhere"))


def test_tnbc_components_of_the_real_masks_are_the_nuclei(real_data: Path, tmp_path: Path) -> None:
    """The set's label maps, flattened to masks as published, come back nucleus by nucleus."""
    names = ["01_1", "03_2", "07_1"]
    for name in names:
        patient = name[:2]
        labels = np.asarray(Image.open(real_data / f"tnbc/labels/{name}.png"))
        save(tmp_path / f"GT_{patient}/{name}.png", ((labels > 0) * 255).astype(np.uint8))
        save(tmp_path / f"Slide_{patient}/{name}.png", noise(labels.shape))
    for name, sample in zip(names, tnbc.read(tmp_path), strict=True):
        labels = np.asarray(Image.open(real_data / f"tnbc/labels/{name}.png"))
        pairs = np.unique(np.stack([labels.ravel(), sample.instances.ravel()]), axis=1)
        assert pairs.shape[1] == labels.max() + 1 == sample.instances.max() + 1


# --- NuInsSeg


@pytest.fixture
def nuinsseg_archive(tmp_path: Path, grid_labels: np.ndarray) -> Path:
    """A folder for each organ, with the sub-folders of the archive that are read, and two that are not."""
    overlapping = grid_labels.copy()
    overlapping[12, 12:15] = 6
    for organ, count in (
        ("human bladder", 2),
        ("human salivory gland", 1),
        ("mouse fat (white and brown)_subscapula", 1),
    ):
        for number in range(1, count + 1):
            stem = f"{organ.replace(' ', '_')}_{number:02d}"
            folder = tmp_path / organ
            save(folder / "tissue images" / f"{stem}.png", noise((52, 52), number))
            save(folder / "label masks modify" / f"{stem}.tif", grid_labels.astype(np.uint16))
            save(folder / "label masks" / f"{stem}.tif", overlapping.astype(np.uint16))
            save(folder / "mask binary" / f"{stem}.png", ((grid_labels > 0) * 255).astype(np.uint8))
            vague = np.zeros((52, 52), np.uint8)
            vague[:10] = 255
            save(folder / "vague areas" / "mask binary" / f"{stem}.png", vague)
            (folder / "Imagej_zips").mkdir(exist_ok=True)
            (folder / "distance maps").mkdir(exist_ok=True)
    return tmp_path


def test_nuinsseg(nuinsseg_archive: Path, grid_labels: np.ndarray) -> None:
    samples = list(nuinsseg.read(nuinsseg_archive))
    assert [(s.id, s.group, s.organ) for s in samples] == [
        ("human_bladder_01", "human bladder", "human bladder"),
        ("human_bladder_02", "human bladder", "human bladder"),
        ("human_salivory_gland_01", "human salivory gland", "human salivory gland"),
        (
            "mouse_fat_(white_and_brown)_subscapula_01",
            "mouse fat (white and brown)_subscapula",
            "mouse fat (white and brown)_subscapula",
        ),
    ]
    assert all(np.array_equal(sample.instances, grid_labels) for sample in samples)
    assert samples[0].ambiguous[:10].all()
    assert not samples[0].ambiguous[10:].any()


def test_nuinsseg_keeps_species_apart(
    nuinsseg_archive: Path, grid_labels: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    """The two livers of the archive are two organs, and each species can be had alone."""
    for species in ("human", "mouse"):
        folder, stem = nuinsseg_archive / f"{species} liver", f"{species}_liver_01"
        save(folder / "tissue images" / f"{stem}.png", noise((52, 52), len(species)))
        save(folder / "label masks modify" / f"{stem}.tif", grid_labels.astype(np.uint16))
    livers = {sample.organ for sample in nuinsseg.read(nuinsseg_archive) if "liver" in sample.id}
    assert livers == {"human liver", "mouse liver"}
    assert "6 images of both species, the publication has 665" in caplog.text
    assert {str(sample.organ).split()[0] for sample in nuinsseg.read(nuinsseg_archive, species="human")} == {"human"}
    assert "4 images of species human, the publication has 472" in caplog.text


def test_nuinsseg_options(nuinsseg_archive: Path, grid_labels: np.ndarray) -> None:
    assert len(list(nuinsseg.read(nuinsseg_archive, species="human"))) == 3
    assert len(list(nuinsseg.read(nuinsseg_archive, species="mouse"))) == 1
    assert next(nuinsseg.read(nuinsseg_archive, variant="label masks")).instances.max() == 6
    binary = next(nuinsseg.read(nuinsseg_archive, variant="mask binary"))
    assert binary.instances.max() == 5
    assert np.array_equal(binary.instances > 0, grid_labels > 0)
    assert next(nuinsseg.read(nuinsseg_archive, ambiguous=False)).ambiguous is None


@pytest.mark.parametrize("name", ["vague areas/mask binary_vague", "mask binary_vague", "vague areas"])
def test_nuinsseg_ambiguous_masks_in_other_places(nuinsseg_archive: Path, name: str) -> None:
    folder = nuinsseg_archive / "human bladder"
    (folder / "vague areas/mask binary").rename(folder / "aside")
    assert next(nuinsseg.read(nuinsseg_archive)).ambiguous is None
    target = folder / name
    if target.exists():
        target.rmdir()
    (folder / "aside").rename(target)
    assert next(nuinsseg.read(nuinsseg_archive)).ambiguous[:10].all()


@pytest.mark.fault
def test_nuinsseg_faults(nuinsseg_archive: Path, tmp_path: Path) -> None:
    folder = nuinsseg_archive / "human bladder"
    with pytest.raises(HemalumError, match="species 'cat': choices are human, mouse, both"):
        list(nuinsseg.read(nuinsseg_archive, species="cat"))
    with pytest.raises(HemalumError) as error:
        list(nuinsseg.read(nuinsseg_archive, variant="labels"))
    assert str(error.value) == (
        f"{folder}/labels: no such folder of labels; there are Imagej_zips, distance maps, label masks, "
        "label masks modify, mask binary, tissue images, vague areas"
    )
    save(folder / "label masks modify/human_bladder_01.tif", np.zeros((9, 52), np.uint16))
    with pytest.raises(HemalumError, match=r"human_bladder_01\.tif: label map is 52 x 9, its image 52 x 52"):
        list(nuinsseg.read(nuinsseg_archive))
    (folder / "label masks modify/human_bladder_01.tif").unlink()
    with pytest.raises(HemalumError, match=r"human_bladder_01\.tif: missing; it holds the labels of human_bladder"):
        list(nuinsseg.read(nuinsseg_archive))
    for file in (folder / "tissue images").iterdir():
        file.unlink()
    with pytest.raises(HemalumError, match="tissue images: no images"):
        list(nuinsseg.read(nuinsseg_archive))
    with pytest.raises(HemalumError, match="no organ folders with 'tissue images'"):
        list(nuinsseg.read(folder / "mask binary"))


@pytest.mark.fault
def test_nuinsseg_no_such_species(nuinsseg_archive: Path) -> None:
    import shutil

    shutil.rmtree(nuinsseg_archive / "mouse fat (white and brown)_subscapula")
    with pytest.raises(HemalumError, match="no folders named 'mouse …'"):
        list(nuinsseg.read(nuinsseg_archive, species="mouse"))


def test_every_published_format_says_where_it_comes_from() -> None:
    for name, reader in READERS.items():
        if name not in ("folder", "ihc-pairs", "qupath", "combined"):  # the user's own data
            assert reader.title
            assert reader.license
            assert "doi:" in reader.citation
            assert reader.url.startswith("https://")
