"""QuPath's objects in GeoJSON, read one after the other."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.nuclei.io import read_features

NUCLEI = ("detection", "cell")  # QuPath's objectType of what is found; an annotation is drawn by hand
TILES = ("tile", "tmacore", "root")  # QuPath's objectType of what is never a nucleus
# what versions of QuPath before 0.3 wrote as the id of every object
OLD_KINDS = {
    "PathDetectionObject": "detection",
    "PathCellObject": "cell",
    "PathAnnotationObject": "annotation",
    "PathTileObject": "tile",
    "TMACoreObject": "tmacore",
    "PathRootObject": "root",
}
AREAS = ("Polygon", "MultiPolygon")
NO_AREAS = (None, "Point", "MultiPoint", "LineString", "MultiLineString")
POINTS, TILES_OR_CORES = "point or line", "tile or core"  # how a line calls them

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


def read_objects(path: Path | str) -> Iterator[QuPathObject]:
    """The polygons of a GeoJSON file of any size (also `.geojson.gz`), in its order; one at a time is in memory.

    Raises HemalumError, naming the feature, for a file that is missing or not GeoJSON, and for other geometries than
    polygons.
    """
    for number, feature in enumerate(read_features(path), start=1):
        yield _object(feature, number, path, _kind(feature))


def read_areas(path: Path | str, left_out: Counter[str]) -> Iterator[QuPathObject]:
    """Those of `read_objects` that may be nuclei or regions; `left_out` counts points, lines, tiles and TMA cores."""
    for number, feature in enumerate(read_features(path), start=1):
        kind = _kind(feature)
        if kind in TILES:
            left_out[TILES_OR_CORES] += 1
        elif _encloses_nothing(_geometry(feature)):
            left_out[POINTS] += 1
        else:
            yield _object(feature, number, path, kind)


def _geometry(feature: Any) -> Any:
    """Of a cell the outline of its nucleus, where it has one."""
    nucleus = _member(feature, "nucleusGeometry")
    return _member(feature, "geometry") if nucleus is None else nucleus


def _encloses_nothing(geometry: Any) -> bool:
    kind, parts = _member(geometry, "type"), _member(geometry, "geometries")
    if kind == "GeometryCollection" and isinstance(parts, list):
        return all(_member(part, "type") in NO_AREAS for part in parts)
    return kind in NO_AREAS and (geometry is None or isinstance(geometry, dict))


def _kind(feature: Any) -> str:
    """QuPath's objectType; "" where the file says none."""
    properties = _member(feature, "properties")
    for name in ("objectType", "object_type"):
        kind = _member(properties, name)
        if isinstance(kind, str):
            return kind.replace(" ", "").replace("_", "").lower()
    name = _member(feature, "id")
    return OLD_KINDS.get(name, "") if isinstance(name, str) else ""


def _object(feature: Any, number: int, path: Path | str, kind: str) -> QuPathObject:
    properties, name = _member(feature, "properties"), _member(feature, "id")
    classification = _member(properties, "classification")
    return QuPathObject(
        number,
        _polygons(_geometry(feature), f"{path}, feature {number}"),
        kind,
        name if isinstance(name, str) else None,
        _class_name(classification),
        _color(classification),
        _measurements(_member(properties, "measurements"), f"{path}, feature {number}"),
    )


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _class_name(classification: Any) -> str | None:
    """The name of a classification as QuPath shows it, without blanks around it; None for none.

    A derived class is stored as the list of its parts; other programs write a name, or the list, alone.
    """
    names = [_member(classification, "names"), _member(classification, "name"), classification]
    for name in names:
        parts = name if isinstance(name, list) else [name]
        if all(isinstance(part, str) for part in parts):
            shown = ": ".join(part.strip() for part in parts if part.strip())
            if shown:
                return shown
    return None


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
    """The rings of a Polygon or MultiPolygon, or of those in a collection of geometries, each closed."""
    kind = _member(geometry, "type")
    if kind == "GeometryCollection" and isinstance(geometry.get("geometries"), list):
        inside = [one for one in geometry["geometries"] if _member(one, "type") not in NO_AREAS]
        polygons = [polygon for one in inside for polygon in _polygons(one, where)]
        if polygons:
            return polygons
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
