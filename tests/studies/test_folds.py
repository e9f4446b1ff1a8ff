"""Folds by group."""

from pathlib import Path

import pytest

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.studies.folds import fold_of


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


def test_folds_that_cannot_be(mini: Path) -> None:
    dataset = Dataset.open(mini)
    with pytest.raises(HemalumError, match=r"5 groups \(patient\) cannot be divided into 6 folds"):
        fold_of(dataset, 0, 6)
    with pytest.raises(HemalumError, match="fold 4 of 3: want 2 to 100 folds"):
        fold_of(dataset, 3, 3)
