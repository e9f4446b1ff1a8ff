"""The corrections of a review as training data: which items, which of them are held out, and their images."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data import Dataset, hash_lines
from hemalum.data.splits import Part
from hemalum.errors import HemalumError, counted, one_line
from hemalum.files import write_text
from hemalum.manifest import lock_folder, read_manifest
from hemalum.models import Model
from hemalum.review.fields import SIDE
from hemalum.review.item import Item, ItemState
from hemalum.review.labels import export_dataset
from hemalum.review.project import KIND, Project
from hemalum.review.sources import ImagePool, cut_items, open_source

HELD_OUT = "held_out.json"  # in the project: the part of each group, which never changes
HOLDOUT = 0.25
FEWEST_GROUPS = 2  # one to learn from, one to measure on
CHANGES = ("add", "delete", "split", "merge", "reshape", "classify", "reject", "undo", "redo")  # kinds of events

ReadImage = Callable[[Item], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class Corrections:
    """The items of a project that are marked as reviewed.

    `parts` are "train" or "test" (held out) by item, `events` what reviewers did by kind, `digest` is over items,
    pixels and versions.
    """

    project: str
    name: str
    states: tuple[ItemState, ...]
    parts: Mapping[str, Part]
    events: Mapping[str, int]
    digest: str

    @classmethod
    def of(cls, project: Project, holdout: float = HOLDOUT) -> "Corrections":
        """Those of a project, with a share `holdout` of their groups held out, at least one.

        Items of one image are one group. What a group is, is decided once and noted in the project, so that what was
        held out is never learned from, and what was learned from is never measured on. Raises HemalumError where no
        item is reviewed, nothing was changed in them, their scale is not known, or their images are too few.
        """
        if not 0 < holdout < 1:
            raise HemalumError(f"--holdout is {holdout}: want a share between 0 and 1, such as 0.25")
        journal = project.journal
        states = [state for name in journal.names() if (state := journal.state(name)).status == "reviewed"]
        events = Counter(event.kind for state in states for event in journal.events(state.item.name))
        _check(project, states, events)
        groups = {state.item.name: group_of(state.item) for state in states}
        parts = _assign(project.folder, sorted(set(groups.values())), holdout)
        lines = [f"{state.item.name}:{state.item.sha256}:{state.version}" for state in states]
        return cls(
            project=str(read_manifest(project.folder, KIND)["id"]),
            name=project.folder.name,
            states=tuple(states),
            parts={name: parts[group] for name, group in groups.items()},
            events=dict(sorted(events.items())),
            digest=hash_lines(lines),
        )

    @property
    def pixel_hashes(self) -> dict[str, str]:
        """The names of the items by the hash of their pixels."""
        return {state.item.sha256: state.item.name for state in self.states}

    def count(self, part: Part) -> int:
        """How many items are in a part."""
        return sum(one == part for one in self.parts.values())

    def export(self, project: Project, out: Path, read_image: ReadImage) -> Dataset:
        """Write them as a dataset into `out`, or open what was written there; rows have groups as `group_of` says.

        Raises HemalumError where an image is gone or another than the one that was reviewed.
        """
        dataset = (
            Dataset.open(out) if out.exists() else export_dataset(project.journal, out, read_image, parts=self.parts)
        )
        groups = [group_of(state.item) for state in self.states]
        if len(groups) != len(dataset):
            raise HemalumError(f"{out}: holds other items than are reviewed now; remove it and run again")
        rows = tuple(replace(row, group=group) for row, group in zip(dataset.rows, groups, strict=True))
        info = dataset.info.model_copy(update={"name": f"corrections_{self.project[:8]}"})
        return replace(dataset, rows=rows, info=info)


@contextmanager
def open_images(project: Project) -> Iterator[ReadImage]:
    """What gives the image (H, W, 3) uint8 of an item of a project, from the project's source.

    Raises HemalumError where the source is gone; the function does for an image that is gone or changed.
    """
    options = project.options
    try:
        source = open_source(
            project.source, project.folder, mpp=options.get("mpp"), slide=options.get("slide"),
            recursive=options.get("recursive", True),
        )  # fmt: skip
    except HemalumError as error:
        raise HemalumError(f"{project.folder}: the images of this review cannot be opened: {error}") from error
    side = options.get("side", SIDE)
    items = {item.name: (image, item.window) for image in source.images for item in cut_items(image, side)}
    with closing(ImagePool()) as pool:

        def read_image(item: Item) -> NDArray[np.uint8]:
            if item.name not in items:
                raise HemalumError(f"{item.name}: its image is not in {project.source} any more; put it back")
            image, window = items[item.name]
            with pool.open(image) as slide:
                return slide.rows(0, slide.shape[0]) if window is None else slide.read(*window)

        yield read_image


def group_of(item: Item) -> str:
    """What an item is kept together with: its group, else its image."""
    image = re.sub(r" \d+,\d+,\d+,\d+$", "", item.name)  # a window is called by its image and place
    return item.group or item.source or image


def check_origin(project: Project, model: Model) -> None:
    """Raise HemalumError where a project is of another model than this one and those that it was refined from."""
    refinement = model.card.refinement
    if project.model_digest not in {model.digest, *([] if refinement is None else refinement.ancestors)}:
        raise HemalumError(
            f"{project.folder}: is a review of another model, '{project.model}', and '{model.card.name}' was not "
            "refined from it: refine that one, or review with this one"
        )


def _check(project: Project, states: Sequence[ItemState], events: Mapping[str, int]) -> None:
    if not states:
        raise HemalumError(
            f"{project.folder}: no item is marked as reviewed, so there are no corrections to refine on: "
            f"hemalum review {project.source} -p {project.folder}"
        )
    if not any(events.get(kind) for kind in CHANGES):
        raise HemalumError(
            f"{project.folder}: no nucleus was changed in {counted(len(states), 'reviewed item')}, so there are no "
            "corrections to refine on"
        )
    without = [state.item.name for state in states if state.item.mpp is None]
    if without:
        raise HemalumError(
            f"{project.folder}: the scale of {without[0]} is not known, which training needs: review it in a project "
            "that was begun with --mpp NUMBER"
        )


def _assign(folder: Path, groups: Sequence[str], holdout: float) -> dict[str, Part]:
    """The part of each group: as it was decided before, else by the hash of its name."""
    if len(groups) < FEWEST_GROUPS:
        raise HemalumError(
            f"{folder}: items of {counted(len(groups), 'image')} are marked as reviewed; refining needs those of at "
            f"least {FEWEST_GROUPS} images, one to learn from and one that is held out"
        )
    with lock_folder(folder):
        known = _read_parts(folder / HELD_OUT)
        parts = {group: known[group] for group in groups if group in known}
        new = sorted(set(groups) - known.keys(), key=_hash)
        wanted = min(max(1, round(holdout * len(groups))), len(groups) - 1)
        missing = max(0, wanted - sum(part == "test" for part in parts.values()))
        parts |= {group: "test" if index < missing else "train" for index, group in enumerate(new)}
        for part, what in (("test", "held out"), ("train", "learned from")):
            if part not in parts.values():
                other = "learned from" if part == "test" else "held out"
                raise HemalumError(
                    f"{folder}: all {len(groups)} images with reviewed items were {other} before, which does not "
                    f"change; review at least one more, to be {what}"
                )
        write_text(folder / HELD_OUT, json.dumps(known | parts, indent=2, ensure_ascii=False) + "\n")
    return parts


def _hash(group: str) -> str:
    return hashlib.sha256(group.encode("utf-8", "surrogateescape")).hexdigest()


def _read_parts(path: Path) -> dict[str, Part]:
    if not path.exists():
        return {}
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not set(content.values()) <= {"train", "test"}:
            raise ValueError("not groups with train or test")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise HemalumError(f"{path}: cannot be read ({one_line(error)}); put it back from a copy") from error
    return content
