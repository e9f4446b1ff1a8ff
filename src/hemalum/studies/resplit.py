"""A dataset under another split, without a second copy of its images."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hemalum.data.dataset import INDEX_FILE, Dataset, SplitInfo, write_index
from hemalum.data.splits import PARTS, Member, Part, split_by_counts, split_by_group, split_hash
from hemalum.errors import HemalumError
from hemalum.studies.published import Split


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
    digest = split_hash(parts)
    if (folder / INDEX_FILE).is_file():
        there = Dataset.open(folder)
        if there.split_hash != digest or [row.id for row in there.rows] != [row.id for row in dataset.rows]:
            raise HemalumError(f"{folder}: holds another split of {dataset.info.name}; take another output folder")
        return there
    rows = [replace(row, split=parts[row.id]) for row in dataset.rows]
    info = dataset.info.model_copy(
        update={
            "split": SplitInfo(
                by=by,
                seed=0,
                note=note,
                sha256=digest,
                counts={part: sum(row.split == part for row in rows) for part in PARTS},
            )
        }
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind in sorted(path.name for path in dataset.path.iterdir() if path.is_dir()):
            _link(dataset.path / kind, folder / kind)
        write_index(folder, info, rows)
    except OSError as error:
        raise HemalumError(f"cannot write {folder}: {error.strerror or error}") from error
    return Dataset.open(folder)


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        target.symlink_to(source.resolve(), target_is_directory=True)
    except (OSError, NotImplementedError):
        shutil.copytree(source, target)
