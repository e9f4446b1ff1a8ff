"""What the page sends and gets: shapes, with bounds on all that comes in. Points are px of the item."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hemalum.review.edits import MAX_NUCLEI, Kind
from hemalum.review.item import MAX_TEXT, Status
from hemalum.review.journal import MAX_AUTHOR
from hemalum.review.nucleus import MAX_POINTS, State

LARGEST = 2**53 - 1  # whole number that a browser holds exactly

Finite = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, le=LARGEST)]
Point = Annotated[list[Finite], Field(min_length=2, max_length=2)]
Author = Annotated[str, Field(min_length=1, max_length=MAX_AUTHOR)]
Window = tuple[int, int, int, int]  # x, y, width, height in px of the image


class ErrorAnswer(BaseModel):
    """One line: what is wrong, and what to do."""

    detail: str


class ConflictAnswer(ErrorAnswer):
    """Another came first: the id of the nucleus, 0 for the item's status, who changed it when, the version now."""

    touched: int
    author: str
    time: str
    version: int


class ProgressAnswer(BaseModel):
    """How far the model has looked at the fields."""

    state: Literal["running", "done", "failed"]
    done: int
    total: int
    message: str | None


class ItemCounts(BaseModel):
    """Items by status."""

    items: int
    reviewed: int
    skipped: int
    open: int


class FailureAnswer(BaseModel):
    """An image that could not be looked at, and why."""

    name: str
    message: str


class Limits(BaseModel):
    """Most points of an outline, and most nuclei of one edit."""

    points: int
    nuclei: int


class ProjectAnswer(BaseModel):
    """What is reviewed, by whom, and how far it is; the `id` is of this project alone."""

    id: str
    name: str
    source: str
    model: str
    version: str
    class_names: tuple[str, ...]
    author: str
    rankings: tuple[str, ...]
    by_default: str
    progress: ProgressAnswer
    counts: ItemCounts
    failures: list[FailureAnswer]
    limits: Limits


class QueuedAnswer(BaseModel):
    """An item of the queue: its `rank` among the `of` items of its stratum, and why it is there."""

    id: str
    name: str
    image: str
    window: Window | None
    stratum: str
    rank: int
    of: int
    reason: str
    status: Status
    nuclei: int


class QueueAnswer(BaseModel):
    """The items that the model has looked at, in the order in which they should be reviewed."""

    progress: ProgressAnswer
    items: list[QueuedAnswer]


class ImageAnswer(BaseModel):
    """An image; `nuclei` of a slide that was segmented."""

    id: str
    name: str
    width: int
    height: int
    mpp: float | None
    is_slide: bool
    nuclei: int | None


class ImageItem(BaseModel):
    """An item of an image; no status where nobody has opened it."""

    id: str
    window: Window | None
    status: Status | None


class WholeImageAnswer(ImageAnswer):
    """An image with its pyramid. Outlines are given from the level `outlines_from` on, densities before it; a density
    has its full color at `nuclei_scale[1]` nuclei per mm² (per megapixel without a scale)."""

    tile_size: int
    levels: int
    outlines_from: int | None
    nuclei_scale: list[float]
    items: list[ImageItem]


class NucleusCounts(BaseModel):
    """Nuclei of an item: those that count, by state, and those that were drawn."""

    nuclei: int
    proposed: int
    accepted: int
    rejected: int
    added: int


class ItemAnswer(BaseModel):
    """An item as it is now."""

    id: str
    name: str
    image: str
    window: Window
    width: int
    height: int
    mpp: float | None
    stratum: str
    reason: str | None
    rank: int | None
    of: int | None
    status: Status
    version: int
    class_names: tuple[str, ...]
    counts: NucleusCounts
    can_undo: bool
    can_redo: bool


class NucleusAnswer(BaseModel):
    """A nucleus: its open outline x, y, x, y …, who changed it last, and what the model was unsure of."""

    id: int
    points: list[float]
    class_name: str | None
    state: State
    entropy: float | None
    disagreement: float | None
    distance: float | None
    probability: float | None
    by: str | None


class NucleiAnswer(BaseModel):
    """The nuclei of an item at a version."""

    version: int
    nuclei: list[NucleusAnswer]


class EventAnswer(BaseModel):
    """Who did what when."""

    id: int
    author: str
    time: str
    kind: str


class ChangesAnswer(BaseModel):
    """What has become of an item since a version: nuclei as they are now, ids of those that are gone."""

    version: int
    status: Status
    changed: list[NucleusAnswer]
    removed: list[int]
    events: list[EventAnswer]
    counts: NucleusCounts
    can_undo: bool
    can_redo: bool


class ProposalAnswer(BaseModel):
    """The model's outline at a point; none where there is nothing."""

    points: list[float] | None


class Asked(BaseModel):
    """What asks for a change, made on the version `parent` of an item."""

    model_config = ConfigDict(extra="forbid", strict=True)

    parent: Whole
    author: Author | None = None


class EditRequest(Asked):
    """An edit: of the nuclei `ids`, with `points` as drawn, a class, or the item's status."""

    kind: Kind
    ids: Annotated[list[Annotated[int, Field(ge=1, le=LARGEST)]], Field(max_length=MAX_NUCLEI)] = []
    points: Annotated[list[Point], Field(max_length=MAX_POINTS + 1)] = []
    class_name: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    status: Status | None = None


class TurnRequest(Asked):
    """What takes back the author's last change, or makes it again."""
