"""What reviewers changed in the windows of a segmented slide, as corrections of all of its nuclei.

A nucleus that lies in several windows counts where it was changed; what of it lies beyond that window stays as the
model has it. Where it was taken away in one and changed in another, the window that holds its centroid decides.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.part import measure
from hemalum.nuclei.polygons import Polygons, fill
from hemalum.nuclei.store import NucleiStore
from hemalum.review.fields import Window
from hemalum.review.item import ItemState, Start
from hemalum.review.nucleus import Nucleus, Ring, largest_piece, pixels_of, same_ring, trace_piece, window_of
from hemalum.review.store_windows import WindowNuclei, window_nuclei
from hemalum.slides import Slide


@dataclass(frozen=True, slots=True, eq=False)
class Corrected:
    """A nucleus that is not as in the store: its ring in px of the slide, and its id in the store, None for a new
    one."""

    ring: Ring
    class_name: str | None
    id: int | None


@dataclass(frozen=True, slots=True, eq=False)
class SlideChanges:
    """The nuclei of a store that are not as they were, by id, and what is in their place, window by window."""

    without: NDArray[np.int64]
    windows: list[list[Corrected]]


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """One nucleus of the store as a window has it: None where it was taken away."""

    window: Window
    nucleus: Nucleus | None
    reshaped: bool
    holds_centroid: bool


def read_window(store: NucleiStore, window: Window, state: ItemState) -> WindowNuclei:
    """The nuclei that an item started with, as they are in the store. Raises HemalumError where that has changed."""
    there = window_nuclei(store, window)
    start = Start.of(there.nuclei)
    same = np.array_equal(start.outlines.coords, state.start.outlines.coords)
    if not same or not np.array_equal(start.outlines.offsets, state.start.outlines.offsets):
        raise HemalumError(
            f"{state.item.name}: {store.path} holds other nuclei than when its review was begun; put that one back"
        )
    return there


def slide_changes(store: NucleiStore, states: Iterable[tuple[Window, ItemState]]) -> SlideChanges:
    """What was changed in the windows of a slide. Raises HemalumError where the store has changed since."""
    changes: dict[int, list[_Change]] = defaultdict(list)
    outlines: dict[int, Ring] = {}
    windows: list[list[Corrected]] = []
    for window, state in states:
        if not state.changes:
            continue
        there = read_window(store, window, state)
        drawn: list[Corrected] = []
        for id, nucleus in state.changes.items():
            counting = nucleus if nucleus is not None and nucleus.counts else None
            if id > len(state.start):
                if counting is not None:
                    drawn.append(Corrected(_shifted(counting.ring, window), counting.class_name, None))
                continue
            change = _change(window, there, state, id, counting)
            if change is not None:
                key = int(there.ids[id - 1])
                changes[key].append(change)
                outlines[key] = _ring(there.outlines, id - 1)
        windows.append(drawn)
    resolved = [_resolve(store, key, outlines[key], several) for key, several in sorted(changes.items())]
    windows += [[one] for one in resolved if one is not None]
    return SlideChanges(np.array(sorted(changes), np.int64), [one for one in windows if one])


def _change(
    window: Window, there: WindowNuclei, state: ItemState, id: int, counting: Nucleus | None
) -> _Change | None:
    """What became of a nucleus that the item started with; None where all that is labels is as it was."""
    start = state.start.nucleus(id)
    same = counting is not None and same_ring(counting.ring, start.ring)
    if counting is not None and same and counting.class_name == start.class_name:
        return None
    x, y = (there.nuclei.table.column(name)[id - 1].as_py() for name in ("x", "y"))
    return _Change(window, counting, not same, 0 <= x < window[2] and 0 <= y < window[3])


def _resolve(store: NucleiStore, id: int, outline: Ring, changes: Sequence[_Change]) -> Corrected | None:
    """A nucleus of the store after the changes of all windows that it lies in; None where it is none any more."""
    gone = [change for change in changes if change.nucleus is None]
    kept = [(change, change.nucleus) for change in changes if change.nucleus is not None]
    if gone and (not kept or any(change.holds_centroid for change in gone)):
        return None
    nucleus = next((nucleus for change, nucleus in kept if change.holds_centroid), kept[0][1])
    reshaped = [change for change, _ in kept if change.reshaped]
    ring = _joined(outline, reshaped, store.run.shape) if reshaped else outline
    return Corrected(ring, nucleus.class_name, id)


def _joined(outline: Ring, changes: Sequence[_Change], shape: tuple[int, int]) -> Ring:
    """The outlines that reviewers drew in their windows, with what of the old one lies beyond these."""
    drawn = [_shifted(change.nucleus.ring, change.window) for change in changes if change.nucleus is not None]
    box = window_of([outline, *drawn], shape)
    left, top, right, bottom = box
    mask = pixels_of(outline, box)
    for change in changes:
        x, y, width, height = change.window
        mask[max(y - top, 0) : max(y + height - top, 0), max(x - left, 0) : max(x + width - left, 0)] = False
    if not mask.any() and len(drawn) == 1:
        return drawn[0]
    for ring in drawn:
        mask |= pixels_of(ring, box)
    piece, _ = largest_piece(mask)
    return trace_piece(piece, (left, top, right, bottom))


def measure_corrected(
    windows: Iterable[Sequence[Corrected]], slide: Slide, store: NucleiStore, class_names: Sequence[str]
) -> Nuclei:
    """The corrected nuclei of a slide, measured as `corrected_nuclei` does; new ones get ids above all others."""
    run = store.run
    new_id = 1 + max((int(table.column("id").to_numpy().max(initial=0)) for table in store.tables(["id"])), default=0)
    tables: list[pa.Table] = []
    outlines: list[Polygons] = []
    for window in windows:
        rings = [one.ring for one in window]
        left, top, right, bottom = window_of(rings, run.shape)
        ends = np.cumsum([0] + [len(ring) for ring in rings]).astype(np.int64)
        polygons = Polygons(np.concatenate(rings).astype(np.float32), ends)
        moved = Polygons(polygons.coords - np.array([left, top], np.float32), ends)
        labels = fill(moved, (bottom - top, right - left)).astype(np.int32)
        present, first = np.unique(labels, return_index=True)
        order = (present[present > 0].astype(np.int64) - 1)[np.argsort(first[present > 0])]
        if not len(order):
            continue
        part = measure(labels, slide.read(left, top, right - left, bottom - top))
        numbers = {name: number for number, name in enumerate(class_names, start=1)}
        part.raw["class"] = np.array([numbers.get(str(window[row].class_name), 0) for row in order], np.int32)
        table = Nuclei.from_parts(
            [part], shape=run.shape, mpp=run.mpp, mpp_source=run.mpp_source, class_names=class_names
        ).table
        for name, shift in (("x", left), ("y", top)):
            position = table.column_names.index(name)
            table = table.set_column(position, name, pa.array(table.column(name).to_numpy() + shift))
        ids = []
        for row in order.tolist():
            id = window[row].id
            ids.append(new_id if id is None else id)
            new_id += id is None
        tables.append(table.set_column(0, "id", pa.array(np.array(ids, np.int64))))
        outlines.append(polygons.take(order))
    nothing = Nuclei.from_parts([], shape=run.shape, mpp=run.mpp, class_names=class_names)
    if not tables:
        return nothing
    joined = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    return Nuclei(
        joined, Polygons.joined(outlines), run.shape, run.mpp, run.mpp_source, class_names=tuple(class_names)
    )


def _shifted(ring: NDArray[Any], window: Window) -> Ring:
    return (ring + np.array(window[:2], np.float32)).astype(np.float32)


def _ring(outlines: Polygons, row: int) -> Ring:
    ring: Ring = outlines.coords[outlines.offsets[row] : outlines.offsets[row + 1]]
    return ring
