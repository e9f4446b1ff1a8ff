"""Items under review: discs that touch or not, with a journal."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import pixel_hash
from hemalum.nuclei.nuclei import Nuclei
from hemalum.review.edits import Edit
from hemalum.review.event import Event, Side, fold
from hemalum.review.item import Item, ItemState, Start
from hemalum.review.journal import Journal
from hemalum.review.nucleus import pixels_of

PROJECT = "00ff"
NAME = "kidney_1.png"


def draw_labels(shape: tuple[int, int] = (60, 80)) -> NDArray[np.int32]:
    """Four discs: 1 and 2 touch, 3 lies apart from 2 by one px, 4 is alone."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    labels = np.zeros(shape, np.int32)
    for number, (y, x, radius) in enumerate([(15, 12, 8), (15, 27, 8), (15, 43, 7), (44, 60, 9)], 1):
        labels[((rows - y) ** 2 + (columns - x) ** 2 <= radius**2) & (labels == 0)] = number
    return labels


def image_of(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Dark where there are nuclei, (H, W, 3) uint8."""
    return np.where(labels[..., None] > 0, (90, 60, 140), (230, 190, 220)).astype(np.uint8)


def make_item(labels: NDArray[np.int32], name: str = NAME, **facts: Any) -> Item:
    """The item of the image of a label map."""
    height, width = labels.shape
    return Item(name, (height, width), pixel_hash(image_of(labels)), **facts)


def make_state(labels: NDArray[np.int32] | None = None, class_names: tuple[str, ...] = ()) -> ItemState:
    """An item that nobody has touched; of the classes, nuclei have none."""
    labels = draw_labels() if labels is None else labels
    start = Start.of(Nuclei.from_labels(labels))
    return ItemState.first(make_item(labels), Start(start.outlines, start.class_numbers, class_names))


def apply(state: ItemState, edit: Edit, author: str = "Anna") -> ItemState:
    """The item after an edit, as the journal would have it."""
    new = dict(enumerate(edit.new, state.next_id))
    status = edit.status or (None, None)
    before = Side({**edit.before, **dict.fromkeys(new)}, status[0])
    after = Side({**dict.fromkeys(edit.before), **edit.after, **new}, status[1])
    event = Event(state.version + 1, NAME, author, "2026-01-01T00:00:00", edit.kind, before, after, state.version)
    return fold(state, [event])


def owners(state: ItemState) -> NDArray[np.int64]:
    """By how many nuclei that count each pixel is held, (H, W)."""
    height, width = state.item.shape
    held = np.zeros((height, width), np.int64)
    for nucleus in state.values():
        if nucleus.counts:
            held += pixels_of(nucleus.ring, (0, 0, width, height))
    return held


def make_journal(folder: Path, name: str = "review.sqlite") -> Journal:
    """A journal with the item of `draw_labels`."""
    journal = Journal.create(folder / name, PROJECT)
    labels = draw_labels()
    journal.add_item(make_item(labels, mpp=0.25, organ="kidney"), Nuclei.from_labels(labels))
    return journal


def square(left: float, top: float, side: float = 6) -> list[list[float]]:
    """A closed outline as the page sends it."""
    right, bottom = left + side, top + side
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
