"""What a run remembers of its data: whatever it learns from or is measured by, or it could go on with other truth."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemalum.data.dataset import Dataset, DatasetInfo, SplitInfo, write_index, write_sample
from hemalum.data.sample import Sample
from hemalum.data.stain.normalization import StainNormalizer
from hemalum.data.stain.statistics import StainTarget
from hemalum.experiments.plan import plan_data
from hemalum.training.train import digest_data

TARGET = StainTarget(method="reinhard", mean=(1, 0, 0), sd=(1, 1, 1), origin="one image")
PARTS = ("train", "val", "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of three images with label maps, classes and ambiguous masks, one in each part."""
    rng = np.random.default_rng(0)
    labels = np.zeros((24, 24), np.int32)
    labels[4:9, 4:9], labels[14:20, 12:18] = 1, 2
    ambiguous = np.zeros((24, 24), bool)
    ambiguous[:, 21:] = True
    target = tmp_path / "set"
    target.mkdir()
    rows = [
        replace(
            write_sample(
                target,
                Sample(
                    image=rng.integers(0, 255, (24, 24, 3), np.uint8),
                    instances=labels,
                    id=part,
                    organ="liver",
                    mpp=0.5,
                    classes=np.array([0, 1, 2], np.int32),
                    ambiguous=ambiguous,
                ),
            ),
            split=part,
        )
        for part in PARTS
    ]
    split = SplitInfo(by="image", seed=0, sha256="0" * 64, counts={})
    info = DatasetInfo(name="set", images=3, nuclei=6, classes={1: "tumor", 2: "stroma"}, split=split)
    write_index(target, info, rows)
    return target


def move(path: Path) -> None:
    """Move a map by 7 px, as labels that were corrected are moved."""
    Image.fromarray(np.roll(np.asarray(Image.open(path)), 7, axis=1)).save(path)


def rename_class(folder: Path) -> None:
    path = folder / "dataset.yaml"
    path.write_text(path.read_text().replace("tumor", "immune"))


def rename_organ(folder: Path) -> None:
    path = folder / "index.csv"
    path.write_text(path.read_text().replace("liver", "spleen", 1))


CHANGES: dict[str, Callable[[Path], None]] = {
    "labels": lambda folder: move(folder / "labels" / "train.png"),
    "classes": lambda folder: move(folder / "classes" / "val.png"),
    "ambiguous mask": lambda folder: move(folder / "ambiguous" / "test.png"),
    "names of classes": rename_class,
    "organ": rename_organ,
}


@pytest.mark.parametrize("change", CHANGES)
def test_corrected_truth_is_other_data(folder: Path, change: str) -> None:
    def digests() -> tuple[str, str, str]:
        data = Dataset.open(folder)
        return data.digest(), digest_data([data], None, None), plan_data(folder, None, "test").digest

    before = digests()
    assert digests() == before
    CHANGES[change](folder)
    assert all(now != then for now, then in zip(digests(), before, strict=True))


def test_a_file_written_anew_with_the_same_labels_is_the_same_data(folder: Path) -> None:
    before = Dataset.open(folder).digest()
    path = folder / "labels" / "train.png"
    content = path.read_bytes()
    Image.open(path).save(path, compress_level=9)
    assert path.read_bytes() != content
    assert Dataset.open(folder).digest() == before


def test_a_part_is_not_the_whole(folder: Path) -> None:
    data = Dataset.open(folder)
    assert len({data.digest(), *(data.split(part).digest() for part in PARTS)}) == 4


def test_what_images_are_changed_to_is_part_of_a_training(folder: Path) -> None:
    data = Dataset.open(folder)
    assert digest_data([data], StainNormalizer(TARGET), None) != digest_data([data], None, None)
    assert digest_data([data, data], None, None) != digest_data([data], None, None)
