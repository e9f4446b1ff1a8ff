"""Folds for cross-validation: by group, like every split."""

import hashlib
from collections import Counter
from dataclasses import replace

from hemalum.data.dataset import Dataset, SplitInfo
from hemalum.data.splits import PARTS, Member, Part, split_by_group, split_hash
from hemalum.errors import HemalumError

VAL_SHARE = 0.15  # of what a fold does not test on


def fold_of(dataset: Dataset, fold: int, folds: int, *, seed: int = 0) -> Dataset:
    """The dataset with another split: fold number `fold` (from 0) of `folds` is its test part.

    Groups are dealt out whole, the largest first, each to the fold that has the fewest images; equal ones in an
    order that `seed` and their names fix. The val part is cut from the rest, by group. Each group is in the test
    part of exactly one fold.

    Raises HemalumError when there are fewer groups than folds, or too few to leave a val part.
    """
    if not 2 <= folds <= 100 or not 0 <= fold < folds:
        raise HemalumError(f"fold {fold + 1} of {folds}: want 2 to 100 folds and one of them")
    sizes = Counter(row.group for row in dataset.rows)
    if len(sizes) < max(folds, 3):
        raise HemalumError(
            f"{dataset.path}: {len(sizes)} groups ({dataset.info.split.by}) cannot be divided into {folds} folds, "
            "each with a val part: there can be at most as many folds as groups, and there must be 3 groups"
        )
    order = sorted(sizes, key=lambda group: (-sizes[group], hashlib.sha256(f"{seed}:{group}".encode()).digest()))
    load = [0] * folds
    tested: set[str] = set()
    for group in order:
        least = load.index(min(load))
        load[least] += sizes[group]
        if least == fold:
            tested.add(group)
    rest = [Member(row.id, row.group, row.stain) for row in dataset.rows if row.group not in tested]
    parts: dict[str, Part] = dict(split_by_group(rest, (1 - VAL_SHARE, VAL_SHARE, 0.0), seed=seed))
    parts |= {row.id: "test" for row in dataset.rows if row.group in tested}
    rows = tuple(replace(row, split=parts[row.id]) for row in dataset.rows)
    split = SplitInfo(
        by=dataset.info.split.by,
        fold=fold + 1,
        note=f"fold {fold + 1} of {folds} of a comparison",
        seed=seed,
        sha256=split_hash(parts),
        counts={part: sum(row.split == part for row in rows) for part in PARTS},
    )
    return replace(dataset, rows=rows, info=dataset.info.model_copy(update={"split": split}))
