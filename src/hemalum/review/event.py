"""An event: one change to an item as the journal keeps it, and the fold that makes the item's nuclei of events."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hemalum.errors import HemalumError
from hemalum.review.item import ITEM, STATUSES, ItemState, Status, Touch
from hemalum.review.nucleus import STATES, Nucleus

UNDO, REDO = "undo", "redo"
KINDS = ("add", "delete", "split", "merge", "reshape", "classify", "accept", "reject", "mark", UNDO, REDO)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One side of a change: nuclei by id, None for what is not there, and the item's status where that changes."""

    nuclei: Mapping[int, Nucleus | None] = field(default_factory=dict)
    status: Status | None = None

    @property
    def touched(self) -> list[int]:
        """What the change is of: ids, and `ITEM` for the status."""
        return [*self.nuclei, *([] if self.status is None else [ITEM])]


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """One event of an item. `time` is UTC, ISO 8601; `parent` is the version of the item that it was made on.

    `target` is the event that an undo takes back, or a redo makes again.
    """

    id: int
    item: str
    author: str
    time: str
    kind: str
    before: Side
    after: Side
    parent: int
    target: int | None = None

    @property
    def touch(self) -> Touch:
        """Who, when and what, as the item remembers it."""
        return Touch(self.id, self.author, self.time, self.kind)


def fold(state: ItemState, events: Iterable[Event]) -> ItemState:
    """The item after events on it, in their order."""
    changes, touches = dict(state.changes), dict(state.touches)
    done = {author: list(ids) for author, ids in state.done.items()}
    undone = {author: list(ids) for author, ids in state.undone.items()}
    version, status, next_id = state.version, state.status, state.next_id
    for event in events:
        changes.update(event.after.nuclei)
        touches.update(dict.fromkeys(event.after.touched, event.touch))
        version, status = event.id, event.after.status or status
        next_id = max([next_id, *(id + 1 for id in event.after.nuclei)])
        turned = undone.setdefault(event.author, [])
        made = done.setdefault(event.author, [])
        if event.target is None:
            made.append(event.id)
            turned.clear()
        else:
            source, goal = (made, turned) if event.kind == UNDO else (turned, made)
            if event.target in source:
                source.remove(event.target)
            goal.append(event.target)
    return replace(
        state,
        version=version,
        status=status,
        changes=changes,
        touches=touches,
        next_id=next_id,
        done={author: tuple(ids) for author, ids in done.items()},
        undone={author: tuple(ids) for author, ids in undone.items()},
    )


def encode_side(side: Side) -> str:
    """One side as JSON: nuclei by id as [x, y, x, y …], class and state; a float32 comes back to the last bit."""
    nuclei = {
        str(id): None if one is None else [one.ring.ravel().astype(float).tolist(), one.class_name, one.state]
        for id, one in side.nuclei.items()
    }
    content = {"nuclei": nuclei} | ({} if side.status is None else {"status": side.status})
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def decode_side(text: str) -> Side:
    """What `encode_side` wrote. Raises HemalumError for anything else."""
    try:
        content = json.loads(text)
        nuclei = {int(id): _decode_nucleus(value) for id, value in content["nuclei"].items()}
        status = content.get("status")
        if min(nuclei, default=1) < 1 or status not in (None, *STATUSES):
            raise ValueError("an id or status that there is not")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise HemalumError(f"is damaged ({' '.join(str(error).split())[:80]})") from error
    return Side(nuclei, status)


def _decode_nucleus(value: Any) -> Nucleus | None:
    if value is None:
        return None
    flat, class_name, state = value
    ring = np.asarray(flat, np.float32).reshape(-1, 2)
    named = class_name is None or isinstance(class_name, str)
    if len(ring) < 4 or not np.isfinite(ring).all() or not named or state not in STATES:
        raise ValueError("not a nucleus")
    return Nucleus(ring, class_name, state)
