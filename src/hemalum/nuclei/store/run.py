"""What decides the nuclei of a slide: the part of a store's manifest by which a run goes on or is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hemalum.errors import HemalumError
from hemalum.nuclei.ihc_score import GRADES

Region = tuple[int, int]  # row and column in the grid of regions


def _graded_by(thresholds: tuple[float, ...]) -> tuple[float, ...]:
    if len(thresholds) not in GRADES:
        raise ValueError(f"{len(thresholds)} thresholds; want {' or '.join(map(str, GRADES))}")
    return thresholds


Thresholds = Annotated[tuple[float, ...], AfterValidator(_graded_by)]


class RegionGrid(BaseModel):
    """How the slide is cut: `rows` by `columns` regions, each `height` by `width` px of level 0."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    height: float = Field(gt=0)
    width: float = Field(gt=0)


class StoreRun(BaseModel):
    """What decides the nuclei of a slide; two runs that differ in any of it do not share a store.

    `fingerprint` is that of the slide, `shape` its (H, W) in px of level 0, `model_digest` the model's, `settings`
    all else that changes results, as plain values. `offset` is x, y of the slide's first px on the scanner's canvas,
    where the file states bounds. `dab` says that the slide is H-DAB; `positive` are the thresholds by which its
    nuclei are graded, or "otsu".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    fingerprint: str
    shape: tuple[int, int]
    source: str | None = None
    model: str | None = None
    model_digest: str | None = None
    mpp: float | None = Field(None, gt=0)
    mpp_source: str = "none"
    class_names: tuple[str, ...] = ()
    dab: bool = False
    positive: Thresholds | Literal["otsu"] | None = None
    offset: tuple[int, int] = (0, 0)
    settings: dict[str, Any] = {}
    grid: RegionGrid  # last: it follows from the rest, and the first difference is what a user is told


class StoreState(BaseModel):
    """What is known once all regions are there: how many parts they are, the thresholds that graded, notes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    complete: bool = False
    parts: int | None = Field(None, ge=0)
    thresholds: Thresholds | tuple[()] = ()
    notes: dict[str, Any] = {}


def read_content(path: Path, content: Mapping[str, Any]) -> tuple[StoreRun, StoreState]:
    """What the manifest `path` of a store says. Raises HemalumError for what it cannot say."""
    known = {key: content[key] for key in content if key in StoreState.model_fields}
    try:
        run = StoreRun.model_validate({key: content[key] for key in content if key not in known})
        return run, StoreState.model_validate(known)
    except ValidationError as error:
        where, what = ".".join(map(str, error.errors()[0]["loc"])), error.errors()[0]["msg"]
        raise HemalumError(f"{path}: is not the manifest of a store ({where}: {what})") from error


def raster_ids(first: NDArray[Any], width: int) -> NDArray[np.int64]:
    """Ids (N,) of nuclei by row and column (N, 2) of their first pixel on the slide's separation grid, `width` wide.

    No two nuclei share their first pixel, so the ids are unique, and the same whatever the regions were.
    """
    ids: NDArray[np.int64] = first[:, 0].astype(np.int64) * width + first[:, 1] + 1
    return ids


def first_difference(held: Any, requested: Any, name: str = "") -> str:
    """Where two plain contents first differ, as `settings.tile is 256 there, 512 here`; "" where they do not."""
    if isinstance(held, Mapping) and isinstance(requested, Mapping):
        for key in dict.fromkeys([*requested, *held]):
            difference = first_difference(held.get(key), requested.get(key), f"{name}.{key}" if name else str(key))
            if difference:
                return difference
        return ""
    return "" if held == requested else f"{name} is {_shorten(held)} there, {_shorten(requested)} here"


def _shorten(value: Any, longest: int = 80) -> str:
    """A value as text for one line; the outlines of a region of interest may have a million points."""
    text = str(value)
    return text if len(text) <= longest else f"{text[:longest]}…"
