"""A nucleus under review: its outline, class and state; what outlines may be drawn; which pixels an outline holds.

A pixel belongs to one nucleus. Pixels are counted by their centers, as everywhere (`hemalum.nuclei.polygons`): two
outlines may cross by less than that, but never hold the same pixel center. What is there keeps its pixels, and an
outline that is drawn over it gets what is free.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import shapely
from numpy.typing import NDArray

from hemalum.errors import HemalumError, counted
from hemalum.nuclei.polygons import Polygons, fill, split_pieces, trace

MAX_POINTS = 5_000  # of an outline that is drawn
GRID = 64  # drawn points lie on a grid of 1/64 px: float32 holds it exactly up to 262,144 px, and texts stay short
CRUMBS = 0.1  # share of a drawn outline that neighbors may cut off from the rest of it

State = Literal["proposed", "accepted", "rejected"]
STATES: tuple[State, ...] = get_args(State)
Ring = NDArray[np.float32]  # (M, 2) x, y in px of the image, last point = first
Window = tuple[int, int, int, int]  # left, top, right, bottom in whole px


@dataclass(frozen=True, slots=True, eq=False)
class Nucleus:
    """One nucleus: `ring` (M, 2) float32 x, y in px of the image, last point = first; its class, None for none.

    It is `proposed` by the model until an expert accepts it; what an expert draws is `accepted`. One `rejected` is
    not counted and holds no pixels, but stays to be seen. Two are equal where all three are. `bounds` are its left,
    top, right and bottom, px.
    """

    ring: Ring
    class_name: str | None = None
    state: State = "proposed"
    bounds: tuple[float, float, float, float] = field(init=False)

    def __post_init__(self) -> None:
        bounds = np.concatenate([self.ring.min(axis=0), self.ring.max(axis=0)]).tolist()
        object.__setattr__(self, "bounds", tuple(bounds))

    def meets(self, bounds: Sequence[float]) -> bool:
        """Whether its bounds and others overlap."""
        left, top, right, bottom = self.bounds
        return left < bounds[2] and right > bounds[0] and top < bounds[3] and bottom > bounds[1]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Nucleus):
            return NotImplemented
        same = (self.class_name, self.state) == (other.class_name, other.state)
        return same and same_ring(self.ring, other.ring)

    __hash__ = None  # type: ignore[assignment]  # equal by arrays

    @property
    def counts(self) -> bool:
        """Whether it is one of the labels, and holds its pixels."""
        return self.state != "rejected"


def same_ring(one: Ring, other: Ring) -> bool:
    """Whether two rings have the same points in the same order."""
    return one.shape == other.shape and bool((one == other).all())


def as_ring(points: Sequence[Sequence[float]] | NDArray[Any], shape: tuple[int, int]) -> Ring:
    """An outline as a reviewer draws it, x, y in px of an image of `shape` (H, W), closed or not, as a ring.

    Points are moved to the grid of 1/64 px. Raises HemalumError for fewer than three points, more than `MAX_POINTS`,
    a point outside of the image, an outline that crosses or touches itself or has no area.
    """
    line = as_line(points, shape, "outline")
    if len(line) > 1 and (line[0] == line[-1]).all():
        line = line[:-1]
    if len(np.unique(line, axis=0)) < 3:
        raise HemalumError("the outline has fewer than three points: draw it around the nucleus")
    ring = np.concatenate([line, line[:1]])
    check_simple(ring)
    return ring


def as_line(points: Sequence[Sequence[float]] | NDArray[Any], shape: tuple[int, int], what: str = "line") -> Ring:
    """Points (M, 2) float32 as a reviewer draws them, on the grid, without repeats; `what` they are is for messages.

    Raises HemalumError for what are no points, more than `MAX_POINTS`, and a point outside of the image.
    """
    if len(points) > MAX_POINTS + 1:
        raise HemalumError(f"the {what} has {len(points):,} points; at most {MAX_POINTS:,} are taken: simplify it")
    try:
        line = np.asarray(points, np.float64)
    except (TypeError, ValueError) as error:
        raise HemalumError(f"the {what} is not a list of points [x, y]") from error
    if line.ndim != 2 or line.shape[1] != 2 or not np.isfinite(line).all():
        raise HemalumError(f"the {what} is not a list of points [x, y] of finite numbers")
    height, width = shape
    beyond = ((line < 0) | (line > (width, height))).any(axis=1)
    if beyond.any():
        x, y = line[beyond][0]
        raise HemalumError(f"the {what} leaves the image ({width} x {height} px) at ({x:g}, {y:g}): draw it inside")
    snapped = (np.round(line * GRID) / GRID).astype(np.float32)
    repeated = np.zeros(len(snapped), np.bool_)
    repeated[1:] = (snapped[1:] == snapped[:-1]).all(axis=1)
    return snapped[~repeated]


def check_simple(ring: Ring) -> None:
    """Raise HemalumError for a ring that crosses or touches itself, has no area, or has more than `MAX_POINTS`."""
    if len(ring) > MAX_POINTS + 1:
        raise HemalumError(f"the outline has {len(ring) - 1:,} points; at most {MAX_POINTS:,} are taken: simplify it")
    polygon = shapely.Polygon(ring.astype(np.float64))
    if polygon.convex_hull.area == 0:
        raise HemalumError("the outline has no area: draw it around the nucleus")
    if not polygon.is_valid:
        # GEOS says "Self-intersection[10.5 3]"
        point = shapely.is_valid_reason(polygon).partition("[")[2].rstrip("]").replace(" ", ", ")
        raise HemalumError(f"the outline crosses itself at ({point}): draw it without")


def window_of(rings: Iterable[Ring], shape: tuple[int, int]) -> Window:
    """The whole pixels of an image of `shape` (H, W) that some rings lie in."""
    points = np.concatenate(list(rings))
    height, width = shape
    left, top = np.floor(points.min(axis=0)).astype(int)
    right, bottom = np.ceil(points.max(axis=0)).astype(int)
    return max(int(left), 0), max(int(top), 0), min(int(right), width), min(int(bottom), height)


def pixels_of(ring: Ring, window: Window) -> NDArray[np.bool_]:
    """Which pixels of a window (bottom - top, right - left) have their center inside, as `fill` has it."""
    left, top, right, bottom = window
    polygons = Polygons(np.ascontiguousarray(ring, np.float32), np.array([0, len(ring)], np.int64))
    # from column 0: moved to the window's own first column, a center that lies on the line could fall elsewhere
    return fill(polygons, (max(bottom - top, 0), max(right, 0)), top=top)[:, left:] > 0


def share_pixels(one: Ring, other: Ring, shape: tuple[int, int]) -> bool:
    """Whether some pixel has its center inside of both rings."""
    a, b = window_of([one], shape), window_of([other], shape)
    window = (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    if window[0] >= window[2] or window[1] >= window[3]:
        return False
    return bool((pixels_of(one, window) & pixels_of(other, window)).any())


def trace_piece(mask: NDArray[np.bool_], window: Window) -> Ring:
    """The outline of one 4-connected piece, a mask of a window; filled, it gives it back with its holes."""
    left, top, _, _ = window
    coords: Ring = trace(mask.astype(np.int32), origin=(top, left)).polygons.coords
    return coords


def largest_piece(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], float]:
    """The largest 4-connected piece of a mask that is not empty, and its share of all pixels."""
    pieces = split_pieces(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    return pieces == largest, float(sizes[largest] / sizes.sum())


def clip_to_free(ring: Ring, shape: tuple[int, int], others: Iterable[tuple[str, Ring]]) -> Ring:
    """The outline without the pixels of `others`, which keep theirs; as it is, where it takes none from them.

    `others` have a name each, for messages. Raises HemalumError for an outline that holds no pixel, lies wholly on
    others, is cut by them into pieces of more than a tenth, or goes round one of them.
    """
    window = window_of([ring], shape)
    mask = pixels_of(ring, window)
    if not mask.any():
        raise HemalumError("the outline holds not one pixel: draw it larger")
    covered = [(name, mask & taken) for name, other in others if (taken := pixels_of(other, window)).any()]
    covering = [(name, shared) for name, shared in covered if shared.any()]
    if not covering:
        return ring
    names = listed([name for name, _ in covering])
    free = mask & ~np.logical_or.reduce([shared for _, shared in covering])
    if not free.any():
        raise HemalumError(f"the outline lies wholly on {names}: delete or reshape what is there")
    piece, share = largest_piece(free)
    if share < 1 - CRUMBS:
        raise HemalumError(f"the outline is cut into pieces by {names}: draw one on each side")
    settled = trace_piece(piece, window)
    inside = pixels_of(settled, window)
    enclosed = [name for name, shared in covering if (shared & inside).any()]
    if enclosed:
        raise HemalumError(f"the outline goes round {listed(enclosed)}: delete or merge what is inside")
    check_simple(settled)
    return settled


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names for a message, the first of them and how many more."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {counted(more, 'other')}" if more > 0 else "")
