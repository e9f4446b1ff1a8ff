"""Three states of an item brought together: as it was exported, as it is now, and as it comes back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hemalum.data.annotations import fill_by_size
from hemalum.errors import HemalumError
from hemalum.nuclei.polygons import Polygons, fill
from hemalum.review.edits import MAX_NUCLEI, Edit, Kind
from hemalum.review.fields import Window
from hemalum.review.item import ITEM, ItemState, Touch
from hemalum.review.journal import Journal
from hemalum.review.nucleus import Nucleus, Ring, as_ring, largest_piece, pixels_of, trace_piece, window_of

if TYPE_CHECKING:
    from hemalum.review.importing import ImportSummary

LEAST_IOU = 0.5  # of an outline that is another form of a nucleus

Overlap = tuple[int, float]  # row in what came back, IoU


@dataclass(frozen=True, slots=True, eq=False)
class Returned:
    """The nuclei of a file: closed paths in px, the class of each, and what tells an outline from others."""

    paths: Polygons
    classes: list[str | None]
    keys: list[bytes]

    def box(self, i: int) -> NDArray[np.float64]:
        """Left, top, right, bottom of one, px."""
        ring = self.paths.coords[self.paths.offsets[i] : self.paths.offsets[i + 1]]
        box: NDArray[np.float64] = np.concatenate([ring.min(axis=0), ring.max(axis=0)]).astype(np.float64)
        return box

    def within(self, window: Window) -> "Returned":
        """Those that meet a window x, y, width, height, in px of it."""
        low, high = self.paths.bounds()
        x, y, width, height = window
        meets = (low < (x + width, y + height)).all(axis=1) & (high > (x, y)).all(axis=1)
        rows = np.flatnonzero(meets)
        taken = self.paths.take(rows)
        moved = Polygons(taken.coords - np.array([x, y], np.float32), taken.offsets)
        return Returned(moved, [self.classes[i] for i in rows], [self.keys[i] for i in rows])


@dataclass(slots=True, eq=False)
class _Merge:
    """What is to be done to an item. `left` are rows in what came back that are not matched yet."""

    state: ItemState
    returned: Returned
    labels: NDArray[np.uint32]  # of those that are not as they were, by row from 1
    left: set[int]
    deleted: dict[int, Nucleus]
    reshaped: dict[int, tuple[Nucleus, int]]  # id → as it is now, and row of what came back
    classified: dict[int, tuple[Nucleus, str | None]]
    conflicts: list[str]


def apply_import(
    journal: Journal, state: ItemState, base: ItemState, keys: Mapping[int, bytes], base_keys: Mapping[int, bytes],
    returned: Returned, author: str, summary: "ImportSummary",
) -> None:  # fmt: skip
    """Write what came back as events of an item; `keys` are those of the nuclei that count, now and at the base.

    What another than `author` has changed since the base stays as it is; where it was changed in both, it is
    added to the conflicts of the summary.
    """
    merge = _compare(state, base, keys, base_keys, returned, author)
    name = state.item.name
    held = _held(merge, keys)
    merge.labels[held > 0] = 0
    class_names = state.start.class_names
    placed: dict[int, tuple[Ring, str | None]] = {}
    for row in sorted({*merge.left, *(row for _, row in merge.reshaped.values())}):
        ring = _ring_of(merge, row)
        if ring is not None:
            class_name = returned.classes[row] if class_names else None
            placed[row] = ring, class_name
    for id, (nucleus, row) in list(merge.reshaped.items()):
        if row not in placed:  # others hold all its pixels now
            merge.deleted[id] = nucleus
            del merge.reshaped[id]
    added = [Nucleus(*placed[row], "accepted") for row in sorted(merge.left) if row in placed]
    write = _Writer(journal, name, author, merge.conflicts)
    summary.deleted += write.all("delete", [[(id, one, None)] for id, one in merge.deleted.items()])
    changes = {
        id: (now, replace(now, ring=placed[row][0], class_name=placed[row][1], state="accepted"))
        for id, (now, row) in merge.reshaped.items()
    }
    summary.reshaped += write.all("reshape", _together(state, changes))
    summary.added += write.new(added)
    summary.classified += write.all(
        "classify", [[(id, now, replace(now, class_name=wanted))] for id, (now, wanted) in merge.classified.items()]
    )
    summary.conflicts += [(name, what) for what in merge.conflicts]


def _compare(
    state: ItemState, base: ItemState, keys: Mapping[int, bytes], base_keys: Mapping[int, bytes], returned: Returned,
    author: str,
) -> _Merge:  # fmt: skip
    by_key = {key: row for row, key in enumerate(returned.keys)}
    merge = _Merge(state, returned, np.zeros((0, 0), np.uint32), set(range(len(returned.keys))), {}, {}, {}, [])
    others = {
        id: touch
        for id, touch in state.touches.items()
        if id != ITEM and touch.event > base.version and touch.author != author
    }
    unlike = []  # ids of which nothing that came back has just the same outline
    for id, key in keys.items():
        row = by_key.get(key)
        if row in merge.left:
            merge.left.discard(row)
            _note_class(merge, id, row, others)
        else:
            unlike.append(id)
    merge.labels = _labels(returned, merge.left, state.item.shape)
    _leave(
        merge,
        base,
        {id: by_key.get(base_keys.get(id, b"")) for id in others if id in unlike or id not in keys},
        others,
    )
    mine = [id for id in unlike if id not in others]
    overlaps = _overlaps(state, mine, merge.labels)
    for id in mine:
        row, iou = _most_like(overlaps[id], merge.left)
        if iou < LEAST_IOU:
            merge.deleted[id] = state[id]
            continue
        merge.left.discard(row)
        if iou == 1:
            _note_class(merge, id, row, others)
        else:
            merge.reshaped[id] = state[id], row
    return merge


def _leave(merge: _Merge, base: ItemState, rows: Mapping[int, int | None], touches: Mapping[int, Touch]) -> None:
    """Leave nuclei as others have made them since; a conflict where one comes back other than it was exported.

    `rows` are of what came back with the outline of each at the base.
    """
    known = [id for id in rows if id in base and base[id].counts]  # the rest was drawn here since
    overlaps = _overlaps(base, known, merge.labels)
    for id in known:
        row, iou = rows[id], 1.0
        if row not in merge.left:
            row, iou = _most_like(overlaps[id], merge.left)
        if iou >= LEAST_IOU:
            merge.left.discard(row)
        counts = id in merge.state and merge.state[id].counts
        if iou < 1 and (counts or iou >= LEAST_IOU):
            merge.conflicts.append(f"nucleus {id} was changed by {touches[id]} as well, and is left as it is here")


def _most_like(overlaps: Sequence[Overlap], left: set[int]) -> tuple[int, float]:
    """The row that lies best on a nucleus, and its IoU; 0 for none."""
    return max(((row, iou) for row, iou in overlaps if row in left), key=lambda one: one[1], default=(-1, 0.0))


def _note_class(merge: _Merge, id: int, row: int, others: Mapping[int, Touch]) -> None:
    now, wanted = merge.state[id], merge.returned.classes[row]
    if merge.state.start.class_names and now.class_name != wanted and id not in others:
        merge.classified[id] = now, wanted


def _labels(returned: Returned, left: set[int], shape: tuple[int, int]) -> NDArray[np.uint32]:
    """The label map of some of what came back, by row from 1; the smaller over the larger."""
    rows = np.array(sorted(left), np.int64)
    labels = fill_by_size(returned.paths.take(rows), shape)
    numbers = np.concatenate([[0], rows + 1]).astype(np.uint32)
    renumbered: NDArray[np.uint32] = numbers[labels]
    return renumbered


def _overlaps(state: ItemState, ids: Sequence[int], labels: NDArray[np.uint32]) -> dict[int, list[Overlap]]:
    """For each of some nuclei: rows of what lies on it, with the IoU."""
    areas = np.bincount(labels.ravel())
    overlaps = {}
    for id in ids:
        ring = state[id].ring
        box = window_of([ring], state.item.shape)
        mask = pixels_of(ring, box)
        rows, counts = np.unique(labels[box[1] : box[3], box[0] : box[2]][mask], return_counts=True)
        total = int(mask.sum())
        overlaps[id] = [
            (row - 1, shared / (total + int(areas[row]) - shared))
            for row, shared in zip(rows.tolist(), counts.tolist(), strict=True)
            if row
        ]
    return overlaps


def _held(merge: _Merge, keys: Mapping[int, bytes]) -> NDArray[np.uint32]:
    """The pixels of the nuclei that stay as they are."""
    staying = [id for id in keys if id not in merge.deleted and id not in merge.reshaped]
    rings = [merge.state[id].ring for id in staying]
    ends = np.cumsum([0] + [len(ring) for ring in rings]).astype(np.int64)
    coords = np.concatenate([*rings, np.zeros((0, 2), np.float32)])
    return fill(Polygons(coords, ends), merge.state.item.shape)


def _ring_of(merge: _Merge, row: int) -> Ring | None:
    """The outline of what came back: as drawn where it can be, else around its free pixels; None for none."""
    paths, shape = merge.returned.paths, merge.state.item.shape
    ring: Ring = paths.coords[paths.offsets[row] : paths.offsets[row + 1]]
    box = window_of([ring], shape)
    mask = merge.labels[box[1] : box[3], box[0] : box[2]] == row + 1
    if not mask.any():
        return None
    try:
        drawn = as_ring(ring, shape)
        if np.array_equal(pixels_of(drawn, box), mask):
            return drawn
    except HemalumError:
        pass  # it crosses itself, or leaves the item: the pixels say what is meant
    piece, _ = largest_piece(mask)
    return np.clip(trace_piece(piece, box), 0, np.array(shape[::-1], np.float32))


Change = tuple[int, Nucleus, Nucleus | None]  # id, now, afterwards


def _together(state: ItemState, changes: Mapping[int, tuple[Nucleus, Nucleus]]) -> list[list[Change]]:
    """Changes of outlines in groups that have to be made at once: one takes pixels that another gives up."""
    ids = list(changes)
    number = {id: i for i, id in enumerate(ids)}
    pairs = [
        (number[id], number[other])
        for id, (_, after) in changes.items()
        for other, _ in state.near([after.ring], {id})
        if other in number
    ]
    rows, columns = (np.array([pair[k] for pair in pairs], np.int64) for k in (0, 1))
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(ids), len(ids)))
    count, group = connected_components(graph, directed=False)
    groups: list[list[Change]] = [[] for _ in range(count)]
    for i, id in enumerate(ids):
        groups[group[i]].append((id, *changes[id]))
    return groups


@dataclass(frozen=True, slots=True, eq=False)
class _Writer:
    """Writes changes to an item as few events; what is refused is added to the conflicts."""

    journal: Journal
    name: str
    author: str
    conflicts: list[str]

    def all(self, kind: Kind, groups: Sequence[list[Change]]) -> int:
        """Write groups of changes, each whole; gives how many nuclei were changed."""
        done = 0
        for batch in _batches(groups):
            changes = [change for group in batch for change in group]
            before = {id: now for id, now, _ in changes}
            after = {id: then for id, _, then in changes if then is not None}
            if self._append(Edit(kind, before, after), alone=len(batch) == 1):
                done += len(changes)
            elif len(batch) > 1:
                half = len(batch) // 2
                done += self.all(kind, batch[:half]) + self.all(kind, batch[half:])
        return done

    def new(self, nuclei: Sequence[Nucleus]) -> int:
        """Write new nuclei; gives how many."""
        done = 0
        for start in range(0, len(nuclei), MAX_NUCLEI):
            batch = nuclei[start : start + MAX_NUCLEI]
            if self._append(Edit("add", new=tuple(batch)), alone=len(batch) == 1):
                done += len(batch)
            elif len(batch) > 1:
                half = len(batch) // 2
                done += self.new(batch[:half]) + self.new(batch[half:])
        return done

    def _append(self, edit: Edit, *, alone: bool) -> bool:
        """Whether it is written; what is refused `alone` is a conflict."""
        try:
            self.journal.append(self.name, self.author, edit, self.journal.state(self.name).version)
        except HemalumError as error:
            if alone:
                self.conflicts.append(str(error))
            return False
        return True


def _batches(groups: Sequence[list[Change]]) -> Iterator[list[list[Change]]]:
    """Groups of changes, as many at once as one event takes."""
    batch: list[list[Change]] = []
    for group in groups:
        if batch and sum(map(len, batch)) + len(group) > MAX_NUCLEI:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch
