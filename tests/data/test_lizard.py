"""Lizard: a miniature of the three archives, and each of its faults."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from hemalum.data.importing import import_dataset
from hemalum.data.readers import lizard, looks_like

NAMES = {"consep_1": 1, "crag_2": 2, "dpath_10": 3, "glas_1": 1, "pannuke_7": 2, "dpath_11": 3}
ORDER = np.array([4, 2, 5, 1, 3])  # ids are not sorted in the published files
CLASSES = np.array([6, 1, 2, 3, 2])  # of ORDER


def write(root: Path, labels: np.ndarray, colors: Callable[..., np.ndarray], wrapped: bool = False) -> Path:
    """lizard_images1/Lizard_Images1 … as the archives unpack, or without the outer folders."""
    names = ("Lizard_Images1", "Lizard_Images2", "Lizard_Labels")
    folders = [root / (name.lower() if wrapped else "") / name for name in names]
    (folders[2] / "Labels").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        folder = folders[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colors(labels.shape, number)).save(folder / f"{name}.png")
        savemat(
            folders[2] / "Labels" / f"{name}.mat",
            {
                "inst_map": labels,
                "id": ORDER[:, None].astype(np.int32),
                "class": CLASSES[:, None].astype(np.uint8),
                "bbox": np.zeros((5, 4), np.int32),
                "centroid": np.zeros((5, 2)),
            },
        )
    lines = ["Filename,Source,Split", *(f"{name},{name.split('_')[0]},{fold}" for name, fold in NAMES.items())]
    (folders[2] / "info.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def archive(tmp_path: Path, grid_labels: np.ndarray, colors: Callable[..., np.ndarray]) -> Path:
    return write(tmp_path / "lizard", grid_labels, colors)


def change(archive: Path, name: str, **values: object) -> Path:
    file = archive / "Lizard_Labels" / "Labels" / f"{name}.mat"
    content = {key: value for key, value in loadmat(file).items() if not key.startswith("__")}
    content |= values
    savemat(file, {key: value for key, value in content.items() if value is not None})
    return file


@pytest.mark.parametrize("wrapped", [False, True])
def test_classes_go_by_id(
    tmp_path: Path, grid_labels: np.ndarray, colors: Callable[..., np.ndarray], wrapped: bool
) -> None:
    samples = list(lizard.read(write(tmp_path, grid_labels, colors, wrapped)))
    assert [sample.id for sample in samples] == sorted(NAMES)
    first = samples[0]
    assert np.array_equal(first.image, colors((52, 52), 0))
    assert np.array_equal(first.instances, grid_labels)
    assert first.classes.tolist() == [0, 3, 1, 2, 6, 2]
    assert (first.fold, first.organ, first.group) == (1, "colon", "consep_1")
    assert looks_like(tmp_path) == ["lizard"]


def test_ids_without_a_nucleus_and_images_without_nuclei(archive: Path, grid_labels: np.ndarray) -> None:
    change(
        archive,
        "consep_1",
        id=np.array([[9], [2]]),
        inst_map=(grid_labels == 2) * np.int32(2),
        **{"class": np.array([[1], [5]])},
    )
    change(
        archive, "crag_2", inst_map=np.zeros((52, 52), np.int32), id=np.zeros((0, 0)), **{"class": np.zeros((0, 0))}
    )
    samples = {sample.id: sample for sample in lizard.read(archive)}
    assert samples["consep_1"].classes.tolist() == [0, 0, 5]
    assert samples["crag_2"].classes.tolist() == [0]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"class": None}, "no variable 'class'; there are bbox, centroid, id, inst_map"),
        ({"class": np.array([[7], [1], [2], [3], [2]])}, "class: runs from 1 to 7, must lie in 0 to 6"),
        ({"class": np.array([[0], [1], [2], [3], [2]])}, "class holds 0; classes run from 1 to 6"),
        ({"class": np.array([[1], [2]])}, "5 ids but 2 classes; one belongs to each"),
        ({"id": np.array([[1], [1], [2], [3], [4]])}, "id holds a number twice, so its class is not certain"),
        ({"id": np.array([[1], [9], [2], [3], [4]])}, "nucleus 5 of inst_map is not in id, so it has no class"),
        ({"inst_map": np.zeros((52, 50))}, "inst_map: labels are 50 x 52, their image 52 x 52"),
        ({"inst_map": np.zeros((52, 52, 2))}, "inst_map has shape (52, 52, 2), want (N, N)"),
        ({"inst_map": np.full((52, 52), 0.5)}, "inst_map: holds fractions or NaN; ids and classes are whole numbers"),
        ({"inst_map": np.full((52, 52), -1)}, "inst_map: runs from -1 to -1, must lie in 0 to 2704"),
        ({"inst_map": np.full((52, 52), 2e9)}, "inst_map: runs from 2e+09 to 2e+09, must lie in 0 to 2704"),
    ],
)
def test_faults_of_a_label_file(
    archive: Path, error_line: Callable[..., str], values: dict[str, Any], line: str
) -> None:
    file = change(archive, "glas_1", **values)
    message = error_line(lambda: list(lizard.read(archive)))
    assert message.removeprefix(f"{file}: ") == line


@pytest.mark.fault
def test_faults_of_the_folders(archive: Path, error_line: Callable[..., str], tmp_path: Path) -> None:
    label = archive / "Lizard_Labels" / "Labels" / "glas_1.mat"
    label.unlink()
    image = archive / "Lizard_Images2" / "glas_1.png"
    assert error_line(lambda: list(lizard.read(archive))) == f"{label}: missing; it holds the labels of {image}"
    assert error_line(lambda: list(lizard.read(tmp_path))) == (
        f"{tmp_path}: no Lizard_Labels/Labels; want the three unpacked Lizard archives"
    )
    info = archive / "Lizard_Labels" / "info.csv"
    info.write_text("Filename,Source,Split\nconsep_1,consep,4\n")
    assert error_line(lambda: list(lizard.read(archive))) == f"{info}, row 2: Split is '4', must be 1, 2 or 3"
    info.write_text("Filename,Source\nconsep_1,consep\n")
    assert "column 'Split' is missing" in error_line(lambda: list(lizard.read(archive)))


def test_an_archive_of_images_is_missing(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    import shutil

    shutil.rmtree(archive / "Lizard_Images2")
    assert len(list(lizard.read(archive))) == 3
    assert "3 label files have no image" in caplog.text


def test_import_takes_the_published_folds(archive: Path, tmp_path: Path) -> None:
    dataset = import_dataset("lizard", archive, tmp_path / "set", fold=3)
    assert {row.id for row in dataset.rows if row.split == "test"} == {"dpath_10", "dpath_11"}
    assert dataset.info.split.fold == 3
    assert dataset.info.split.counts == {"train": 3, "val": 1, "test": 2}
    assert dataset.info.split.note == "val: 1 image cut from the published train part by group, seed 0"
    assert dataset.info.classes[6] == "connective"
    assert (dataset.info.mpp, dataset.info.mpp_source) == (0.5, "published")
    assert dataset[0].classes.tolist() == [0, 3, 1, 2, 6, 2]
