"""QuPath's objects in GeoJSON: read one after the other, or as the label map of an image."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.nuclei.io import read_features
from hemalum.nuclei.polygons import Polygons, fill

log = logging.getLogger(__name__)

MAX_BYTES = 256 * 2**20  # about half a million nuclei: a tile has a thousandth of that
STRAY_PX = 2.0  # an outline may be smoothed or rounded across the edge of its image by this much
NUCLEI = ("detection", "cell")  # QuPath's objectType of what is found; an annotation is a region drawn by hand
AREAS = ("Polygon", "MultiPolygon")

Ring = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class QuPathObject:
    """One object. `polygons` are lists of closed rings (n, 2) float64 x, y in px, the exterior first, then holes.

    `kind` is QuPath's objectType, "" where the file says none; of a cell `polygons` are the outline of its nucleus,
    where it has one. `class_name` is the classification as QuPath shows it (a derived class is "Tumor: Positive"),
    `color` its RGB, `measurements` by name. `number` counts the features of the file from 1.
    """

    number: int
    polygons: list[list[Ring]]
    kind: str = ""
    id: str | None = None
    class_name: str | None = None
    color: tuple[int, int, int] | None = None
    measurements: dict[str, float] = field(default_factory=dict)

    @property
    def path(self) -> Ring:
        """All rings as one closed path, back at its first point after each ring.

        The way to a ring and the way back are the same line, so that by parity neither adds nor takes away a pixel,
        and a hole stays a hole.
        """
        rings = [ring for polygon in self.polygons for ring in polygon]
        home = rings[0][:1]
        return np.concatenate([rings[0], *(piece for ring in rings[1:] for piece in (ring, home))])


def read_objects(path: Path | str) -> Iterator[QuPathObject]:
    """The polygons of a GeoJSON file of any size (also `.geojson.gz`), in its order; one at a time is in memory.

    Raises HemalumError, naming the feature, for a file that is missing or not GeoJSON, and for other geometries than
    polygons.
    """
    for number, feature in enumerate(read_features(path), start=1):
        yield _object(feature, number, path)


def read_nuclei(path: Path | str, *, some: bool | None = None, quiet: bool = False) -> Iterator[QuPathObject]:
    """Those of `read_objects` that are nuclei: detections and cells; where there are none, all.

    `some` says whether there are any, where `has_nuclei` was asked before; it reads the file up to the first one.
    The log says how many others there are, unless `quiet`.
    """
    some = has_nuclei(path) if some is None else some
    left_out = 0
    for number, feature in enumerate(read_features(path), start=1):
        if some and _kind(feature) not in NUCLEI:
            left_out += 1
            continue
        yield _object(feature, number, path)
    if left_out and not quiet:
        log.info("%s: %d objects that are no detections or cells are left out", path, left_out)


def read_regions(path: Path | str, *, some: bool | None = None) -> Iterator[QuPathObject]:
    """The annotations that are areas, in a file that has detections or cells as well (`some`); else none."""
    if not (has_nuclei(path) if some is None else some):
        return
    left_out = 0
    for number, feature in enumerate(read_features(path), start=1):
        if _kind(feature) in NUCLEI:
            continue
        if _member(_member(feature, "geometry"), "type") in AREAS:
            yield _object(feature, number, path)
        else:
            left_out += 1
    if left_out:
        log.warning("%s: %d annotations that are points or lines are left out", path, left_out)


def read_class_names(path: Path | str) -> set[str]:
    """The classifications of the nuclei (see `read_nuclei`), by one pass."""
    names: dict[bool, set[str]] = {True: set(), False: set()}
    some = False
    for feature in read_features(path):
        nucleus = _kind(feature) in NUCLEI
        some |= nucleus
        name = _class_name(_member(_member(feature, "properties"), "classification"))
        if name is not None:
            names[nucleus].add(name)
    return names[some]


def _kind(feature: Any) -> Any:
    return _member(_member(feature, "properties"), "objectType")


def _object(feature: Any, number: int, path: Path | str) -> QuPathObject:
    properties, kind, name = _member(feature, "properties"), _kind(feature), _member(feature, "id")
    nucleus, classification = _member(feature, "nucleusGeometry"), _member(properties, "classification")
    return QuPathObject(
        number,
        _polygons(nucleus if nucleus is not None else _member(feature, "geometry"), f"{path}, feature {number}"),
        kind if isinstance(kind, str) else "",
        name if isinstance(name, str) else None,
        _class_name(classification),
        _color(classification),
        _measurements(_member(properties, "measurements"), f"{path}, feature {number}"),
    )


def has_nuclei(path: Path | str) -> bool:
    """Whether a file holds detections or cells; without them its annotations are taken for nuclei."""
    return any(_kind(feature) in NUCLEI for feature in read_features(path))


def read_geojson(path: Path | str, shape: tuple[int, int]) -> tuple[NDArray[np.int32], list[str | None]]:
    """Give the label map (H, W) int32 of the polygons in a GeoJSON file, and the name of each one's class by its id.

    Ids are 1..N in the order of the file. The name is that of QuPath's classification, None without one and for
    background; of a derived class ("Tumor: Positive") all of it. The file holds a FeatureCollection, a list of
    Features or one Feature, in px of an image of `shape`. A pixel is inside when its center is; holes are left out;
    where polygons overlap the later one is on top. QuPath's cells give their nucleus; its annotations are nuclei only
    where there are no detections or cells.

    Raises HemalumError, naming the feature, for a file that is missing, too large or not GeoJSON, for other
    geometries than polygons, and for polygons outside the image.
    """
    path = Path(path)
    _check_size(path)
    rings: list[Ring] = []
    names: list[str | None] = [None]
    for one in read_nuclei(path):
        names.append(one.class_name)
        rings.append(one.path)
        check_within(rings[-1], shape, f"{path}, feature {one.number}")
    offsets = np.cumsum([0, *(len(ring) for ring in rings)]).astype(np.int64)
    coords = np.concatenate(rings) if rings else np.zeros((0, 2))
    labels = fill(Polygons(coords.astype(np.float32), offsets), shape).astype(np.int32)
    hidden = len(rings) - np.count_nonzero(np.bincount(labels.ravel())[1:])
    if hidden:
        log.warning("%s: %d of %d polygons hold no pixel of their own", path, hidden, len(rings))
    return labels, names


def check_within(ring: Ring, shape: tuple[int, int], where: str) -> None:
    """Raise HemalumError for an outline that leaves its image of (H, W) px by more than `STRAY_PX`."""
    low, high = ring.min(axis=0), ring.max(axis=0)
    if low.min() < -STRAY_PX or high[0] > shape[1] + STRAY_PX or high[1] > shape[0] + STRAY_PX:
        raise HemalumError(
            f"{where}: the polygon spans x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}, its image is "
            f"{shape[1]} x {shape[0]} px: export in px of this very image"
        )


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise HemalumError(f"{path}: cannot be read ({error.strerror or error})") from error
    if size > MAX_BYTES:
        raise HemalumError(f"{path}: {size / 2**20:.0f} MB of GeoJSON; more than {MAX_BYTES // 2**20} MB is no tile")


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _class_name(classification: Any) -> str | None:
    """The name of a classification as QuPath shows it; a derived class is stored as the list of its parts."""
    name, parts = _member(classification, "name"), _member(classification, "names")
    if isinstance(parts, list) and parts and all(isinstance(part, str) for part in parts):
        return ": ".join(parts)
    return name if isinstance(name, str) else None


def _color(classification: Any) -> tuple[int, int, int] | None:
    """RGB; versions of QuPath before 0.4 packed it into one number."""
    color, packed = _member(classification, "color"), _member(classification, "colorRGB")
    if isinstance(color, list) and len(color) == 3 and all(isinstance(one, int) for one in color):
        return color[0], color[1], color[2]
    if isinstance(packed, int):
        return packed >> 16 & 255, packed >> 8 & 255, packed & 255
    return None


def _measurements(measured: Any, where: str) -> dict[str, float]:
    """By name; versions of QuPath before 0.4 wrote a list of names and values."""
    if isinstance(measured, list):
        measured = {_member(one, "name"): _member(one, "value") for one in measured}
    if not isinstance(measured, dict):
        return {}
    try:
        return {
            name: float(value)
            for name, value in measured.items()
            if isinstance(name, str) and isinstance(value, int | float)
        }
    except OverflowError as error:
        raise HemalumError(f"{where}: a measurement is a larger number than there can be; export it again") from error


def _polygons(geometry: Any, where: str) -> list[list[Ring]]:
    """The rings of a Polygon or MultiPolygon, each closed."""
    kind = _member(geometry, "type")
    if kind not in AREAS:
        raise HemalumError(f"{where}: geometry is {kind!r}; nuclei are Polygon or MultiPolygon")
    coordinates = geometry.get("coordinates")
    try:
        polygons = [
            [_ring(ring) for ring in polygon] for polygon in ([coordinates] if kind == "Polygon" else coordinates)
        ]
        if not polygons or not all(polygons):
            raise ValueError
    except (OverflowError, TypeError, ValueError) as error:
        raise HemalumError(
            f"{where}: coordinates are not rings of at least three points [x, y] of finite numbers"
        ) from error
    return polygons


def _ring(ring: Any) -> Ring:
    points = np.array([point[:2] for point in ring], float)
    if points.shape[0] < 3 or points.shape[1:] != (2,) or not np.isfinite(points).all():
        raise ValueError
    return points if (points[0] == points[-1]).all() else np.concatenate([points, points[:1]])
