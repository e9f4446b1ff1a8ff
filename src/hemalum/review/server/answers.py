"""Items and nuclei as the page gets them."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from hemalum.errors import HemalumError
from hemalum.review import edits
from hemalum.review.edits import Edit
from hemalum.review.event import Event
from hemalum.review.item import ItemState
from hemalum.review.kept_fields import NucleusFigures
from hemalum.review.nucleus import Nucleus, Ring
from hemalum.review.server.schema import ChangesAnswer, EditRequest, EventAnswer, NucleusAnswer, NucleusCounts

STEPS = 8  # of a point to a px


def open_points(ring: Ring) -> list[float]:
    """A ring as x, y, x, y …, rounded to 1/8 px, without its last point."""
    points: list[float] = (np.rint(ring[:-1].astype(np.float64) * STEPS) / STEPS).ravel().tolist()
    return points


def count_nuclei(state: ItemState) -> NucleusCounts:
    """How many nuclei an item has, by state."""
    first = len(state.start)
    tally = dict.fromkeys(("proposed", "accepted", "rejected"), 0)
    tally["proposed"] = first - sum(1 for id in state.changes if id <= first)
    added = 0
    for id, nucleus in state.changes.items():
        if nucleus is not None:
            tally[nucleus.state] += 1
            added += id > first and nucleus.counts
    return NucleusCounts(nuclei=tally["proposed"] + tally["accepted"], added=added, **tally)


def answer_nuclei(state: ItemState, ids: Iterable[int], figures: NucleusFigures) -> list[NucleusAnswer]:
    """The nuclei of an item with these ids; `figures` hold what the model was unsure of, by starting nucleus."""
    return [_answer_nucleus(state, id, state[id], figures) for id in ids]


def _answer_nucleus(state: ItemState, id: int, nucleus: Nucleus, figures: NucleusFigures) -> NucleusAnswer:
    known: dict[str, Any] = {
        name: _known(getattr(figures, name), id) for name in ("entropy", "disagreement", "distance", "probability")
    }
    touch = state.touches.get(id)
    return NucleusAnswer.model_construct(
        id=id,
        points=open_points(nucleus.ring),
        class_name=nucleus.class_name,
        state=nucleus.state,
        by=None if touch is None else touch.author,
        **known,
    )


def _known(values: Any, id: int) -> float | None:
    """The value of a starting nucleus, from id 1; None for one that was drawn, and where it is not known."""
    if id > len(values):
        return None
    value = float(values[id - 1])
    return round(value, 4) if math.isfinite(value) else None


def answer_changes(
    state: ItemState, events: Iterable[Event], figures: Callable[[], NucleusFigures], author: str
) -> ChangesAnswer:
    """What events up to the state's version have made of an item."""
    events = [event for event in events if event.id <= state.version]
    touched = sorted({id for event in events for id in event.after.nuclei})
    there = [id for id in touched if id in state]
    return ChangesAnswer.model_construct(
        version=state.version,
        status=state.status,
        changed=answer_nuclei(state, there, figures()) if there else [],
        removed=[id for id in touched if id not in state],
        events=[EventAnswer(id=one.id, author=one.author, time=one.time, kind=one.kind) for one in events],
        counts=count_nuclei(state),
        can_undo=bool(state.done.get(author)),
        can_redo=bool(state.undone.get(author)),
    )


def make_edit(state: ItemState, request: EditRequest) -> Edit:
    """The edit that a request asks for. Raises HemalumError where no reviewer could make it."""
    kind, ids = request.kind, request.ids
    points = np.array(request.points, np.float64).reshape(-1, 2)
    if kind == "add":
        return edits.add(state, points, request.class_name)
    if kind == "mark":
        if request.status is None:
            raise HemalumError("give the status of the item: open, reviewed or skipped")
        return edits.mark(state, request.status)
    if kind == "classify":
        return edits.classify(state, ids, request.class_name)
    if kind in ("split", "reshape"):
        if len(ids) != 1:
            raise HemalumError(f"choose one nucleus to {kind}, not {len(ids)}")
        return edits.split(state, ids[0], points) if kind == "split" else edits.reshape(state, ids[0], points)
    change = {"delete": edits.delete, "merge": edits.merge, "accept": edits.accept, "reject": edits.reject}[kind]
    return change(state, ids)
