"""What a reviewer can do to the nuclei of an item: pure functions that give an `Edit`, and change nothing.

Each takes the item as it is (`ItemState`), ids of nuclei and points in px of the image, and checks all that a
reviewer can get wrong. No edit changes a nucleus that it does not name: an outline that is drawn over neighbors gets
the pixels that are free (`hemalum.review.nucleus.clip_to_free`). What is split or merged is gone, and its parts or
their union are new nuclei; what is reshaped stays the same nucleus.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from shapely.ops import split as cut

from hemalum.errors import HemalumError, nearest
from hemalum.review.item import STATUSES, ItemState, Status
from hemalum.review.nucleus import (
    Nucleus,
    Ring,
    as_line,
    as_ring,
    check_simple,
    clip_to_free,
    pixels_of,
    share_pixels,
    trace_piece,
    window_of,
)

MAX_NUCLEI = 1_000  # that one edit changes
GAP = 2  # px between nuclei that are merged across it

Points = Sequence[Sequence[float]] | NDArray[Any]
Kind = Literal["add", "delete", "split", "merge", "reshape", "classify", "accept", "reject", "mark"]


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """A change to an item: the nuclei `before` by id, what they are `after` (those that go are left out), and `new`
    ones, which the journal gives ids. `status` is the item's, before and after, where that is what changes."""

    kind: Kind
    before: Mapping[int, Nucleus] = field(default_factory=dict)
    after: Mapping[int, Nucleus] = field(default_factory=dict)
    new: tuple[Nucleus, ...] = ()
    status: tuple[Status, Status] | None = None


def add(state: ItemState, points: Points, class_name: str | None = None) -> Edit:
    """A new nucleus with an outline as drawn. Raises HemalumError as `as_ring`, `clip_to_free` and `classify` do."""
    _check_class(state, class_name)
    ring = _clip(state, as_ring(points, state.item.shape))
    return Edit("add", new=(Nucleus(ring, class_name, "accepted"),))


def delete(state: ItemState, ids: Iterable[int]) -> Edit:
    """Nuclei taken away: what was drawn by mistake. What the model proposed by mistake is rather rejected."""
    return Edit("delete", before=_require(state, ids))


def reshape(state: ItemState, id: int, points: Points) -> Edit:
    """The same nucleus with an outline as drawn. Raises HemalumError as `add` does, and for one rejected."""
    before = _require(state, [id], counting=True)
    ring = _clip(state, as_ring(points, state.item.shape), without={id})
    return Edit("reshape", before, {id: replace(before[id], ring=ring, state="accepted")})


def split(state: ItemState, id: int, points: Points) -> Edit:
    """The nucleus cut along a line that begins and ends outside of it; each part is a new nucleus of its class.

    A part without a pixel is none. Raises HemalumError for a line that leaves the image, crosses itself or does not
    cut the nucleus into two or more, and for one rejected.
    """
    before = _require(state, [id], counting=True)
    line = as_line(points, state.item.shape)
    path = shapely.LineString(line.astype(np.float64)) if len(line) > 1 else None
    if path is None:
        raise HemalumError("the line has fewer than two points: draw it across the nucleus")
    if not path.is_simple:
        raise HemalumError("the line crosses itself: draw it once across the nucleus")
    polygon = shapely.Polygon(before[id].ring.astype(np.float64))
    if not polygon.is_valid:
        raise HemalumError(f"the outline of nucleus {id} crosses itself: reshape it first")
    parts = [np.asarray(part.exterior.coords, np.float32) for part in cut(polygon, path).geoms]
    rings = [ring for ring in parts if pixels_of(ring, window_of([ring], state.item.shape)).any()]
    if len(rings) < 2:
        raise HemalumError(f"the line does not cut nucleus {id} in two: begin and end it outside of the outline")
    clipped: list[tuple[str, Ring]] = []
    for ring in rings:
        clipped.append(("the other part", _clip(state, ring, without={id}, others=clipped)))
    return Edit("split", before, new=tuple(replace(before[id], ring=ring, state="accepted") for _, ring in clipped))


def merge(state: ItemState, ids: Iterable[int]) -> Edit:
    """Two or more nuclei as a new one, also across gaps of up to 2 px; holes are filled.

    It has the class of the largest. Raises HemalumError for fewer than two, one rejected, nuclei that are farther
    apart, and where another nucleus lies inside of what comes out.
    """
    before = _require(state, ids, counting=True)
    if len(before) < 2:
        raise HemalumError("give two or more nuclei to merge")
    shape = state.item.shape
    rings = [nucleus.ring for nucleus in before.values()]
    window = _grown(window_of(rings, shape), shape)
    masks = [pixels_of(ring, window) for ring in rings]
    union = np.logical_or.reduce(masks)
    others = _neighbors(state, rings, set(before))
    pieces, count = ndimage.label(union)
    if count > 1:
        closed = np.pad(union, GAP)  # so that the side of the window closes nothing
        closed = ndimage.binary_closing(closed, np.ones((GAP + 1, GAP + 1)))[GAP:-GAP, GAP:-GAP]
        union |= closed & ~_held(others, window)
        pieces, count = ndimage.label(union)
    if count > 1:
        first, *rest = zip(before, masks, strict=True)
        apart = next((id for id, mask in rest if pieces[mask][0] != pieces[first[1]][0]), rest[0][0])
        raise HemalumError(f"nuclei {first[0]} and {apart} do not touch: reshape one of them first")
    ring = trace_piece(union, window)
    inside = pixels_of(ring, window)
    for name, other in others:
        if (pixels_of(other, window) & inside).any():
            raise HemalumError(f"the merged nucleus would go round {name}: merge that as well, or delete it")
    check_simple(ring)
    largest = max(range(len(rings)), key=lambda i: int(masks[i].sum()))
    class_name = list(before.values())[largest].class_name
    return Edit("merge", before, new=(Nucleus(ring, class_name, "accepted"),))


def classify(state: ItemState, ids: Iterable[int], class_name: str | None) -> Edit:
    """Nuclei with another class, None for none. Raises HemalumError for a class that the item does not have."""
    _check_class(state, class_name)
    before = _require(state, ids)
    return Edit("classify", before, {id: replace(one, class_name=class_name) for id, one in before.items()})


def accept(state: ItemState, ids: Iterable[int]) -> Edit:
    """Nuclei that are as they should be. Raises HemalumError for one rejected whose pixels others have now."""
    before = _require(state, ids)
    after = {id: replace(nucleus, state="accepted") for id, nucleus in before.items()}
    check_free(state, {id: after[id] for id, nucleus in before.items() if not nucleus.counts}, set())
    return Edit("accept", before, after)


def reject(state: ItemState, ids: Iterable[int]) -> Edit:
    """What is no nucleus: it stays to be seen, and is left out of the labels."""
    before = _require(state, ids)
    return Edit("reject", before, {id: replace(nucleus, state="rejected") for id, nucleus in before.items()})


def mark(state: ItemState, status: Status) -> Edit:
    """The item as `reviewed`, `skipped`, or `open` again."""
    if status not in STATUSES:
        raise HemalumError(f"status '{status}'{nearest(str(status), STATUSES)}")
    return Edit("mark", status=(state.status, status))


def check_free(state: ItemState, placed: Mapping[int, Nucleus], without: set[int]) -> None:
    """Raise HemalumError where nuclei to be placed share a pixel with another that counts, or with one another.

    Ids in `without`, and of `placed`, are not looked at in the item: they are about to change.
    """
    for id, other in find_shared(state, placed, without):
        raise HemalumError(f"nucleus {id} would lie on pixels of nucleus {other}: delete or reshape that first")


def find_shared(state: ItemState, placed: Mapping[int, Nucleus], without: set[int]) -> list[tuple[int, int]]:
    """Pairs of ids of nuclei that share a pixel, as `check_free` has it: one placed, and one there or placed."""
    shape, pairs = state.item.shape, []
    items, changing = list(placed.items()), without | set(placed)
    for i, (id, nucleus) in enumerate(items):
        neighbors = state.near([nucleus.ring], changing)
        neighbors += [item for item in items[:i] if item[1].meets(nucleus.bounds)]
        pairs += [(id, other) for other, one in neighbors if share_pixels(nucleus.ring, one.ring, shape)]
    return pairs


def _require(state: ItemState, ids: Iterable[int], *, counting: bool = False) -> dict[int, Nucleus]:
    chosen = list(dict.fromkeys(ids))
    if not chosen:
        raise HemalumError("no nucleus is chosen")
    if len(chosen) > MAX_NUCLEI:
        raise HemalumError(f"{len(chosen):,} nuclei are chosen; at most {MAX_NUCLEI:,} are changed at once")
    nuclei = {id: state.require(id) for id in chosen}
    for id, nucleus in nuclei.items():
        if counting and not nucleus.counts:
            raise HemalumError(f"nucleus {id} is rejected: accept it first")
    return nuclei


def _check_class(state: ItemState, class_name: str | None) -> None:
    if class_name is not None and class_name not in state.start.class_names:
        raise HemalumError(f"there is no class '{class_name}'{nearest(class_name, state.start.class_names)}")


def _neighbors(state: ItemState, rings: list[Ring], without: set[int]) -> list[tuple[str, Ring]]:
    return [(f"nucleus {id}", nucleus.ring) for id, nucleus in state.near(rings, without)]


def _clip(
    state: ItemState, ring: Ring, without: set[int] | None = None, others: Sequence[tuple[str, Ring]] = ()
) -> Ring:
    return clip_to_free(ring, state.item.shape, [*_neighbors(state, [ring], without or set()), *others])


def _held(others: Iterable[tuple[str, Ring]], window: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Pixels of a window that others hold."""
    left, top, right, bottom = window
    held = np.zeros((bottom - top, right - left), np.bool_)
    for _, ring in others:
        held |= pixels_of(ring, window)
    return held


def _grown(window: tuple[int, int, int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The window with a margin for what closes gaps, inside of the image."""
    left, top, right, bottom = window
    return max(left - GAP, 0), max(top - GAP, 0), min(right + GAP, shape[1]), min(bottom + GAP, shape[0])
