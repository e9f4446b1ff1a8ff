"""GeoJSON of polygons, as QuPath exports it, back to a label map."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError, one_line
from hemalum.nuclei.polygons import Polygons, fill

log = logging.getLogger(__name__)

MAX_BYTES = 256 * 2**20  # about half a million nuclei: a tile has a thousandth of that
STRAY_PX = 2.0  # an outline may be smoothed or rounded across the edge of its image by this much
NUCLEI = ("detection", "cell")  # QuPath's objectType of what is found; an annotation is a region drawn by hand

Ring = NDArray[np.float64]


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
    rings: list[Ring] = []
    names: list[str | None] = [None]
    for number, geometry, name in _geometries(path):
        names.append(name)
        where = f"{path}, feature {number}"
        rings.append(_path_of(geometry, where))
        low, high = rings[-1].min(axis=0), rings[-1].max(axis=0)
        if low.min() < -STRAY_PX or high[0] > shape[1] + STRAY_PX or high[1] > shape[0] + STRAY_PX:
            raise HemalumError(
                f"{where}: the polygon spans x {low[0]:g} to {high[0]:g}, y {low[1]:g} to {high[1]:g}, its image is "
                f"{shape[1]} x {shape[0]} px: export in px of this very image"
            )
    offsets = np.cumsum([0, *(len(ring) for ring in rings)]).astype(np.int64)
    coords = np.concatenate(rings) if rings else np.zeros((0, 2))
    labels = fill(Polygons(coords.astype(np.float32), offsets), shape).astype(np.int32)
    hidden = len(rings) - np.count_nonzero(np.bincount(labels.ravel())[1:])
    if hidden:
        log.warning("%s: %d of %d polygons hold no pixel of their own", path, hidden, len(rings))
    return labels, names


def _geometries(path: Path) -> Iterator[tuple[int, Any, str | None]]:
    """Number from 1, geometry and class of each feature that is a nucleus."""
    features = _features(path)
    object_types = [_member(_member(feature, "properties"), "objectType") for feature in features]
    has_nuclei = any(object_type in NUCLEI for object_type in object_types)
    left_out = 0
    for number, (feature, object_type) in enumerate(zip(features, object_types, strict=True), start=1):
        if has_nuclei and object_type not in NUCLEI:
            left_out += 1
            continue
        nucleus = _member(feature, "nucleusGeometry")
        name = _class_name(_member(_member(feature, "properties"), "classification"))
        yield number, nucleus if nucleus is not None else _member(feature, "geometry"), name
    if left_out:
        log.info("%s: %d objects that are no detections or cells are left out", path, left_out)


def _class_name(classification: Any) -> str | None:
    """The name of a classification as QuPath shows it; a derived class is stored as the list of its parts."""
    name, parts = _member(classification, "name"), _member(classification, "names")
    if isinstance(parts, list) and parts and all(isinstance(part, str) for part in parts):
        return ": ".join(parts)
    return name if isinstance(name, str) else None


def _features(path: Path) -> list[Any]:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise HemalumError(
                f"{path}: {size / 2**20:.0f} MB of GeoJSON; more than {MAX_BYTES // 2**20} MB is no tile"
            )
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise HemalumError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise HemalumError(f"{path}: not JSON ({one_line(error)})") from error
    if isinstance(content, list):
        return content
    if _member(content, "type") == "Feature":
        return [content]
    features = _member(content, "features")
    if not isinstance(features, list):
        raise HemalumError(f"{path}: not GeoJSON: want a FeatureCollection or a list of Features")
    return features


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _path_of(geometry: Any, where: str) -> Ring:
    """All rings of a (multi)polygon as one path: back at the first point after each ring.

    The way to a ring and the way back are the same line, so that by parity neither adds nor takes away a pixel,
    and a hole stays a hole.
    """
    kind = _member(geometry, "type")
    if kind not in ("Polygon", "MultiPolygon"):
        raise HemalumError(f"{where}: geometry is {kind!r}; nuclei are Polygon or MultiPolygon")
    coordinates = geometry.get("coordinates")
    polygons = [coordinates] if kind == "Polygon" else coordinates
    pieces: list[Ring] = []
    try:
        for polygon in polygons:
            for ring in polygon:
                points = np.array([point[:2] for point in ring], float)
                if points.shape[0] < 3 or points.shape[1:] != (2,) or not np.isfinite(points).all():
                    raise ValueError
                closed = points if (points[0] == points[-1]).all() else np.concatenate([points, points[:1]])
                pieces += [closed] if not pieces else [closed, pieces[0][:1]]
        return np.concatenate(pieces)
    except (TypeError, ValueError) as error:
        raise HemalumError(
            f"{where}: coordinates are not rings of at least three points [x, y] of finite numbers"
        ) from error
