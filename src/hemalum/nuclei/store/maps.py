"""Maps of a slide: how many nuclei, how large, and of which class, on a grid in µm.

Only sums are kept, so memory depends on the grid, not on the nuclei, and a coarser grid is exact: its sums are sums.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from hemalum.errors import HemalumError, one_line
from hemalum.nuclei.ihc_score import GRADES
from hemalum.nuclei.store.parts import number_names
from hemalum.nuclei.store.store import NucleiStore

CELL_UM = 50.0  # side of a cell of the grid
MAX_CELLS = 1 << 24  # of a grid: 200 mm x 200 mm in cells of 50 µm

Counts = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One map, `values` (h, w) float32 in `unit`; nan where there is nothing to say.

    A `fraction` lies between 0 and 1; other maps begin `from_zero` or at their own least value.
    """

    name: str
    title: str
    unit: str
    values: Floats
    fraction: bool = False
    from_zero: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class SlideMaps:
    """Sums over the nuclei whose centroid lies in each of (h, w) cells of a grid over the slide.

    `side` is µm of a cell in y and x. `counts` are nuclei, `areas` the sum of their area in µm² over `measured` of
    them; `by_class` (C, h, w) and `by_grade` (G, h, w) count those of each of `class_names` and `grades`. `tissue` is
    the share of a cell that is tissue and in the region of interest, `searched` in how many cells of the finest grid
    nuclei were looked for. `tissue_known` is False where the mask of the run is not known: all counts as tissue.
    """

    side: tuple[float, float]
    mpp: float
    counts: Counts
    areas: NDArray[np.float64]
    measured: Counts
    by_class: Counts
    by_grade: Counts
    tissue: Floats
    searched: Counts
    class_names: tuple[str, ...] = ()
    grades: tuple[str, ...] = ()
    tissue_known: bool = False
    merged: int = 1  # cells of the finest grid along a side

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        height, width = self.counts.shape
        return height, width

    @property
    def density(self) -> Floats:
        """Nuclei per mm² (h, w) of a cell; nan where none were looked for. Not smoothed."""
        area = self.searched * (self.side[0] * self.side[1] / self.merged**2 / 1e6)
        return _divide(self.counts, area)

    @property
    def mean_area(self) -> Floats:
        """Mean area of the nuclei (h, w) in µm²; nan where there are none."""
        return _divide(self.areas, self.measured)

    @property
    def majority(self) -> NDArray[np.int32]:
        """Number from 1 of the class (h, w) that most nuclei have, the first one of a tie; 0 where there are none."""
        if not self.class_names:
            return np.zeros(self.shape, np.int32)
        most = self.by_class.argmax(axis=0) + 1
        return np.where(self.by_class.any(axis=0), most, 0).astype(np.int32)

    def layers(self) -> Iterator[Layer]:
        """All maps: density, mean area, the share of each class and, of graded nuclei, of positive ones."""
        yield Layer("density", "Density of nuclei", "nuclei per mm²", self.density)
        yield Layer("area", "Mean area of nuclei", "µm²", self.mean_area, from_zero=False)
        classified = self.by_class.sum(axis=0)
        for name, counts in zip(self.class_names, self.by_class, strict=True):
            yield Layer(f"class: {name}", f"Share of {name}", "of nuclei", _divide(counts, classified), True)
        if self.grades:
            positive = self.by_grade[1:].sum(axis=0)
            share = _divide(positive, self.by_grade.sum(axis=0))
            yield Layer("positive", "Share of positive nuclei", "of nuclei", share, True)

    def coarser(self, factor: int) -> "SlideMaps":
        """The same on a grid of `factor` by `factor` cells in one; the last may reach beyond the slide."""
        if factor == 1:
            return self
        return replace(
            self,
            side=(self.side[0] * factor, self.side[1] * factor),
            counts=_merge(self.counts, factor),
            areas=_merge(self.areas, factor),
            measured=_merge(self.measured, factor),
            by_class=_merge(self.by_class, factor),
            by_grade=_merge(self.by_grade, factor),
            tissue=(_merge(self.tissue, factor) / factor**2).astype(np.float32),
            searched=_merge(self.searched, factor),
            merged=self.merged * factor,
        )


def measure_maps(
    store: NucleiStore, cell_um: float = CELL_UM, *, tissue: NDArray[np.bool_] | None = None
) -> SlideMaps:
    """Sum up the nuclei of a store, part by part, on a grid of cells of about `cell_um` µm.

    All cells have one size: the slide's sides divided into whole numbers of them. A centroid on the edge of two cells
    belongs to the right or lower one. `tissue` (h, w) bool of any size shows where the whole slide was looked at.

    Raises HemalumError for a store without a scale, and for a side that no grid can have.
    """
    mpp = store.run.mpp
    if mpp is None:
        raise HemalumError(f"{store.path}: the scale of its slide is not known, and maps are in µm")
    if not (math.isfinite(cell_um) and cell_um > 0):
        raise HemalumError(f"cells of {cell_um:g} µm: want more than 0")
    height, width = store.run.shape
    shape = (max(1, round(height * mpp / cell_um)), max(1, round(width * mpp / cell_um)))
    if math.prod(shape) > MAX_CELLS:
        raise HemalumError(f"cells of {cell_um:g} µm: {math.prod(shape):,} of them; at most {MAX_CELLS:,} fit a map")
    classes, grades = store.run.class_names, GRADES[len(store.thresholds)] if store.thresholds else ()
    counts, measured = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    areas = np.zeros(shape, np.float64)
    by_class = np.zeros((len(classes), *shape), np.int64)
    by_grade = np.zeros((len(grades), *shape), np.int64)
    named = [(column, names, sums) for column, names, sums in
             (("class", classes, by_class), ("intensity", grades, by_grade)) if names]  # fmt: skip
    for table in store.tables(["x", "y", "area_um2", *(column for column, _, _ in named)]):
        rows = _cells(table.column("y"), height, shape[0])
        columns = _cells(table.column("x"), width, shape[1])
        np.add.at(counts, (rows, columns), 1)
        area = table.column("area_um2").to_numpy().astype(np.float64)
        known = np.isfinite(area)
        np.add.at(areas, (rows[known], columns[known]), area[known])
        np.add.at(measured, (rows[known], columns[known]), 1)
        for column, names, sums in named:
            numbers = number_names(table.column(column), names)
            some = numbers > 0
            np.add.at(sums, (numbers[some] - 1, rows[some], columns[some]), 1)
    share = np.ones(shape, np.float32) if tissue is None else block_means(tissue, shape)
    roi = store.run.settings.get("roi")
    if roi is not None:
        share *= _roi_share(store, roi, shape)
    return SlideMaps(
        side=(height * mpp / shape[0], width * mpp / shape[1]),
        mpp=mpp,
        counts=counts,
        areas=areas,
        measured=measured,
        by_class=by_class,
        by_grade=by_grade,
        tissue=share,
        searched=((share > 0) | (counts > 0)).astype(np.int64),
        class_names=classes,
        grades=tuple(grades),
        tissue_known=tissue is not None or store.run.settings.get("tissue_mask") is None,
    )


def _cells(positions: Any, length: int, cells: int) -> NDArray[np.int64]:
    """The cell of each of (N,) positions in px along a side of `length` px."""
    numbers = np.floor(positions.to_numpy() * (cells / length)).astype(np.int64)
    inside: NDArray[np.int64] = np.minimum(np.maximum(numbers, 0), cells - 1)
    return inside


def _divide(sums: NDArray[Any], by: NDArray[Any]) -> Floats:
    shares = np.full(sums.shape, np.nan, np.float32)
    np.divide(sums, by, out=shares, where=by > 0, casting="unsafe")
    return shares


def _merge(sums: NDArray[Any], factor: int) -> NDArray[Any]:
    """Sums over blocks of the last two axes."""
    *first, height, width = sums.shape
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    padded = np.zeros((*first, rows * factor, columns * factor), sums.dtype)
    padded[..., :height, :width] = sums
    merged: NDArray[Any] = padded.reshape(*first, rows, factor, columns, factor).sum(axis=(-3, -1))
    return merged


def block_means(mask: NDArray[np.bool_], shape: tuple[int, int]) -> Floats:
    """The share of a mask's pixels that are set, of those that each cell of a grid touches."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    top, bottom = _edges(mask.shape[0], shape[0])
    left, right = _edges(mask.shape[1], shape[1])
    inside = sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)]
    inside += sums[np.ix_(top, left)]
    return (inside / np.outer(bottom - top, right - left)).astype(np.float32)


def _edges(length: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First pixel, and first one behind, of those that cells touch along a side; in whole numbers: exact."""
    numbers = np.arange(cells, dtype=np.int64)
    return numbers * length // cells, -(-(numbers + 1) * length // cells)


def _roi_share(store: NucleiStore, text: Any, shape: tuple[int, int]) -> Floats:
    """The share of each cell that lies in the region of interest of a run."""
    try:
        area = shapely.from_wkt(text)
        shapely.prepare(area)
    except (TypeError, shapely.errors.ShapelyError) as error:
        raise HemalumError(f"{store.path}: its region of interest cannot be read ({one_line(error)})") from error
    y = np.linspace(0, store.run.shape[0], shape[0] + 1)
    x = np.linspace(0, store.run.shape[1], shape[1] + 1)
    share = np.zeros(shape, np.float32)
    for row in range(shape[0]):
        boxes = shapely.box(x[:-1], y[row], x[1:], y[row + 1])
        touching = shapely.intersects(area, boxes)
        inside = shapely.area(shapely.intersection(area, boxes[touching])) / shapely.area(boxes[touching])
        share[row, touching] = np.where(inside > 1 - 1e-9, 1, inside)
    return share
