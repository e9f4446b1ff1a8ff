"""An item under review, an image or a region of a slide, and its nuclei as they are at one version.

The nuclei that an item starts with have ids from 1; what experts draw gets ids above all that there ever were. So an
id means one nucleus for ever, and what has become of it can be told from the events alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.polygons import Polygons, fill
from hemalum.review.nucleus import Nucleus, Ring, largest_piece, pixels_of, trace_piece, window_of

Status = Literal["open", "reviewed", "skipped"]
STATUSES: tuple[Status, ...] = get_args(Status)
ITEM = 0  # stands for the item itself where ids of nuclei stand
MAX_TEXT = 1_000  # letters of a name


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """The nuclei that an item starts with: outlines in px, and the number (N,) int32 of each class, 0 for none."""

    outlines: Polygons
    class_numbers: NDArray[np.int32]
    class_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, nuclei: Nuclei) -> "Start":
        """Those of a result of `segment`, in the order of its table, without pixels that two of them hold.

        Of two outlines over one pixel the later has it, as in the label map; an outline of which others leave
        nothing is left out.
        """
        classes = nuclei.classes
        numbers = np.zeros(len(nuclei), np.int32) if classes is None else classes.numbers
        outlines, kept = _without_shared_pixels(nuclei.outlines, nuclei.shape)
        return cls(outlines, numbers[kept], tuple(nuclei.class_names))

    @staticmethod
    def rows(nuclei: Nuclei) -> NDArray[np.int64]:
        """The rows (N,) of the table of nuclei that `of` keeps, in the order of the ids from 1."""
        left = np.bincount(fill(nuclei.outlines, nuclei.shape).ravel(), minlength=len(nuclei) + 1)[1:]
        return np.flatnonzero(left > 0)

    def __len__(self) -> int:
        return len(self.outlines)

    def nucleus(self, id: int) -> Nucleus:
        """The one with this id, from 1."""
        offsets = self.outlines.offsets
        number = int(self.class_numbers[id - 1])
        ring = self.outlines.coords[offsets[id - 1] : offsets[id]]
        return Nucleus(ring, self.class_names[number - 1] if number else None)


@dataclass(frozen=True, slots=True)
class Item:
    """What is known of an item: `name` is unique in its project, `shape` (H, W) in px.

    `sha256` is over the pixels of its image (`hemalum.data.pixel_hash`). `mpp` is µm per px; the rest is as in
    `hemalum.data.sample.Sample`, for strata and for datasets. Raises HemalumError for texts that are too long or
    empty, and for an item without pixels.
    """

    name: str
    shape: tuple[int, int]
    sha256: str
    mpp: float | None = None
    mpp_source: str | None = None
    source: str | None = None
    group: str | None = None
    organ: str | None = None
    stain: str | None = None

    def __post_init__(self) -> None:
        for field_name in ("name", "sha256", "mpp_source", "source", "group", "organ", "stain"):
            value = getattr(self, field_name)
            if value is not None and not (isinstance(value, str) and 0 < len(value) <= MAX_TEXT):
                raise HemalumError(f"an item's {field_name} must have 1 to {MAX_TEXT:,} letters")
        if min(self.shape) < 1:
            raise HemalumError(f"{self.name}: an item must have at least one pixel, not {self.shape}")


@dataclass(frozen=True, slots=True)
class Touch:
    """Who changed something last: the event's id, its author, time (UTC, ISO 8601) and kind."""

    event: int
    author: str
    time: str
    kind: str

    def __str__(self) -> str:
        return f"{self.author} at {self.time[:19].replace('T', ' ')} UTC ({self.kind})"


@dataclass(frozen=True, slots=True, eq=False)
class ItemState(Mapping[int, Nucleus]):
    """The nuclei of an item at one `version`, the id of the last event on it (0: none yet), by id.

    A mapping of all that are there, also of those rejected. `changes` holds what events have changed, None for what
    is gone; `touches` who changed it last (`ITEM`: the item's status); `next_id` is above every id that there ever
    was. `done` and `undone` are events by author, which undo and redo take the last of.
    """

    item: Item
    start: Start
    version: int = 0
    status: Status = "open"
    changes: Mapping[int, Nucleus | None] = field(default_factory=dict)
    touches: Mapping[int, Touch] = field(default_factory=dict)
    next_id: int = 0
    done: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    undone: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    _bounds: Any = ()  # left, top, right, bottom (N,) each of the nuclei that the item starts with

    @classmethod
    def first(cls, item: Item, start: Start) -> "ItemState":
        """An item that nobody has touched."""
        bounds = np.ascontiguousarray(np.concatenate(start.outlines.bounds(), axis=1).T)
        return cls(item, start, next_id=len(start) + 1, _bounds=bounds)

    def __getitem__(self, id: int) -> Nucleus:
        if id in self.changes:
            changed = self.changes[id]
            if changed is None:
                raise KeyError(id)
            return changed
        if not 1 <= id <= len(self.start):
            raise KeyError(id)
        return self.start.nucleus(id)

    def __iter__(self) -> Iterator[int]:
        yield from (id for id in range(1, len(self.start) + 1) if id not in self.changes)
        yield from (id for id, nucleus in self.changes.items() if nucleus is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def require(self, id: int) -> Nucleus:
        """The nucleus with this id. Raises HemalumError where it is not there, and says who took it away."""
        nucleus = self.get(id)
        if nucleus is None:
            touch = self.touches.get(id)
            raise HemalumError(f"nucleus {id} is not there" + (f": {touch}" if touch else ""))
        return nucleus

    def near(self, rings: list[Ring], without: set[int]) -> list[tuple[int, Nucleus]]:
        """Id and nucleus of those that count and whose bounds meet those of the rings, ids in `without` left out."""
        points = np.concatenate(rings)
        x0, y0, x1, y1 = bounds = [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
        left, top, right, bottom = self._bounds
        meeting = np.flatnonzero((left < x1) & (right > x0) & (top < y1) & (bottom > y0)) + 1
        ids = [id for id in meeting.tolist() if id not in self.changes]
        ids += [id for id, changed in self.changes.items() if changed is not None and changed.meets(bounds)]
        pairs = [(id, self[id]) for id in sorted(ids) if id not in without]
        return [(id, nucleus) for id, nucleus in pairs if nucleus.counts]

    def counting(self) -> tuple[NDArray[np.int64], Polygons, NDArray[np.int32]]:
        """The nuclei that count, by id: ids (N,), outlines, and the numbers of their classes (N,), 0 for none."""
        numbers = {name: number for number, name in enumerate(self.start.class_names, start=1)}
        kept = np.setdiff1d(np.arange(1, len(self.start) + 1), list(self.changes))
        changed = {id: one for id, one in self.changes.items() if one is not None and one.counts}
        rings = [one.ring for one in changed.values()]
        lengths: Any = np.cumsum([0] + [len(ring) for ring in rings])
        drawn = Polygons(np.concatenate([*rings, np.zeros((0, 2), np.float32)]), lengths.astype(np.int64))
        ids = np.concatenate([kept, np.array(list(changed), np.int64)])
        classes = [numbers.get(str(one.class_name), 0) for one in changed.values()]
        order = np.argsort(ids)
        return (
            ids[order],
            Polygons.joined([self.start.outlines.take(kept - 1), drawn]).take(order),
            np.concatenate([self.start.class_numbers[kept - 1], np.array(classes, np.int32)])[order],
        )

    def label_map(self) -> NDArray[np.int32]:
        """The label map (H, W) int32 of the nuclei that count; values are their ids."""
        ids, outlines, _ = self.counting()
        return fill(outlines, self.item.shape, ids.astype(np.uint32)).astype(np.int32)


def _without_shared_pixels(outlines: Polygons, shape: tuple[int, int]) -> tuple[Polygons, NDArray[np.int64]]:
    """The outlines with each pixel in the last of those that hold it, and the positions of those that are left."""
    drawn, backwards = fill(outlines, shape), np.arange(len(outlines), 0, -1)
    shared = drawn != fill(outlines.take(backwards - 1), shape, backwards.astype(np.uint32))
    left = np.bincount(drawn.ravel(), minlength=len(outlines) + 1)[1:]
    rings: list[Ring] = []
    kept: list[int] = np.flatnonzero(left > 0).tolist()
    for i in kept:
        ring = outlines.coords[outlines.offsets[i] : outlines.offsets[i + 1]]
        rings.append(ring)
        x0, y0, x1, y1 = window = window_of([ring], shape)
        if not shared[y0:y1, x0:x1].any():
            continue
        pixels, area = pixels_of(ring, window), drawn[y0:y1, x0:x1]
        mine = area == i + 1
        while (pixels & ~mine & (area > 0)).any():
            piece, _ = largest_piece(mine)
            area[mine & ~piece] = 0
            ring = trace_piece(piece, window)
            pixels, mine = pixels_of(ring, window), piece
            inside = np.argwhere(pixels & ~mine & (area > 0))
            if len(inside):  # it goes round another: cut from there to the right, as an outline has no holes
                row, column = inside[0]
                slit = mine[row, column:].copy()
                mine[row, column:] = False
                area[row, column:][slit] = 0
        area[pixels] = i + 1
        rings[-1] = ring
    offsets: Any = np.cumsum([0] + [len(ring) for ring in rings])
    coords = np.concatenate([*rings, np.zeros((0, 2), np.float32)])
    return Polygons(coords, offsets.astype(np.int64)), np.array(kept, np.int64)
