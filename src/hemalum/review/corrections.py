"""The corrections of a review as training data: which items, which of them are held out, and their images."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemalum.data import Dataset, hash_lines
from hemalum.data.splits import Part
from hemalum.errors import HemalumError, counted
from hemalum.models import Model
from hemalum.review.fields import SIDE
from hemalum.review.holding_out import HOLDOUT, check_holdout, group_of, hold_out
from hemalum.review.item import Item, ItemState
from hemalum.review.labels import export_dataset
from hemalum.review.project import Project
from hemalum.review.sources import ImagePool, cut_items, open_source

CHANGES = ("add", "delete", "split", "merge", "reshape", "classify", "reject", "undo", "redo")  # kinds of events

ReadImage = Callable[[Item], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class Corrections:
    """The items of a project that are marked as reviewed.

    `parts` are "train" or "test" (held out) by item, `events` what reviewers did by kind, `digest` is over items,
    pixels and versions. `by_window` names the images of which some windows are held out, and some learned from.
    """

    project: str
    name: str
    states: tuple[ItemState, ...]
    parts: Mapping[str, Part]
    events: Mapping[str, int]
    digest: str
    by_window: tuple[str, ...] = ()

    @classmethod
    def of(cls, project: Project, holdout: float = HOLDOUT) -> "Corrections":
        """Those of a project, with a share `holdout` of them held out as `hold_out` has it.

        Raises HemalumError where no item is reviewed, nothing was changed in them, their scale is not known, or they
        are too few.
        """
        check_holdout(holdout)
        journal = project.journal
        states = [state for name in journal.names() if (state := journal.state(name)).status == "reviewed"]
        events = Counter(event.kind for state in states for event in journal.events(state.item.name))
        _check(project, states, events)
        parts, by_window = hold_out(project.folder, [state.item for state in states], holdout)
        lines = [f"{state.item.name}:{state.item.sha256}:{state.version}" for state in states]
        return cls(
            project=project.id,
            name=project.folder.name,
            states=tuple(states),
            parts=parts,
            events=dict(sorted(events.items())),
            digest=hash_lines(lines),
            by_window=by_window,
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
