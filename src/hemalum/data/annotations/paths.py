"""Rings as closed paths that are filled by parity: holes stay holes, and a line that crosses itself makes none."""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

Ring = NDArray[np.float64]


def to_path(rings: Sequence[Ring]) -> Ring:
    """Rings (n, 2) float64, each closed or not, as one closed path, back at its first point after each ring.

    The way to a ring and the way back are the same line, so that by parity neither adds nor takes away a pixel: a
    ring within another is a hole. A ring that crosses itself is replaced by the outline of what it winds around.
    """
    rings = [piece for ring in rings for piece in without_crossings(ring)]
    home = rings[0][:1]
    return np.concatenate([rings[0], *(piece for ring in rings[1:] for piece in (ring, home))])


def without_crossings(ring: Ring) -> list[Ring]:
    """The ring, closed, or where it crosses itself, rings that cover by parity what it winds around at all."""
    if (ring[0] != ring[-1]).any():
        ring = np.concatenate([ring, ring[:1]])
    if len(ring) < 4:
        return [ring]
    line = shapely.linearrings(ring)
    if shapely.is_simple(line):
        return [ring]
    faces = shapely.get_parts(shapely.polygonize([shapely.unary_union(line)]))
    points = shapely.get_coordinates(shapely.point_on_surface(faces))
    area = shapely.unary_union(faces[_windings(ring, points) != 0]) if len(faces) else None
    if area is None or area.is_empty:
        return [ring]
    return [
        shapely.get_coordinates(piece) for polygon in shapely.get_parts(area) for piece in shapely.get_rings(polygon)
    ]


def inside(path: Ring, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) bool: which of the points (n, 2) x, y lie in a closed path (m, 2), by parity."""
    return np.asarray(_windings(path, points) % 2 != 0)


def _windings(path: Ring, points: NDArray[np.float64]) -> NDArray[np.int64]:
    """How often a closed path (m, 2) winds around each of the points (n, 2)."""
    windings = np.zeros(len(points), np.int64)
    x, y = points.T
    for (x0, y0), (x1, y1) in zip(path[:-1].tolist(), path[1:].tolist(), strict=True):
        if y0 != y1:
            crosses = ((y0 <= y) != (y1 <= y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
            windings += crosses if y1 > y0 else -crosses.astype(np.int64)
    return windings


def areas(coords: NDArray[np.float32], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Area in px² that each closed path encloses, its holes as they are wound: for a comparison of sizes."""
    points = coords.astype(np.float64)
    twice = np.zeros(len(points))
    twice[:-1] = points[:-1, 0] * points[1:, 1] - points[1:, 0] * points[:-1, 1]
    twice[offsets[1:] - 1] = 0  # from the end of one path to the start of the next
    return np.asarray(np.abs(np.add.reduceat(twice, offsets[:-1])) / 2)
