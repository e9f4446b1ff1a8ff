"""Which nuclei are kept: limits on what was measured of each, and areas in which they lie."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationError, model_validator

from hemalum.errors import HemalumError, nearest
from hemalum.settings import Strict, as_number

FILTERED, ELSEWHERE = "left_out_by_filter", "left_out_by_area"  # notes of a result

LIMITS = {  # of a filter: column of the table, and whether it is the least or the most that is kept
    "min_area_um2": ("area_um2", "least"),
    "max_area_um2": ("area_um2", "most"),
    "min_probability": ("probability", "least"),
    "min_hematoxylin": ("hematoxylin_mean", "least"),
    "min_solidity": ("solidity", "least"),
}


class NucleusFilter(Strict):
    """Limits on what was measured of a nucleus; it is kept when it lies within all that are set, ends included."""

    model_config = ConfigDict(strict=True)  # a text is no number

    min_area_um2: float | None = Field(None, ge=0, description="least area, µm²")
    max_area_um2: float | None = Field(None, gt=0, description="largest area, µm²")
    min_probability: float | None = Field(None, ge=0, le=1, description="least mean probability of nucleus")
    min_hematoxylin: float | None = Field(
        None, ge=0, le=5, description="least mean optical density of hematoxylin (log10)"
    )
    min_solidity: float | None = Field(None, ge=0, le=1, description="least share of the convex hull that is filled")

    @classmethod
    def of(cls, **limits: float | None) -> Self:
        """A filter with these limits, numbers of any library. Raises HemalumError for one that is not possible."""
        try:
            return cls(**{name: as_number(limit, f"filter: {name}") for name, limit in limits.items()})
        except ValidationError as error:
            first = error.errors()[0]
            where = f"{first['loc'][0]} {first['input']}: " if first["loc"] else ""
            raise HemalumError(f"filter: {where}{first['msg'].removeprefix('Value error, ')}") from error

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        low, high = self.min_area_um2, self.max_area_um2
        if low is not None and high is not None and low > high:
            raise ValueError(f"the least area, {low:g} µm², is above the largest, {high:g}")
        return self

    @property
    def limits(self) -> dict[str, float]:
        """Those that are set, by name."""
        return {name: value for name in LIMITS if (value := getattr(self, name)) is not None}

    @property
    def columns(self) -> list[str]:
        """Those that the limits are on."""
        return [LIMITS[name][0] for name in self.limits]

    def keeps(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Which nuclei are kept (N,) bool, by columns (N,) of `hemalum.nuclei.morphology.describe`.

        Raises HemalumError where a limit is set on what was not measured.
        """
        kept: NDArray[np.bool_] = np.ones(len(columns["x"]), np.bool_)
        for name, limit in self.limits.items():
            column, end = LIMITS[name]
            values = np.asarray(columns[column], np.float32)  # as the table has them: so that both decide alike
            if np.isnan(values).any():
                raise HemalumError(f"{name} is set, and {column} of the nuclei is not known: {_WHY[column]}")
            kept &= values >= nearest_float(limit) if end == "least" else values <= nearest_float(limit)
        return kept


def nearest_float(limit: float) -> np.float32:
    """A limit as the table's float32, which has an end."""
    most = float(np.finfo(np.float32).max)
    return np.float32(min(max(limit, -most), most))


_WHY = {
    "area_um2": "give the scale, mpp",
    "probability": "no model gave them one",
    "hematoxylin_mean": "they were measured without the image",
    "solidity": "they have no outline",
}


def as_filter(limits: "NucleusFilter | Mapping[str, float] | None") -> NucleusFilter | None:
    """A filter, of a mapping of limits too; None where nothing is left out. Raises HemalumError for other limits."""
    if limits is None or isinstance(limits, NucleusFilter):
        made = limits
    elif not isinstance(limits, Mapping):
        raise HemalumError(f"filter: {limits!r} is no mapping of limits, as {{'min_area_um2': 20}}")
    else:
        for name in limits:
            if name not in LIMITS:
                raise HemalumError(f"filter: no limit '{name}'{nearest(name, LIMITS)}")
        made = NucleusFilter.of(**limits)
    return made if made is not None and made.limits else None


def filter_text(limits: Mapping[str, float]) -> str:
    """Limits as people read them: `area from 20 µm², solidity from 0.8`."""
    texts = []
    for name, value in limits.items():
        column, end = LIMITS[name]
        what, unit = _NAMES[column]
        texts.append(f"{what} {'from' if end == 'least' else 'up to'} {value:g}{unit}")
    return ", ".join(texts)


_NAMES = {
    "area_um2": ("area", " µm²"),
    "probability": ("probability", ""),
    "hematoxylin_mean": ("hematoxylin", " OD"),
    "solidity": ("solidity", ""),
}


def check_area(geometry: Any) -> Any:
    """The geometry, an area of shapely. Raises HemalumError for anything else, and for one that is not valid."""
    if not isinstance(geometry, shapely.Geometry) or not geometry.geom_type.endswith("Polygon"):
        kind = geometry.geom_type if isinstance(geometry, shapely.Geometry) else type(geometry).__name__
        raise HemalumError(f"want a polygon or multipolygon of shapely in px, not {kind}")
    if not geometry.is_valid:
        raise HemalumError(f"the area is not valid: {shapely.is_valid_reason(geometry)}")
    return geometry


def contains(geometry: Any, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points (N,), px, lie inside of a shapely area. Raises HemalumError for what is no area."""
    inside: NDArray[np.bool_] = shapely.contains_xy(check_area(geometry), x, y)
    return inside


def add_notes(
    notes: Mapping[str, Any], limits: Mapping[str, float], left_out: int, elsewhere: int | None
) -> dict[str, Any]:
    """The notes of a result that `limits` and, unless `elsewhere` is None, areas left so many nuclei out of.

    Those of filters before stay: of two limits the stricter, of numbers the sum.
    """
    merged, counts = dict(notes), {} if elsewhere is None else {ELSEWHERE: elsewhere}
    if limits:
        earlier = notes.get("filter", {})
        merged["filter"] = {
            name: (max if LIMITS[name][1] == "least" else min)(values)
            for name in LIMITS
            if (values := [one[name] for one in (earlier, limits) if name in one])
        }
        counts[FILTERED] = left_out
    return merged | {name: notes.get(name, 0) + count for name, count in counts.items()}


def cut_region(region: Any, shape: tuple[int, int], area: Any, *, wanted: bool) -> Any:
    """What is left of a region of an image of (H, W) px, None: of all of it, inside an area, or outside of it."""
    region = region or shapely.box(0, 0, shape[1], shape[0])
    return region & area if wanted else region - area
