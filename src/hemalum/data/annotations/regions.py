"""Which outlines are nuclei, and which are regions that were drawn around them.

One rule for the outlines of every program. What a program found (a detection, a cell) is a nucleus. An outline drawn
by hand is a region where

- its class says so: QuPath's Region* (with or without the star), or ROI;
- it is as large as the image (nine tenths of it);
- it holds five other outlines or more, or is a rectangle that holds any;
- it holds any, or stands beside detections, and is over 12 times as large as the median nucleus; or holds none and is
  over 40 times as large.

Where nearly all outlines come in pairs, one in the other and not much smaller, the outer ones are cells.

What is of the class Ignore* (or Exclude) is an area that nobody has annotated, whatever its size.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.annotations.paths import areas as enclosed
from hemalum.data.annotations.paths import inside
from hemalum.nuclei.polygons import Polygons

Role = Literal["nucleus", "region", "ignored"]
REGION_CLASSES = ("region", "regions", "roi", "region of interest")
IGNORED_CLASSES = ("ignore", "ignored", "exclude", "excluded")
FILLS = 0.9  # of the area of the image
MANY = 5  # no nucleus holds so many
LARGE = 12.0  # times the median nucleus of the image: of 26,000 nuclei of seven sets 4 are larger
HUGE = 40.0  # times the median nucleus of the image: the largest of these is 30
IN_PAIRS = 0.8  # of all outlines, cells and their nuclei
LARGEST_CELL = 8.0  # times its nucleus; a nucleus is as many times its nucleolus, or more
MANY_HOLDERS = 0.3  # of the outlines that are held: not regions, but nuclei with their nucleoli
ENOUGH = 5  # a median of fewer says nothing of an outline that holds none


def role_of_class(name: str | None) -> Role:
    """What the name of a class says that its outlines are; of a derived class ("Region*: Tumor") the first part."""
    stem = (name or "").split(":")[0].strip().rstrip("*").strip().casefold()
    if stem in REGION_CLASSES:
        return "region"
    return "ignored" if stem in IGNORED_CLASSES else "nucleus"


def find_regions(
    outlines: Polygons,
    by_hand: NDArray[np.bool_],
    named: NDArray[np.bool_],
    shape: tuple[int, int] | None,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(N,) bool each: which outlines are regions, and which are cells; see above. None of them is to be ignored.

    `by_hand` (N,) bool is False for what a program found, `named` (N,) bool True where the class says region;
    `shape` (H, W) is that of the image, None where it is not known.
    """
    if len(outlines) == 0:
        return np.zeros(0, np.bool_), np.zeros(0, np.bool_)
    low, high = outlines.bounds()
    areas = enclosed(outlines.coords, outlines.offsets)
    held = _count_held(outlines, areas, by_hand, low, high)
    regions: NDArray[np.bool_] = named | (by_hand & (held >= MANY))
    rectangles = by_hand & _are_rectangles(outlines)
    if 2 * rectangles.sum() <= by_hand.sum():  # else all are boxes around nuclei
        regions |= rectangles & (held > 0)
    if shape is not None:
        size = np.array([shape[1], shape[0]])
        overlap = np.clip(np.minimum(high, size) - np.maximum(low, 0), 0, None)
        regions |= by_hand & (np.minimum(areas, overlap.prod(axis=1)) >= FILLS * size.prod())
    regions |= by_hand & _are_too_large(~regions, ~by_hand, areas, held)
    return regions, _find_cells(~regions, areas, held)


def _are_too_large(
    nuclei: NDArray[np.bool_], detected: NDArray[np.bool_], areas: NDArray[np.float64], held: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(N,) bool: which of what seem to be nuclei (N,) bool are too large for that.

    How large a nucleus is, is said by detections; where there are none by outlines that hold no other.
    """
    detected, single = detected & nuclei, nuclei & (held == 0)
    typical = detected if detected.any() else single
    if not typical.any():
        return np.zeros(len(nuclei), np.bool_)
    alone = HUGE if typical.sum() >= ENOUGH else np.inf
    limits = np.where((held > 0) | detected.any(), LARGE, alone) * np.median(areas[typical])
    large: NDArray[np.bool_] = nuclei & (areas > limits)
    holders = large & (held > 0)
    if not detected.any() and holders.sum() >= max(ENOUGH, MANY_HOLDERS * (nuclei & ~large).sum()):
        large &= ~holders
    return large


def _find_cells(
    outlines: NDArray[np.bool_], areas: NDArray[np.float64], held: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(N,) bool: the outer ones of pairs, if most of the `outlines` (N,) bool are of pairs."""
    cells = outlines & (held == 1)
    others = outlines & (held == 0)
    if not cells.any() or 2 * cells.sum() < IN_PAIRS * outlines.sum() or not others.any():
        return np.zeros(len(outlines), np.bool_)
    pairs: NDArray[np.bool_] = cells & (np.median(areas[cells]) < LARGEST_CELL * np.median(areas[others]))
    return pairs


def _are_rectangles(outlines: Polygons) -> NDArray[np.bool_]:
    """(N,) bool: which outlines are rectangles along the axes."""
    rectangles: NDArray[np.bool_] = np.diff(outlines.offsets) == 5
    corners = outlines.coords[outlines.offsets[:-1][rectangles][:, None] + np.arange(5)]
    steps: NDArray[np.bool_] = np.diff(corners, axis=1) == 0
    rectangles[rectangles] = (steps.any(axis=2) & (steps == np.roll(steps, 2, axis=1)).all(axis=2)).all(axis=1)
    return rectangles


def _count_held(
    outlines: Polygons,
    areas: NDArray[np.float64],
    by_hand: NDArray[np.bool_],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
) -> NDArray[np.int64]:
    """How many smaller outlines lie in each one, by center, first point and box; 0 for those that a program found."""
    centers = (low.astype(np.float64) + high) / 2
    order = np.argsort(centers[:, 0], kind="stable")
    sorted_x = centers[order, 0]
    starts, stops = np.searchsorted(sorted_x, low[:, 0]), np.searchsorted(sorted_x, high[:, 0], side="right")
    held = np.zeros(len(outlines), np.int64)
    for index in np.flatnonzero(by_hand & (stops - starts > 1)):
        near = order[starts[index] : stops[index]]
        boxed = (low[near] >= low[index]).all(axis=1) & (high[near] <= high[index]).all(axis=1)
        near = near[boxed & (areas[near] < areas[index])]
        if len(near):
            ring = outlines.coords[outlines.offsets[index] : outlines.offsets[index + 1]].astype(np.float64)
            points = outlines.coords[outlines.offsets[near]].astype(np.float64)
            held[index] = np.count_nonzero(inside(ring, centers[near]) & inside(ring, points))
    return held
