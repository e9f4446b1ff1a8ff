"""Regions of interest: the parts of a slide that are looked at, as a rectangle or as outlines drawn in QuPath."""

import json
import logging
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import shapely
import shapely.geometry
from numpy.typing import NDArray

from hemalum.data.annotations import read_objects
from hemalum.errors import HemalumError
from hemalum.nuclei.filters import check_area
from hemalum.slides.tissue import Tissue, mask_boxes

log = logging.getLogger(__name__)

MOST_OUTSIDE = 0.1  # of an area beyond the edges: outlines drawn by hand reach over them a little
NUMBERS = re.compile(r"[-+\d.,\s]+")
MAX_BYTES = 16 << 20  # of a file of regions: a million points
ONE_AT_A_TIME = threading.Lock()  # a prepared geometry builds its index when it is first asked


@dataclass(frozen=True, slots=True, eq=False)
class Roi:
    """One area, or several, in px of level 0; `name` says where it comes from."""

    geometry: Any  # shapely: a valid Polygon or MultiPolygon within the slide
    name: str

    @property
    def area(self) -> float:
        """px² of level 0."""
        return float(self.geometry.area)

    def meets(self, x: float, y: float, width: float, height: float) -> bool:
        """Whether a window, px of level 0, has a part of it."""
        with ONE_AT_A_TIME:
            return bool(self.geometry.intersects(shapely.box(x, y, x + width, y + height)))

    def share_in(self, x: float, y: float, width: float, height: float) -> float:
        """Which share of a window, px of level 0, lies inside."""
        with ONE_AT_A_TIME:
            return float(self.geometry.intersection(shapely.box(x, y, x + width, y + height)).area) / (width * height)

    def contains(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which points (N,), px of level 0, lie inside."""
        with ONE_AT_A_TIME:
            inside: NDArray[np.bool_] = shapely.contains_xy(self.geometry, x, y)
        return inside


Area: TypeAlias = Roi | Path | str | Sequence[float] | Any  # what names a region, or a geometry of shapely


def find_roi(shape: tuple[int, int], roi: Area | None = None, exclude: Area | None = None) -> Roi | None:
    """The area of an image of (H, W) px in `roi`, or all of it, that is not in `exclude`; None: all of the image.

    Raises HemalumError as `read_roi` does, and where nothing is left.
    """
    wanted, unwanted = (
        area if area is None or isinstance(area, Roi) else read_roi(area, shape, name)
        for area, name in ((roi, "roi"), (exclude, "exclude"))
    )
    if unwanted is None:
        return wanted
    name = f"{'all' if wanted is None else wanted.name} without {unwanted.name}"
    everywhere = shapely.box(0, 0, shape[1], shape[0]) if wanted is None else wanted.geometry
    geometry = _areas_of(shapely.difference(everywhere, unwanted.geometry))
    if geometry.area < 1:
        raise HemalumError(f"exclude '{unwanted.name}': nothing of the image is left")
    shapely.prepare(geometry)
    return Roi(geometry, name)


def _areas_of(geometry: Any) -> Any:
    """The areas of a geometry alone: where outlines run along each other, lines come out as well."""
    return shapely.union_all([part for part in shapely.get_parts(geometry) if part.geom_type.endswith("Polygon")])


def read_roi(area: Path | str | shapely.Geometry | Sequence[float], shape: tuple[int, int], what: str = "roi") -> Roi:
    """The region of interest that a user means for a slide of (H, W) px: a rectangle, a GeoJSON file or a geometry.

    A rectangle is "X,Y,WIDTH,HEIGHT" or these four numbers. Of a file all areas count, whatever they are classified
    as; what lies outside the slide is cut off, with a warning where that is much. `what` is how errors call it.

    Raises HemalumError for anything else, a file that is missing, damaged or without areas, outlines that cross
    themselves, and regions that have no pixel of the slide.
    """
    height, width = shape
    area = str(area) if isinstance(area, Path) else area
    if isinstance(area, shapely.Geometry):
        areas, name = [_checked(area, what)], f"{area.geom_type} of shapely"
    elif isinstance(area, str) and (_is_there(area) or not _is_rectangle(area)):
        areas, name = _read_areas(area, what), area
    else:
        x, y, wide, high = read_rectangle(area, what)
        areas, name = [shapely.box(x, y, x + wide, y + high)], _rectangle_text(area)
    whole_area = shapely.union_all(areas)
    geometry = _areas_of(shapely.intersection(whole_area, shapely.box(0, 0, width, height)))
    if geometry.area < 1:
        raise HemalumError(f"{what} '{name}': it lies outside the slide, which is {width} x {height} px")
    outside = 1 - geometry.area / whole_area.area
    if outside > MOST_OUTSIDE:
        log.warning(
            "%s '%s': %d %% of it lies outside the slide, which is %d x %d px, and is cut off; "
            "is it of another one?",
            what, name, min(99, round(100 * outside)), width, height,
        )  # fmt: skip
    shapely.prepare(geometry)
    return Roi(geometry, name)


def _checked(area: shapely.Geometry, what: str) -> shapely.Geometry:
    try:
        return check_area(area)
    except HemalumError as error:
        raise HemalumError(f"{what}: {error}") from error


def _is_there(text: str) -> bool:
    try:
        return text != "" and Path(text).exists()
    except (OSError, ValueError):  # no name that a file could have
        return False


def _is_rectangle(text: str) -> bool:
    return text.count(",") == 3 or not text.strip() or NUMBERS.fullmatch(text) is not None


def _rectangle_text(area: Any) -> str:
    return area if isinstance(area, str) else ",".join(f"{number:g}" for number in area)


def read_rectangle(area: Any, what: str = "roi") -> tuple[float, float, float, float]:
    """The four numbers of "X,Y,WIDTH,HEIGHT", or as such, px of level 0. Raises HemalumError for anything else."""
    try:
        x, y, width, height = (float(part) for part in (area.split(",") if isinstance(area, str) else area))
    except (TypeError, ValueError, AttributeError):
        raise HemalumError(f"{what} '{area}': want X,Y,WIDTH,HEIGHT in px of level 0, or a GeoJSON file") from None
    if not (width >= 1 and height >= 1 and np.isfinite([x, y, width, height]).all()):
        raise HemalumError(f"{what} '{area}': width and height must be at least 1 px")
    return x, y, width, height


def tissue_in(roi: Roi, tissue: Tissue) -> float:
    """Area of tissue inside a region of interest, px² of level 0."""
    boxes = mask_boxes(tissue.mask, tissue.shape)
    boxes = boxes[shapely.intersects(roi.geometry, boxes)]
    return float(shapely.area(shapely.intersection(roi.geometry, boxes)).sum())


def _read_areas(path: str, what: str) -> list[Any]:
    try:
        content = _read_whole(Path(path), what)
    except (OSError, ValueError) as error:  # ValueError: no name that a file could have
        reason = getattr(error, "strerror", None) or error
        raise HemalumError(f"{what} '{path}': {reason}; want X,Y,WIDTH,HEIGHT or a GeoJSON file") from None
    shapes = _bare_geometry(path, content)
    if shapes is None:
        shapes = [
            (f"{path}, feature {one.number}", shapely.Polygon(exterior, holes))
            for one in read_objects(path)
            for exterior, *holes in one.polygons
        ]
    for where, area in shapes:
        if not area.is_valid:
            raise HemalumError(f"{where}: {_fault(area)}; draw the region anew")
    if all(area.is_empty for _, area in shapes):
        raise HemalumError(f"{path}: holds no areas; draw a region in QuPath and export it as GeoJSON")
    return [area for _, area in shapes]


def _read_whole(path: Path, what: str) -> bytes:
    if path.is_dir():
        raise HemalumError(f"{what} '{path}': is a folder; want X,Y,WIDTH,HEIGHT or a GeoJSON file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise HemalumError(f"{what} '{path}': {size:,} bytes; a file of regions has at most {MAX_BYTES:,}")
    return path.read_bytes()


def _fault(area: Any) -> str:
    """What is wrong with an outline, in words."""
    reason = str(shapely.is_valid_reason(area))
    crossing = re.fullmatch(r"(?:Ring )?Self-intersection\[(\S+) (\S+)\]", reason)
    return f"the outline crosses itself at x {crossing[1]}, y {crossing[2]}" if crossing else reason


def _bare_geometry(path: str, text: bytes) -> list[tuple[str, Any]] | None:
    """The area of a file that is a geometry alone, not a feature; None for other files."""
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("type") not in ("Polygon", "MultiPolygon"):
            return None
        return [(path, shapely.geometry.shape(content))]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, shapely.errors.ShapelyError):
        return None  # the reader of features says what is wrong
