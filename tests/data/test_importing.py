"""Import writes what the reader gave, all of it or nothing; the dataset folder gives it back."""

import csv
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

import numpy as np
import pytest
import yaml
from PIL import Image

from hemalum.data import importing
from hemalum.data.dataset import Dataset, classes_by_instance, pixel_hash, write_sample
from hemalum.data.importing import import_dataset
from hemalum.data.readers import READERS, folder
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError


def test_what_comes_out_is_what_went_in(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(10)
    dataset = import_dataset("folder", root, tmp_path / "set", group="patient", license="CC0-1.0", name="mine")
    assert len(dataset) == 10
    for before, after in zip(folder.read(root, group="patient"), dataset, strict=True):
        assert np.array_equal(before.image, after.image)
        assert np.array_equal(before.instances, after.instances)
        assert (before.id, before.group, before.mpp, before.mpp_source) == (
            after.id,
            after.group,
            after.mpp,
            after.mpp_source,
        )
    assert (dataset.info.name, dataset.info.license, dataset.info.mpp) == ("mine", "CC0-1.0", 0.5)
    assert (dataset.info.images, dataset.info.nuclei) == (10, 50)
    assert sorted(item.name for item in (tmp_path / "set").iterdir()) == [
        "dataset.yaml",
        "images",
        "index.csv",
        "labels",
    ]


def test_the_files_are_plain(make_folder: Callable[..., Path], tmp_path: Path, grid_labels: np.ndarray) -> None:
    """Anyone can read the folder without us."""
    import_dataset("folder", make_folder(3), tmp_path / "set")
    with (tmp_path / "set/index.csv").open() as stream:
        line = next(csv.DictReader(stream))
    assert line["nuclei"] == "5"
    picture = Image.open(tmp_path / "set" / line["label"])
    assert picture.mode.startswith("I;16")
    assert np.array_equal(np.asarray(picture), grid_labels)
    assert line["sha256"] == pixel_hash(np.asarray(Image.open(tmp_path / "set" / line["image"])))
    assert (
        yaml.safe_load((tmp_path / "set/dataset.yaml").read_text())["split"]["by"]
        == "image, or the column named group"
    )


@pytest.mark.fault
def test_parts(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    dataset = import_dataset("folder", make_folder(10), tmp_path / "set", group="patient")
    parts = {part: dataset.split(part) for part in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == 10
    assert all(len(part) for part in parts.values())
    groups = [{row.group for row in part.rows} for part in parts.values()]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert {part.split_hash for part in parts.values()} == {dataset.split_hash}
    assert dataset.info.split.counts == {name: len(part) for name, part in parts.items()}
    with pytest.raises(HemalumError, match="split 'dev': parts are train, val, test"):
        dataset.split("dev")


def test_the_split_is_the_same_wherever_it_is_made(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(10)
    one = import_dataset("folder", root, tmp_path / "one", group="patient")
    shutil.copytree(root, tmp_path / "moved")
    two = import_dataset("folder", tmp_path / "moved", tmp_path / "two", group="patient")
    other = import_dataset("folder", root, tmp_path / "three", group="patient", seed=2)
    assert one.split_hash == two.split_hash != other.split_hash


def test_named_test_groups(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    dataset = import_dataset("folder", make_folder(10), tmp_path / "set", group="patient", test_groups=["p3"])
    assert {row.group for row in dataset.split("test").rows} == {"p3"}
    assert dataset.info.split.test_groups == ["p3"]


def test_slices_and_indices(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    dataset = import_dataset("folder", make_folder(5), tmp_path / "set")
    assert dataset[-1].id == "tile_4"
    assert [sample.id for sample in dataset[1:3]] == ["tile_1", "tile_2"]


def test_scale_of_the_user_goes_before_that_of_the_index(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    dataset = import_dataset("folder", make_folder(3), tmp_path / "set", mpp=0.25)
    assert {(row.mpp, row.mpp_source) for row in dataset.rows} == {(0.25, "user")}


def test_scale_from_nuclei(
    make_folder: Callable[..., Path], tmp_path: Path, grid_labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemalum.data.nucleus_size.ENOUGH_NUCLEI", 5)
    dataset = import_dataset("folder", make_folder(3), tmp_path / "set", mpp="nuclei")
    diameter = np.sqrt(4 / np.pi * (grid_labels == 1).sum())
    assert {row.mpp for row in dataset.rows} == {round(5.2 / diameter, 4)}
    assert dataset.info.mpp_source == "nuclei"
    assert "5.2 µm" in dataset.info.mpp_note


def test_group_mosaic(tmp_path: Path, grid_labels: np.ndarray) -> None:
    from scipy.ndimage import gaussian_filter

    for name in ("images", "labels"):
        (tmp_path / "user" / name).mkdir(parents=True)
    for field in range(6):
        noise = gaussian_filter(np.random.default_rng(field).normal(size=(52, 104)), 3)
        gray = np.clip(128 + 40 * noise / noise.std(), 0, 255).astype(np.uint8)
        for half in range(2):
            Image.fromarray(gray[:, 52 * half : 52 * half + 52]).save(tmp_path / f"user/images/{half}_{field}.png")
            Image.fromarray(grid_labels.astype(np.uint8)).save(tmp_path / f"user/labels/{half}_{field}.png")
    dataset = import_dataset("folder", tmp_path / "user", tmp_path / "set", group="mosaic")
    assert {row.id: row.group for row in dataset.rows} == {
        f"{half}_{field}": f"0_{field}" for half in range(2) for field in range(6)
    }
    for field in range(6):
        assert len({row.split for row in dataset.rows if row.id.endswith(f"_{field}")}) == 1


def test_classes_ambiguity_and_many_labels_survive(tmp_path: Path) -> None:
    labels = np.zeros((300, 300), np.int32)
    labels.flat[: 70000 - 1] = np.arange(1, 70000)
    classes = (np.arange(70000) % 5).astype(np.int32)
    classes[0] = 0
    ambiguous = np.zeros((300, 300), bool)
    ambiguous[:7] = True
    sample = Sample(
        np.zeros((300, 300, 3), np.uint8), labels, "x", "x", "g", classes=classes, ambiguous=ambiguous, mpp=0.5
    )
    row = write_sample(tmp_path, sample)
    assert row.label == "labels/x.tif"
    assert row.nuclei == 69999
    info = Dataset.open(_minimal(tmp_path / "other")).info
    again = Dataset(tmp_path, info, (row,))[0]
    assert np.array_equal(again.instances, labels)
    assert np.array_equal(again.classes, classes)
    assert np.array_equal(again.ambiguous, ambiguous)


@pytest.mark.fault
def test_class_of_an_instance_is_that_of_most_of_its_pixels() -> None:
    instances = np.array([[0, 2, 2, 2, 5]], np.int32)
    assert classes_by_instance(instances, np.array([[3, 1, 4, 4, 2]], np.int32)).tolist() == [0, 0, 4, 0, 0, 2]
    with pytest.raises(HemalumError, match="class map is"):
        classes_by_instance(instances, np.zeros((2, 5), np.int32))


def test_ids_become_file_names(tmp_path: Path, grid_labels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> Iterator[Sample]:
        image = np.zeros((52, 52, 3), np.uint8)
        yield Sample(image, grid_labels, "a b/(c)", "s", "g")

    monkeypatch.setitem(READERS, "odd", replace(READERS["tnbc"], read=read))
    dataset = import_dataset("odd", tmp_path, tmp_path / "set")
    assert dataset.rows[0].id == "a_b_c_"
    assert (tmp_path / "set/images/a_b_c_.png").is_file()
    assert (dataset.rows[0].mpp, dataset.rows[0].mpp_source) == (0.25, "published")


def test_progress(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    seen = []
    import_dataset("folder", make_folder(3), tmp_path / "set", on_progress=lambda sample: seen.append(sample.id))
    assert seen == ["tile_0", "tile_1", "tile_2"]


@pytest.mark.fault
def test_nothing_is_left_when_import_fails(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(3)
    (root / "labels/tile_2.png").write_text("text")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(HemalumError, match=r"tile_2\.png: not an image"):
        import_dataset("folder", root, tmp_path / "set")
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_left_when_interrupted(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    def stop(sample: Sample) -> Never:
        raise KeyboardInterrupt

    root = make_folder(3)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        import_dataset("folder", root, tmp_path / "set", on_progress=stop)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.fault
def test_full_folders_are_refused_and_kept(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(3)
    target = tmp_path / "set"
    target.mkdir()
    (target / "thesis.txt").write_text("mine")
    with pytest.raises(HemalumError, match="set: is not empty; choose another folder, or give `overwrite`"):
        import_dataset("folder", root, target)
    (root / "labels/tile_2.png").write_text("text")
    with pytest.raises(HemalumError, match="not an image"):
        import_dataset("folder", root, target, overwrite=True)
    assert [item.name for item in target.iterdir()] == ["thesis.txt"]


def test_overwrite_replaces_and_an_empty_folder_is_taken(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    import_dataset("folder", make_folder(3), tmp_path / "set")
    again = import_dataset("folder", make_folder(5, name="more"), tmp_path / "set", overwrite=True)
    assert len(again) == 5
    assert sorted(item.name for item in tmp_path.iterdir()) == ["more", "set", "user"]


def test_disk_full(make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Never:
        raise OSError(28, "No space left on device")

    root = make_folder(3)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(importing, "write_index", full)
    with pytest.raises(HemalumError) as error:
        import_dataset("folder", root, tmp_path / "set")
    assert str(error.value) == f"cannot write {tmp_path / 'set'}: No space left on device"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "coco"}, "no format 'coco'; formats are folder, dsb2018, tnbc, nuinsseg"),
        ({"mpp": "auto"}, "mpp 'auto': give a number in µm per pixel, or 'nuclei'"),
        ({"mpp": -1.0}, "mpp -1.0: µm per pixel must lie between 0.01 and 100"),
        ({"mpp": float("nan")}, "mpp nan: µm per pixel must lie between 0.01 and 100"),
        ({"variant": "x"}, "format folder has no option 'variant'; it has images, labels, index, group"),
        ({"group": "slide"}, "{src}: no column 'slide' to group by; columns are image, label, patient, mpp"),
        ({"src": "nowhere"}, "nowhere: no such file or folder"),
        ({"split": (0.9, 0.3, 0.1)}, "split (0.9, 0.3, 0.1): want three shares (train, val, test) that sum to 1"),
        ({"test_groups": ["p9"], "group": "patient"}, "test group p9 is not in the data; groups are p0, p1"),
    ],
)
def test_faults_of_the_arguments(
    make_folder: Callable[..., Path], tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    src = make_folder(3)
    arguments = {"format": "folder", "src": src, "dst": tmp_path / "set"} | arguments
    with pytest.raises(HemalumError) as error:
        import_dataset(**arguments)
    assert str(error.value).startswith(message.format(src=src))
    assert not (tmp_path / "set").exists()


@pytest.mark.fault
def test_a_target_around_the_source_is_refused(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    root = make_folder(3)
    with pytest.raises(HemalumError, match="holds the source"):
        import_dataset("folder", root, tmp_path, overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(HemalumError, match="file: is a file; name a folder"):
        import_dataset("folder", root, tmp_path / "file")


@pytest.mark.fault
def test_groups_of_published_formats(
    tmp_path: Path, grid_labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> Iterator[Sample]:
        for number in range(4):
            yield Sample(np.zeros((52, 52, 3), np.uint8), grid_labels, f"i{number}", "s", "g", organ=f"o{number % 2}")

    monkeypatch.setitem(READERS, "odd", replace(READERS["tnbc"], read=read))
    dataset = import_dataset("odd", tmp_path, tmp_path / "a", group="organ")
    assert [row.group for row in dataset.rows] == ["o0", "o1", "o0", "o1"]
    dataset = import_dataset("odd", tmp_path, tmp_path / "b", group="image")
    assert [row.group for row in dataset.rows] == ["i0", "i1", "i2", "i3"]
    with pytest.raises(HemalumError, match="group 'clinic': choices are image, mosaic, source, organ, stain"):
        import_dataset("odd", tmp_path, tmp_path / "c", group="clinic")
    with pytest.raises(HemalumError, match="sample i0 has no stain; choose another group"):
        import_dataset("odd", tmp_path, tmp_path / "c", group="stain")


# --- opening


def _minimal(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "user/images").mkdir(parents=True)
    (path / "user/labels").mkdir(parents=True)
    for kind in ("images", "labels"):
        Image.fromarray(np.ones((9, 9), np.uint8)).save(path / f"user/{kind}/a.png")
    import_dataset("folder", path / "user", path / "set")
    return path / "set"


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: (p / "dataset.yaml").unlink(), "dataset.yaml: missing; is this a folder that `hemalum import`"),
        (lambda p: (p / "dataset.yaml").write_text("{"), "dataset.yaml: cannot be read (while parsing"),
        (lambda p: (p / "dataset.yaml").write_text("3"), "dataset.yaml: Input should be"),
        (lambda p: _edit(p / "dataset.yaml", "format: 2", "format: 9"), "dataset.yaml: dataset format 9, this ver"),
        (lambda p: _edit(p / "dataset.yaml", "images: 1", "images: x"), "dataset.yaml: 'images': Input should be"),
        (lambda p: _edit(p / "dataset.yaml", "images: 1", "images: 1\nx: 1"), "dataset.yaml: unknown key 'x'"),
        (lambda p: (p / "index.csv").unlink(), "index.csv: missing; import the data again"),
        (lambda p: (p / "index.csv").write_text("id,image\n"), "index.csv: column 'label' is missing"),
        (lambda p: _edit(p / "index.csv", "train", "dev"), "index.csv, row 2: split is 'dev', must be one of train"),
        (lambda p: _edit(p / "index.csv", "images/a", "/images/a"), "index.csv, row 2: image '/images/a.png' points"),
        (lambda p: _edit(p / "index.csv", "labels/", "../"), "index.csv, row 2: label '../a.png' points outside"),
        (lambda p: _edit(p / "index.csv", "images/a.png", ""), "index.csv, row 2: image is empty"),
        (lambda p: _edit(p / "index.csv", ",train,1,", ",train,one,"), "index.csv, row 2: nuclei is 'one', not a"),
    ],
)
def test_faults_of_a_dataset_folder(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    path = _minimal(tmp_path)
    spoil(path)
    with pytest.raises(HemalumError) as error:
        Dataset.open(path)
    assert str(error.value).startswith(f"{path}/{message}")
    assert "\n" not in str(error.value)


@pytest.mark.fault
def test_no_dataset_folder(tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="nowhere: no such dataset folder"):
        Dataset.open(tmp_path / "nowhere")


@pytest.mark.fault
def test_a_dataset_without_rows(tmp_path: Path) -> None:
    path = _minimal(tmp_path)
    (path / "index.csv").write_text((path / "index.csv").read_text().splitlines()[0] + "\n")
    with pytest.raises(HemalumError, match=r"index\.csv: no images are listed"):
        Dataset.open(path)
