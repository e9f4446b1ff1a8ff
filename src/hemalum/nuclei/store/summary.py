"""What a store's nuclei are like, in numbers: counts, and how measures are spread. Read part by part."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.nuclei.ihc_score import GRADES, IhcScore
from hemalum.nuclei.store.parts import number_names
from hemalum.nuclei.store.store import NucleiStore

BINS = 1 << 16  # a quantile is off by half of a 65,536th of the range at most


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """How many values lie in each of `BINS` equal bins between `low` and `high`, the least and the greatest."""

    low: float
    high: float
    counts: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """Quantiles as numpy's, each to half a bin; nan where there are no values."""
        if not self.total:
            return [float("nan")] * len(shares)
        upto = np.cumsum(self.counts)
        ranks = np.asarray(shares, np.float64) * (self.total - 1)
        below = self.values[np.searchsorted(upto, np.floor(ranks), side="right")]
        above = self.values[np.searchsorted(upto, np.ceil(ranks), side="right")]
        between: list[float] = (below + (above - below) * (ranks - np.floor(ranks))).tolist()
        return between

    @property
    def values(self) -> NDArray[np.float64]:
        """The value that stands for each bin: its middle; the least and the greatest are what they are."""
        middles = self.low + (np.arange(BINS) + 0.5) / BINS * (self.high - self.low)
        middles[0], middles[-1] = self.low, self.high
        return middles

    def binned(self, edges: NDArray[np.float64]) -> NDArray[np.int64]:
        """How many values lie between `edges` (K + 1,); those outside count in the outermost bins."""
        positions = np.searchsorted(edges, self.values, side="right") - 1
        binned = np.zeros(len(edges) - 1, np.int64)
        np.add.at(binned, np.clip(positions, 0, len(edges) - 2), self.counts)
        return binned


@dataclass(frozen=True, slots=True, eq=False)
class StoreSummary:
    """Counts and measures of a store's nuclei.

    `by_class` (C,) counts those of each of `class_names`. `by_grade` (C + 1, G) counts those of each of `grades`, row
    0 of all, the others of each class. `measures` are by column, without what is not finite. `area_mm2` is what was
    looked at, by `area_of`, one of `AREAS` or "slide"; None without a scale.
    """

    count: int
    class_names: tuple[str, ...]
    by_class: NDArray[np.int64]
    grades: tuple[str, ...]
    by_grade: NDArray[np.int64]
    measures: dict[str, Distribution]
    area_mm2: float | None
    area_of: str

    @property
    def classes(self) -> dict[str, int]:
        """Number of nuclei of each class."""
        return dict(zip(self.class_names, self.by_class.tolist(), strict=True))

    @property
    def per_mm2(self) -> float | None:
        """Nuclei per mm² of what was looked at."""
        return self.count / self.area_mm2 if self.area_mm2 else None

    def median(self, column: str) -> float | None:
        """Median of a measure; None where there are no values."""
        measure = self.measures[column]
        return measure.quantiles([0.5])[0] if measure.total else None

    def ihc_score(self, class_name: str | None = None) -> IhcScore | None:
        """Score of the graded nuclei, all or those of one class; None where there are no grades."""
        if not self.grades:
            return None
        if class_name is not None and class_name not in self.class_names:
            raise HemalumError(f"there is no class '{class_name}'; classes: {', '.join(self.class_names) or 'none'}")
        row = 0 if class_name is None else self.class_names.index(class_name) + 1
        return IhcScore(dict(zip(self.grades, self.by_grade[row].tolist(), strict=True)))


def summarize(store: NucleiStore, columns: Sequence[str] = ()) -> StoreSummary:
    """Count a store's nuclei and measure how `columns` are spread, in memory that does not grow with them.

    Raises HemalumError for an unknown column and a damaged part.
    """
    names, grades = store.run.class_names, GRADES[len(store.thresholds)] if store.thresholds else ()
    by_class = np.zeros(len(names), np.int64)
    by_grade = np.zeros((len(names) + 1, len(grades)), np.int64)
    low, high = np.full(len(columns), np.inf), np.full(len(columns), -np.inf)
    read = [*columns, *(["class"] if names else []), *(["intensity"] if grades else [])]
    unknown = [name for name in read if name not in store.schema.names]
    if unknown:
        raise HemalumError(f"{store.path}: no column '{unknown[0]}'")
    for table in store.tables(read) if read else ():
        classes = number_names(table.column("class"), names) if names else np.zeros(table.num_rows, np.int32)
        by_class += np.bincount(classes, minlength=len(names) + 1)[1:]
        if grades:
            numbers = number_names(table.column("intensity"), grades)
            some = numbers > 0
            by_grade[0] += np.bincount(numbers[some] - 1, minlength=len(grades))
            some &= classes > 0
            np.add.at(by_grade, (classes[some], numbers[some] - 1), 1)
        for k, name in enumerate(columns):
            values = _finite(table.column(name))
            low[k], high[k] = min(low[k], values.min(initial=np.inf)), max(high[k], values.max(initial=-np.inf))
    counts = np.zeros((len(columns), BINS), np.int64)
    for table in store.tables(columns) if columns else ():
        for k, name in enumerate(columns):
            values = _finite(table.column(name))
            if len(values):
                step = (high[k] - low[k]) / BINS or 1.0
                np.add.at(counts[k], np.minimum((values - low[k]) / step, BINS - 1).astype(np.int64), 1)
    measures = {name: Distribution(float(low[k]), float(high[k]), counts[k]) for k, name in enumerate(columns)}
    return StoreSummary(store.count, names, by_class, tuple(grades), by_grade, measures, *area_looked_at(store))


# note of a store → what its area is, the narrowest first
AREAS = {
    "roi_tissue_mm2": "tissue in roi",
    "roi_clear_mm2": "roi without artifacts",
    "roi_mm2": "roi",
    "tissue_mm2": "tissue",
    "clear_mm2": "slide without artifacts",
}


def area_looked_at(store: NucleiStore) -> tuple[float | None, str]:
    """mm² in which nuclei count, and what that is; of a store that is not complete the slide's. None without mpp."""
    for note, of in AREAS.items():
        if note in store.notes:
            return float(store.notes[note]), of
    mpp = store.run.mpp
    return (None if mpp is None else prod(store.run.shape) * mpp**2 / 1e6), "slide"


def _finite(column: object) -> NDArray[np.float64]:
    values = column.to_numpy().astype(np.float64)  # type: ignore[attr-defined]
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite
