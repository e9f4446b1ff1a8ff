"""Folds by group, and splits made as papers make theirs."""

from pathlib import Path

import pytest

from hemalum.data.dataset import Dataset
from hemalum.data.splits import split_hash
from hemalum.errors import HemalumError
from hemalum.experiments.papers import Split
from hemalum.experiments.resplit import fold_of, imitate_split, write_resplit


def test_every_group_is_tested_once_and_never_trained_on_then(mini: Path) -> None:
    dataset = Dataset.open(mini)  # ten images in five groups
    folds = [fold_of(dataset, fold, 3) for fold in range(3)]
    tested = [row.id for fold in folds for row in fold.split("test").rows]
    assert sorted(tested) == sorted(row.id for row in dataset.rows)
    for fold in folds:
        groups = {part: {row.group for row in fold.split(part).rows} for part in ("train", "val", "test")}
        assert all(groups.values())
        assert not groups["train"] & groups["test"]
        assert not groups["train"] & groups["val"]
        assert not groups["val"] & groups["test"]
    assert len({fold.split_hash for fold in folds}) == 3
    sizes = sorted(len(fold.split("test")) for fold in folds)
    assert sizes == [2, 4, 4]


def test_a_fold_is_the_same_every_time(mini: Path) -> None:
    first, again = (fold_of(Dataset.open(mini), 1, 4) for _ in range(2))
    assert first.split_hash == again.split_hash
    assert first.rows == again.rows
    assert first.info.split.fold == 2


@pytest.mark.fault
def test_folds_that_cannot_be(mini: Path) -> None:
    dataset = Dataset.open(mini)
    with pytest.raises(HemalumError, match=r"5 groups \(patient\) cannot be divided into 6 folds"):
        fold_of(dataset, 0, 6)
    with pytest.raises(HemalumError, match="fold 4 of 3: want 2 to 100 folds"):
        fold_of(dataset, 3, 3)


def test_a_split_by_image_has_the_counts_of_the_paper(mini: Path) -> None:
    dataset = Dataset.open(mini)
    parts = imitate_split(dataset, Split(by="image", counts=(30, 10, 10), tag="stated"))
    assert sorted(parts.values()) == ["test"] * 2 + ["train"] * 6 + ["val"] * 2
    assert parts == imitate_split(dataset, Split(by="image", counts=(30, 10, 10), tag="stated"))
    by_group = imitate_split(dataset, Split(by="group", fractions=(0.6, 0.2, 0.2), tag="stated"))
    kept = {
        row.group: {by_group[other.id] for other in dataset.rows if other.group == row.group} for row in dataset.rows
    }
    assert all(len(splits) == 1 for splits in kept.values())


@pytest.mark.fault
def test_a_part_that_would_be_empty_is_refused(mini: Path) -> None:
    with pytest.raises(HemalumError, match="too few for the paper's split: no train"):
        imitate_split(Dataset.open(mini), Split(by="image", counts=(0, 5, 5), tag="stated"))


@pytest.mark.fault
def test_a_resplit_shares_its_images_and_is_kept(mini: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(mini)
    parts = imitate_split(dataset, Split(by="image", counts=(6, 2, 2), tag="stated"))
    first = write_resplit(dataset, parts, tmp_path / "other", by="image", note="for a test")
    assert first.split_hash == split_hash(parts)
    assert first.info.split.counts == {"train": 6, "val": 2, "test": 2}
    assert write_resplit(dataset, parts, tmp_path / "other", by="image", note="for a test") == first
    swapped = parts | {dataset.rows[0].id: "test" if parts[dataset.rows[0].id] != "test" else "val"}
    with pytest.raises(HemalumError, match="holds another split of mini"):
        write_resplit(dataset, swapped, tmp_path / "other", by="image", note="for a test")
