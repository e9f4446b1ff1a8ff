"""CoNIC: a miniature with the published names, dtypes and shapes, and each of its faults."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hemalum.data.importing import import_dataset
from hemalum.data.readers import conic, looks_like

PATCHES = ["consep_1-0000", "consep_1-0001", "crag_12-0000", "dpath_3-0000", "dpath_3-0001", "dpath_3-0002"]
CLASS_IDS = np.array([0, 1, 2, 3, 6, 2], np.uint16)  # class by instance


@pytest.fixture
def archive(tmp_path: Path, grid_labels: np.ndarray, colors: Callable[..., np.ndarray]) -> Path:
    root = tmp_path / "conic"
    root.mkdir()
    count = len(PATCHES)
    instances = np.zeros((count, 256, 256), np.uint16)
    instances[:, 100:152, 100:152] = grid_labels
    np.save(root / "images.npy", np.stack([colors((256, 256), number) for number in range(count)]))
    np.save(root / "labels.npy", np.stack([instances, CLASS_IDS[instances]], axis=-1))
    (root / "patch_info.csv").write_text("\n".join(["patch_info", *PATCHES]) + "\n")
    header = "neutrophil,epithelial,lymphocyte,plasma,eosinophil,connective"
    (root / "counts.csv").write_text("\n".join([header] + ["1,2,1,0,0,1"] * count) + "\n")
    return root


def test_patches_are_read(archive: Path, grid_labels: np.ndarray, colors: Callable[..., np.ndarray]) -> None:
    samples = list(conic.read(archive))
    assert [sample.id for sample in samples] == PATCHES
    assert [sample.group for sample in samples] == ["consep_1"] * 2 + ["crag_12"] + ["dpath_3"] * 3
    assert np.array_equal(samples[3].image, colors((256, 256), 3))
    assert np.array_equal(samples[3].instances[100:152, 100:152], grid_labels)
    assert samples[3].classes.tolist() == CLASS_IDS.tolist()
    assert looks_like(archive) == ["conic"]


def test_the_files_may_lie_in_data(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "outer").mkdir()
    archive.rename(tmp_path / "outer" / "data")
    assert len(list(conic.read(tmp_path / "outer"))) == len(PATCHES)


def edit(archive: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    array = np.load(archive / name)
    np.save(archive / name, change(array))
    return archive / name


@pytest.mark.fault
def test_faults_of_arrays(archive: Path, error_line: Callable[..., str]) -> None:
    def message() -> str:
        return error_line(lambda: list(conic.read(archive)))

    good = np.load(archive / "labels.npy")
    file = archive / "labels.npy"
    np.save(file, good[..., 0])
    assert message() == f"{file}: shape is (6, 256, 256), want (N, N, N, 2)"
    np.save(file, good[:5])
    assert message() == f"{file}: shape is (5, 256, 256, 2), which does not fit images of (6, 256, 256, 3)"
    np.save(file, good.astype(float))
    assert message() == f"{file}: holds float64, want whole numbers (uint, int)"
    np.save(file, good.astype(object), allow_pickle=True)
    assert message().startswith(f"{file}: holds Python objects, and reading those would run code")
    wrong = good.copy()
    wrong[2, 0, 0, 1] = 7
    np.save(file, wrong)
    assert message() == f"{file}, patch 2: classes: runs from 0 to 7, must lie in 0 to 6"
    np.save(file, good)
    file.write_bytes(file.read_bytes()[:-100])
    assert "truncated" in message()
    edit(archive, "images.npy", lambda images: images.astype(np.uint16))
    np.save(file, good)
    assert message() == f"{archive / 'images.npy'}: holds uint16, want uint8"


@pytest.mark.fault
def test_faults_of_tables(archive: Path, error_line: Callable[..., str], tmp_path: Path) -> None:
    def message() -> str:
        return error_line(lambda: list(conic.read(archive)))

    names = archive / "patch_info.csv"
    names.write_text("patch_info\nconsep_1-0000\n")
    assert message() == f"{names}: names 1 patches, images.npy holds 6"
    names.write_text("name\n" + "x\n" * 6)
    assert message().startswith(f"{names}: column 'patch_info' is missing; its first row is ")
    names.unlink()
    assert message() == f"{names}: missing; it names the image that each patch was cut from, and a split needs it"
    names.write_text("\n".join(["patch_info", *PATCHES]))
    (archive / "counts.csv").write_text("neutrophil\n1\n")
    assert message() == f"{archive / 'counts.csv'}: has 1 rows, images.npy holds 6"
    assert error_line(lambda: list(conic.read(tmp_path))) == (
        f"{tmp_path}: no images.npy; want images.npy, labels.npy and patch_info.csv of CoNIC"
    )


def test_import_splits_by_source_image(archive: Path, tmp_path: Path) -> None:
    dataset = import_dataset("conic", archive, tmp_path / "set")
    parts = {(row.group, row.split) for row in dataset.rows}
    assert len(parts) == 3  # each image in one part
    assert dataset.info.split.published.startswith("3842/499/640 patches")
    # of 6 patches the shares come to 4.6, 0.6 and 0.8
    assert dataset.info.split.counts["test"] == 1
    assert dataset.info.nuclei == 30
