"""PanNuke: miniatures of the folds as published and of their export, the real exported items, and faults."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.data.readers import looks_like, pannuke

ORGANS = np.array(["Breast", "Adrenal_gland"])


def masks_of(labels: np.ndarray) -> np.ndarray:
    """(256, 256, 6) float64: ids 3, 7 in channel 0, id 3 in channel 4, whose nucleus is in two pieces."""
    masks = np.zeros((256, 256, 6))
    masks[:52, :52, 0][labels == 1] = 3
    masks[:52, :52, 0][labels == 2] = 7
    masks[:52, :52, 4][(labels == 3) | (labels == 4)] = 3
    masks[..., 5] = masks[..., :5].max(axis=-1) == 0
    return masks


def write_fold(
    root: Path, fold: int, labels: np.ndarray, colors: Callable[..., np.ndarray], folder: str = "Fold {0}"
) -> Path:
    base = root / folder.format(fold)
    for kind in ("images", "masks"):
        (base / kind / f"fold{fold}").mkdir(parents=True, exist_ok=True)
    images = np.stack([colors((256, 256), 10 * fold + number).astype(float) for number in range(2)])
    np.save(base / "images" / f"fold{fold}" / "images.npy", images)
    np.save(base / "images" / f"fold{fold}" / "types.npy", ORGANS)
    np.save(base / "masks" / f"fold{fold}" / "masks.npy", np.stack([masks_of(labels), np.zeros((256, 256, 6))]))
    return base


@pytest.fixture
def archive(tmp_path: Path, grid_labels: np.ndarray, colors: Callable[..., np.ndarray]) -> Path:
    root = tmp_path / "pannuke"
    for fold in (1, 2, 3):
        write_fold(root, fold, grid_labels, colors)
    return root


def test_ids_of_a_channel_are_nuclei_of_its_class(
    archive: Path, grid_labels: np.ndarray, colors: Callable[..., np.ndarray]
) -> None:
    samples = list(pannuke.read(archive))
    assert [sample.id for sample in samples] == ["1_00000", "1_00001", "2_00000", "2_00001", "3_00000", "3_00001"]
    first, second = samples[:2]
    assert np.array_equal(first.image, colors((256, 256), 10))
    expected = np.zeros((256, 256), np.int32)
    expected[:52, :52] = np.array([0, 1, 2, 3, 3, 0])[grid_labels]
    assert np.array_equal(first.instances, expected)
    assert first.classes.tolist() == [0, 1, 1, 5]
    assert (first.organ, second.organ) == ("breast", "adrenal gland")
    assert (second.instances.max(), second.classes.tolist()) == (0, [0])
    assert (first.group, first.fold) == ("fold1", 1)
    assert looks_like(archive) == ["pannuke"]


@pytest.mark.parametrize("folder", ["fold{0}/Fold {0}", "Fold{0}", "fold_{0}", ""])
def test_other_ways_to_unpack(
    tmp_path: Path, grid_labels: np.ndarray, colors: Callable[..., np.ndarray], folder: str
) -> None:
    for fold in (1, 3):
        write_fold(tmp_path, fold, grid_labels, colors, folder)
    assert [sample.fold for sample in pannuke.read(tmp_path)] == [1, 1, 3, 3]


def test_a_pixel_in_two_nuclei_stays_with_the_first(
    archive: Path, grid_labels: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    file = archive / "Fold 1" / "masks" / "fold1" / "masks.npy"
    masks = np.load(file)
    masks[0, :52, :52, 2][(grid_labels == 1) | (grid_labels == 5)] = 1
    np.save(file, masks)
    first = next(pannuke.read(archive))
    assert first.classes[first.instances[:52, :52][grid_labels == 1]].tolist() == [1] * int((grid_labels == 1).sum())
    assert set(first.classes[first.instances[:52, :52][grid_labels == 5]]) == {3}
    list(pannuke.read(archive))
    assert f"{int((grid_labels == 1).sum())} pixels in two nuclei stay with the first" in caplog.text


def test_a_channel_without_background(archive: Path) -> None:
    file = archive / "Fold 1" / "masks" / "fold1" / "masks.npy"
    masks = np.zeros((2, 256, 256, 6))
    masks[0, ..., 1] = 4
    np.save(file, masks)
    first = next(pannuke.read(archive))
    assert np.unique(first.instances).tolist() == [1]
    assert first.classes.tolist() == [0, 2]


@pytest.mark.fault
def test_faults_of_arrays(archive: Path, error_line: Callable[..., str]) -> None:
    def message() -> str:
        return error_line(lambda: list(pannuke.read(archive)))

    masks_file = archive / "Fold 2" / "masks" / "fold2" / "masks.npy"
    types_file = archive / "Fold 2" / "images" / "fold2" / "types.npy"
    images_file = types_file.with_name("images.npy")
    types, images, masks = np.load(types_file), np.load(images_file), np.load(masks_file)

    np.save(types_file, types.astype(object), allow_pickle=True)
    assert message() == (
        f"{types_file}: holds Python objects, and reading those would run code from the file; "
        "save it again as text: numpy.save(file, types.astype(str))"
    )
    np.save(types_file, types[:1])
    assert message().endswith(
        "2 images, 2 masks and 1 types; shapes are (2, 256, 256, 3) and (2, 256, 256, 6); "
        "the files must belong together"
    )
    np.save(types_file, types)
    np.save(masks_file, masks[..., :5])
    assert message() == f"{masks_file}: shape is (2, 256, 256, 5), want (N, N, N, 6)"
    np.save(masks_file, masks + 0.5)
    assert message() == f"{masks_file}, image 0: channel 0: holds fractions or NaN; ids and classes are whole numbers"
    np.save(masks_file, masks)
    np.save(images_file, images * 2)
    assert message() == f"{images_file}, image 0: runs from 0 to 510, must lie in 0 to 255"
    np.save(images_file, images)
    masks_file.unlink()
    assert message() == f"{masks_file}: no such file"


@pytest.fixture
def exported(tmp_path: Path, grid_labels: np.ndarray, colors: Callable[..., np.ndarray]) -> Path:
    root = tmp_path / "exported"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for name in ("0_00000", "1_00004", "2_00001"):
        Image.fromarray(colors((52, 52), 0)).save(root / "images" / f"{name}.png")
        np.save(root / "labels" / f"{name}.npy", np.stack([grid_labels, np.array([0, 1, 2, 3, 4, 5])[grid_labels]]))
    (root / "types.csv").write_text("image,tissue_type\n0_00000.png,Bile-duct\n2_00001.png,Skin\n")
    return root


def test_export(exported: Path, grid_labels: np.ndarray) -> None:
    samples = list(pannuke.read(exported))
    assert [(sample.id, sample.fold, sample.organ) for sample in samples] == [
        ("0_00000", 1, "bile-duct"),
        ("1_00004", 2, None),
        ("2_00001", 3, "skin"),
    ]
    assert np.array_equal(samples[0].instances, grid_labels)
    assert samples[0].classes.tolist() == [0, 1, 2, 3, 4, 5]
    assert looks_like(exported) == ["pannuke"]


@pytest.mark.fault
def test_faults_of_the_export(exported: Path, error_line: Callable[..., str], grid_labels: np.ndarray) -> None:
    def message() -> str:
        return error_line(lambda: list(pannuke.read(exported)))

    label = exported / "labels" / "1_00004.npy"
    pair = np.load(label)
    np.save(label, np.array({"inst_map": pair[0], "type_map": pair[1]}, dtype=object), allow_pickle=True)
    assert message() == (
        f"{label}: holds Python objects, and reading those would run code from the file; open it where you trust "
        "it, and save a plain array: numpy.save(file, numpy.stack([inst_map, type_map]).astype('int32'))"
    )
    np.save(label, np.stack([pair[0], pair[1] + 2]))
    assert message() == f"{label}: classes: runs from 2 to 7, must lie in 0 to 5"
    np.save(label, pair[:, :, :50])
    assert message() == f"{label}: labels are 50 x 52, their image 52 x 52"
    np.save(label, pair[0])
    assert message() == f"{label}: shape is (52, 52), want (2, N, N)"
    label.unlink()
    assert message() == f"{label}: missing; it holds the labels of {exported / 'images' / '1_00004.png'}"
    (exported / "images" / "1_00004.png").rename(exported / "images" / "x.png")
    label.with_name("x.npy").write_bytes((exported / "labels" / "0_00000.npy").read_bytes())
    assert message() == f"{exported / 'images' / 'x.png'}: the name must begin with the fold, 0_, 1_ or 2_"


@pytest.mark.fault
def test_neither_layout(tmp_path: Path, error_line: Callable[..., str]) -> None:
    assert error_line(lambda: list(pannuke.read(tmp_path))) == (
        f"{tmp_path}: no 'Fold 1/images/fold1/images.npy' and no images/*.png with labels/*.npy; "
        "want the unpacked PanNuke archives, or their export"
    )


@pytest.mark.parametrize(("fold", "runs"), [(1, "123"), (2, "213"), (3, "321")])
def test_import_takes_the_published_runs(archive: Path, tmp_path: Path, fold: int, runs: str) -> None:
    dataset: Dataset = import_dataset("pannuke", archive, tmp_path / "set", fold=fold)
    parts = {part: {row.id[0] for row in dataset.rows if row.split == part} for part in ("train", "val", "test")}
    assert parts == {"train": {runs[0]}, "val": {runs[1]}, "test": {runs[2]}}
    assert dataset.info.split.note is None
    assert dataset.info.classes == pannuke.CLASSES


def test_real_items_against_an_independent_parse(real_data: Path) -> None:
    """Nuclei are counted as pairs of id and class from the bytes of the files, without our reader or numpy.load."""
    root = real_data / "original_layouts" / "pannuke_cellvit"
    if not root.is_dir():
        pytest.skip("no items in the exported layout at hand")
    samples = {sample.id: sample for sample in pannuke.read(root)}
    assert len(samples) == 4
    with (root / "cell_count.csv").open() as stream:
        published = {row["image"]: row for row in csv.DictReader(stream)}
    for name, sample in samples.items():
        raw = (root / "labels" / f"{name}.npy").read_bytes()
        values = memoryview(raw[-2 * 256 * 256 * 4 :]).cast("i")
        ids, class_ids = values[: 256 * 256], values[256 * 256 :]
        assert len(set(ids) - {0}) == len(np.unique(sample.instances)) - 1
        nuclei = {pair for pair in zip(ids, class_ids, strict=True) if pair[0]}
        counted = [sum(kind == number for _, kind in nuclei) for number in range(1, 6)]
        present = np.unique(sample.instances)[1:]
        assert np.bincount(sample.classes[present], minlength=6)[1:].tolist() == counted
        row = published[f"{name}.png"]
        assert [int(row[kind.capitalize()]) for kind in pannuke.CLASSES.values()] == counted
        assert sample.organ
