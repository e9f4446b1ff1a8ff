"""What the journal refuses: a change to what another has changed since, and what no edit can give."""

import numpy as np

from hemalum.errors import HemalumError
from hemalum.review.edits import Edit, find_shared
from hemalum.review.event import Side
from hemalum.review.item import ITEM, Item, ItemState, Touch
from hemalum.review.nucleus import Nucleus, Ring, check_simple, same_ring


class Conflict(HemalumError):
    """A change that is refused because another came first: `touch` says who and when, `edit` is the one refused.

    `touched` is the id of the nucleus in question, 0 for the item's status. Nothing was written; `edit` is None for
    an undo or a redo.
    """

    def __init__(self, touched: int, touch: Touch, edit: Edit | None) -> None:
        what = "the item's status" if touched == ITEM else f"nucleus {touched}"
        super().__init__(f"{what} was changed by {touch} in the meantime: look at it and edit again")
        self.touched, self.touch, self.edit = touched, touch, edit


def check_current(state: ItemState, before: Side, parent: int, edit: Edit | None) -> None:
    """Raise Conflict where what a change touches is not as it was at `parent`, when its author looked at it."""
    for id in before.touched:
        same = before.status == state.status if id == ITEM else before.nuclei[id] == state.get(id)
        touch = state.touches.get(id)
        if touch is not None and (touch.event > parent or not same):
            raise Conflict(id, touch, edit)
        if not same:
            raise HemalumError(f"nucleus {id} is not as the edit has it: the edit is of another item")


def _placed(before: Side, after: Side) -> dict[int, Nucleus]:
    """The nuclei that hold pixels after a change, and not the same ones before."""
    placed = {}
    for id, nucleus in after.nuclei.items():
        known = before.nuclei.get(id)
        stays = known is not None and known.counts and nucleus is not None and same_ring(known.ring, nucleus.ring)
        if nucleus is not None and nucleus.counts and not stays:
            placed[id] = nucleus
    return placed


def check_rings(item: Item, before: Side, after: Side) -> None:
    """Raise HemalumError for an outline that is new and that no edit gives."""
    for id, nucleus in after.nuclei.items():
        known = before.nuclei.get(id)
        if nucleus is not None and (known is None or not same_ring(known.ring, nucleus.ring)):
            _check_ring(item, nucleus.ring)


def _check_ring(item: Item, ring: Ring) -> None:
    height, width = item.shape
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 4 or ring.dtype != np.float32:
        raise HemalumError("an outline must be (M, 2) float32 with three points and more")
    if not ((ring >= 0) & (ring <= (width, height))).all() or not (ring[0] == ring[-1]).all():
        raise HemalumError("an outline must be closed and lie in the image")
    check_simple(ring)


def check_room(state: ItemState, before: Side, after: Side, edit: Edit | None) -> None:
    """Raise Conflict where a nucleus would lie on another that came first, HemalumError on one never touched."""
    for id, other in find_shared(state, _placed(before, after), set(before.nuclei)):
        touch = state.touches.get(other)
        if touch is not None and other not in before.nuclei:
            raise Conflict(other, touch, edit)
        raise HemalumError(f"nucleus {id} would lie on pixels of nucleus {other}: delete or reshape that first")
