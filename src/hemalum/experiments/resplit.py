"""A dataset under another split, without a second copy of its images."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hemalum.data.dataset import INDEX_FILE, Dataset, SplitInfo, write_index
from hemalum.data.splits import PARTS, Member, Part, split_by_counts, split_by_group, split_hash
from hemalum.errors import HemalumError, counted
from hemalum.experiments.papers import Split
from hemalum.manifest import holds_another, lock_folder


def imitate_split(dataset: Dataset, split: Split, *, seed: int = 0) -> dict[str, Part]:
    """The part of each image, by id, in a split made as a paper makes its own.

    Counts are scaled to the number of images at hand. Which images the paper drew is not known: the draw
    is fixed by their names (and by `seed`, for fractions). Raises HemalumError when a part would be empty.
    """
    members = [
        Member(
            row.id,
            row.id if split.by == "image" else row.group,
            None if split.stratify is None else getattr(row, split.stratify),
        )
        for row in dataset.rows
    ]
    if split.counts is not None:
        parts = split_by_counts(members, split.counts)
    elif split.fractions is not None:
        parts = split_by_group(members, split.fractions, seed=seed)
    empty = [part for part in PARTS if part not in parts.values()]
    if empty:
        raise HemalumError(f"{dataset.path}: {len(members)} images are too few for the paper's split: no {empty[0]}")
    return parts


def write_resplit(dataset: Dataset, parts: Mapping[str, Part], folder: Path, *, by: str, note: str) -> Dataset:
    """Write a dataset folder that shares the images of `dataset` and divides them into `parts`; open it.

    The images stay where they are (a link; a copy where the file system has none). A folder that is there already is
    kept when it holds the same split. Raises HemalumError when it holds another, or cannot be written.
    """
    with lock_folder(folder.parent):  # the folder itself is a dataset and nothing else
        if not (folder / INDEX_FILE).is_file():
            _write_split(_divided(dataset, parts, by=by, note=note), folder)
        resplit = Dataset.open(folder)
    same_images = [row.id for row in resplit.rows] == [row.id for row in dataset.rows]
    if resplit.split_hash != split_hash(parts) or not same_images:
        raise holds_another(folder, f"split of {dataset.info.name}", "take another output folder")
    return resplit


def _write_split(dataset: Dataset, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind in sorted(path.name for path in dataset.path.iterdir() if path.is_dir()):
            _link(dataset.path / kind, folder / kind)
        write_index(folder, dataset.info, dataset.rows)
    except OSError as error:
        raise HemalumError(f"cannot write {folder}: {error.strerror or error}") from error


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        target.symlink_to(source.resolve(), target_is_directory=True)
    except (OSError, NotImplementedError):
        shutil.copytree(source, target)


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
            f"{dataset.path}: {counted(len(sizes), 'group')} ({dataset.info.split.by}) cannot be divided into "
            f"{folds} folds, each with a val part: there can be at most as many folds as groups, and there "
            "must be 3 groups"
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
    note = f"fold {fold + 1} of {folds} of a comparison"
    return _divided(dataset, parts, by=dataset.info.split.by, note=note, seed=seed, fold=fold + 1)


def _divided(
    dataset: Dataset, parts: Mapping[str, Part], *, by: str, note: str, seed: int = 0, fold: int | None = None
) -> Dataset:
    """The dataset with its images in these parts."""
    rows = tuple(replace(row, split=parts[row.id]) for row in dataset.rows)
    split = SplitInfo.of(parts, by=by, fold=fold, note=note, seed=seed)
    return replace(dataset, rows=rows, info=dataset.info.model_copy(update={"split": split}))
