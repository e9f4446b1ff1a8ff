"""CoNSeP: a miniature with the published names, keys and dtypes, and each of its faults."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from hemalum.data.importing import import_dataset
from hemalum.data.readers import consep, looks_like

TYPES = np.array([0, 3, 4, 2, 7, 5])


def write(file: Path, labels: np.ndarray, **values: object) -> None:
    content = {
        "inst_map": labels.astype(float),
        "type_map": TYPES[labels].astype(float),
        "inst_type": TYPES[1:, None].astype(float),
        "inst_centroid": np.zeros((5, 2)),
    }
    content |= values
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, {key: value for key, value in content.items() if value is not None})


@pytest.fixture
def archive(tmp_path: Path, grid_labels: np.ndarray, colors: Callable[..., np.ndarray]) -> Path:
    root = tmp_path / "consep"
    for part, count in (("Train", 3), ("Test", 2)):
        for number in range(1, count + 1):
            name = f"{part.lower()}_{number}"
            write(root / "CoNSeP" / part / "Labels" / f"{name}.mat", grid_labels)
            (root / "CoNSeP" / part / "Images").mkdir(parents=True, exist_ok=True)
            image = np.dstack([colors((52, 52), number), np.full((52, 52), 255, np.uint8)])
            Image.fromarray(image).save(root / "CoNSeP" / part / "Images" / f"{name}.png")
    return root


@pytest.mark.parametrize("below", ["", "CoNSeP"])
def test_seven_classes_or_four(
    archive: Path, grid_labels: np.ndarray, colors: Callable[..., np.ndarray], below: str
) -> None:
    samples = list(consep.read(archive / below))
    assert [sample.id for sample in samples] == ["train_1", "train_2", "train_3", "test_1", "test_2"]
    assert [sample.part for sample in samples] == ["train"] * 3 + ["test"] * 2
    assert np.array_equal(samples[1].image, colors((52, 52), 2))
    assert np.array_equal(samples[1].instances, grid_labels)
    assert samples[1].classes.tolist() == TYPES.tolist()
    assert looks_like(archive) == ["consep"]
    merged = next(consep.read(archive / below, merged=True))
    assert merged.classes.tolist() == [0, 3, 3, 2, 4, 4]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"type_map": None}, "no variable 'type_map'; there are inst_centroid, inst_map, inst_type"),
        ({"type_map": np.full((52, 52), 8.0)}, "type_map: runs from 8 to 8, must lie in 0 to 7"),
        ({"type_map": np.zeros((52, 51))}, "type_map: labels are 51 x 52, their image 52 x 52"),
        (
            {"inst_map": np.full((52, 52), np.nan)},
            "inst_map: holds fractions or NaN; ids and classes are whole numbers",
        ),
    ],
)
def test_faults_of_a_label_file(
    archive: Path, grid_labels: np.ndarray, error_line: Callable[..., str], values: dict[str, Any], line: str
) -> None:
    file = archive / "CoNSeP" / "Test" / "Labels" / "test_1.mat"
    write(file, grid_labels, **values)
    assert error_line(lambda: list(consep.read(archive))).removeprefix(f"{file}: ") == line


@pytest.mark.fault
def test_faults_of_the_folders(archive: Path, error_line: Callable[..., str], tmp_path: Path) -> None:
    file = archive / "CoNSeP" / "Test" / "Labels" / "test_1.mat"
    file.unlink()
    assert error_line(lambda: list(consep.read(archive))).startswith(f"{file}: missing; it holds the labels of")
    assert error_line(lambda: list(consep.read(tmp_path))) == (
        f"{tmp_path}: no Train/Images and no Test/Images; want the unpacked CoNSeP archive"
    )


def test_import_keeps_the_published_test_part(archive: Path, tmp_path: Path) -> None:
    dataset = import_dataset("consep", archive, tmp_path / "set", merged=True)
    assert {row.id for row in dataset.rows if row.split == "test"} == {"test_1", "test_2"}
    assert dataset.info.split.counts == {"train": 2, "val": 1, "test": 2}
    assert dataset.info.classes == {1: "other", 2: "inflammatory", 3: "epithelial", 4: "spindle-shaped"}
    assert import_dataset("consep", archive, tmp_path / "b").info.classes[7] == "endothelial"
