"""The datasets that a refinement gets beside the corrections: what it was trained on, and what guards it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hemalum.data import PARTS, Dataset
from hemalum.errors import HemalumError
from hemalum.experiments import check_scales
from hemalum.models import Model, SeenImages

ALL = "all"

DatasetSource = Dataset | Path | str  # a dataset folder, PATH:PART for another part of it than test


@dataclass(frozen=True, slots=True, eq=False)
class Guard:
    """Images that a refined model must not get worse on: a part of a dataset."""

    dataset: Dataset
    split: str
    digest: str  # of the images and labels as they are now

    @property
    def name(self) -> str:
        """The dataset and its part, in words."""
        return f"{self.dataset.info.name}, {self.split}"


def open_replay(source: DatasetSource, model: Model) -> Dataset:
    """The training part of the dataset that a model was trained on, with its validation part, which may guard.

    Raises HemalumError for a dataset whose training images the model has not learned from.
    """
    dataset = source if isinstance(source, Dataset) else Dataset.open(source)
    check_scales(dataset)
    training = model.card.training
    seen, rows = SeenImages.of(training), dataset.split("train").rows
    kept = {row.id for row in rows if seen.use_of(row.sha256) == "trained"}
    sets = [] if training is None else training.seen
    if not kept and any(one.name in seen.unrecorded and one.split_hash == dataset.split_hash for one in sets):
        kept = {row.id for row in rows}  # a card from before images were recorded, of this dataset and split
    if not kept:
        known = ", ".join(dict.fromkeys(one.name for one in sets)) or "nothing"
        raise HemalumError(
            f"--replay {dataset.path}: '{model.card.name}' has not learned from any of its training images (its card "
            f"names {known}): give what it was trained on, or leave --replay out to distill from the model"
        )
    return replace(dataset, rows=tuple(row for row in dataset.rows if row.split != "train" or row.id in kept))


def leave_out_corrected(dataset: Dataset, corrected: Mapping[str, str]) -> Dataset:
    """A dataset without the images that were corrected, told by their pixels (hashes): those learned from are in the
    corrections with better labels, and those held out are never learned from.

    Raises HemalumError where no training image is left.
    """
    rows = tuple(row for row in dataset.rows if row.sha256 not in corrected)
    if not any(row.split == "train" for row in rows):
        raise HemalumError(
            f"--replay {dataset.path}: all of its training images were corrected, so none is left of before: leave "
            "--replay out to distill from the model"
        )
    return replace(dataset, rows=rows)


def open_guard(source: DatasetSource) -> Guard:
    """A guard as it is written: DATASET for its test part, DATASET:PART, or DATASET:all.

    Raises HemalumError where the part is empty or has no labels.
    """
    split = "test"
    if not isinstance(source, Dataset):
        path, colon, word = str(source).rpartition(":")
        if colon and word in (*PARTS, ALL) and not Path(source).is_dir():
            source, split = path, word
    dataset = source if isinstance(source, Dataset) else Dataset.open(source)
    return as_guard(dataset, split)


def as_guard(dataset: Dataset, split: str) -> Guard:
    """A part of an open dataset as a guard. Raises HemalumError as `open_guard` does."""
    part = dataset if split == ALL else dataset.split(split)
    if not len(part):
        raise HemalumError(
            f"--guard {dataset.path}: no images in part '{split}'; give another one, as {dataset.path}:all"
        )
    if not any(row.nuclei for row in part.rows):
        raise HemalumError(
            f"--guard {dataset.path}: no image of part '{split}' has a labeled nucleus, and without labels nothing "
            "can be measured"
        )
    check_scales(part)
    return Guard(part, split, part.digest())


def check_apart(guards: Sequence[Guard], corrected: Mapping[str, str], replay: Dataset | None, model: Model) -> None:
    """Raise HemalumError where images of a guard are learned from, told by their pixels.

    `corrected` are names of items by hash. A model whose card does not tell what it has seen is taken at its word.
    """
    replayed = {} if replay is None else {row.sha256: row.id for row in replay.split("train").rows}
    seen = SeenImages.of(model.card.training)
    for guard in guards:
        for row in guard.dataset.rows:
            where = None
            if row.sha256 in corrected:
                where = f"is the corrected item {corrected[row.sha256]}"
            elif row.sha256 in replayed:
                where = f"is training image {replayed[row.sha256]} of --replay"
            elif seen.use_of(row.sha256) == "trained":
                where = f"is one that '{model.card.name}' has learned from"
            if where is not None:
                raise HemalumError(
                    f"--guard {guard.dataset.path}: image {row.id} of part '{guard.split}' {where}: guard with "
                    "images that are not trained on"
                )
