"""One dataset's part of a comparison: values by run and by image, in one order for every table and figure."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hemalum.metrics.statistics import mean_sd
from hemalum.report.comparison_metrics import Metric, number

if TYPE_CHECKING:
    from hemalum.studies.cells import Cell, Comparison, Method

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """What the tables say of an image besides its scores."""

    id: str
    group: str | None
    organ: str | None
    nuclei: int


@dataclass(frozen=True)
class DatasetResults:
    """The finished cells on one dataset. `methods` are all of the comparison, the reference first."""

    name: str
    methods: tuple["Method", ...]
    cells: tuple["Cell", ...]

    @cached_property
    def scored(self) -> tuple["Method", ...]:
        """The methods that have a finished cell here."""
        return tuple(method for method in self.methods if self.runs(method))

    def runs(self, method: "Method") -> list["Cell"]:
        """The finished cells of a method, by fold and seed."""
        own = [cell for cell in self.cells if cell.method == method.name]
        return sorted(own, key=lambda cell: (cell.fold, cell.seed))

    @cached_property
    def images(self) -> tuple[ScoredImage, ...]:
        """Every test image that some cell scored, sorted by id."""
        found: dict[str, ScoredImage] = {}
        for cell in self.cells:
            for row in cell.per_image:
                name = str(row["id"])
                found.setdefault(
                    name,
                    ScoredImage(name, row.get("group"), row.get("organ"), int(row.get("nuclei_truth") or 0)),
                )
        return tuple(found[name] for name in sorted(found))

    @property
    def nuclei(self) -> int:
        """True nuclei on the test images."""
        return sum(image.nuclei for image in self.images)

    @cached_property
    def groups(self) -> list[str | None]:
        """Group (patient, slide, …) of each image."""
        return [image.group for image in self.images]

    @property
    def n_groups(self) -> int:
        """Number of groups; an image without one is its own."""
        return len({group for group in self.groups if group is not None}) + self.groups.count(None)

    @property
    def grouped(self) -> bool:
        """Whether there are groups to draw and to test: several, and fewer than images."""
        return 1 < self.n_groups < len(self.images)

    @property
    def one_group(self) -> str:
        """A note where all of several images are of one group, such as the fold of a published split; else empty."""
        if self.n_groups != 1 or len(self.images) < 2:
            return ""
        return (
            f"All images are of one group ({self.groups[0]}): images are taken as independent, which makes the "
            "interval too narrow."
        )

    def image_values(self, method: "Method", column: str) -> Floats:
        """(N,) value of each image, averaged over the method's seeds; nan where it has none.

        An image that is undefined with one seed is nan: a mean over the other seeds would be of other trainings.
        """
        index = {image.id: position for position, image in enumerate(self.images)}
        total, count = np.zeros(len(index)), np.zeros(len(index))
        for cell in self.runs(method):
            for row in cell.per_image:
                total[index[str(row["id"])]] += number(row.get(column))  # nan stays nan
                count[index[str(row["id"])]] += 1
        means: Floats = np.divide(total, count, out=np.full(len(index), np.nan), where=count > 0)
        return means

    def n_images(self, method: "Method") -> int:
        """How many of the images the method has been scored on."""
        return len({str(row["id"]) for cell in self.runs(method) for row in cell.per_image})

    def n_undefined(self, method: "Method", column: str) -> int:
        """On how many of its images a value of the method is undefined in any of its runs."""
        return len(
            {
                str(row["id"])
                for cell in self.runs(method)
                for row in cell.per_image
                if not np.isfinite(number(row.get(column)))
            }
        )

    def mean_sd(self, method: "Method", metric: Metric) -> tuple[float, float]:
        """Mean and sd over the method's runs; the sd is nan for a single one."""
        return mean_sd([metric.of(cell.summary) for cell in self.runs(method)])

    def runs_said(self, method: "Method") -> str:
        """`3 seeds`, `5 folds × 3 seeds`; the bare number of runs for one, or where some are missing."""
        runs = self.runs(method)
        folds, seeds = {cell.fold for cell in runs}, {cell.seed for cell in runs}
        if len(runs) == 1 or len(runs) != len(folds) * len(seeds):
            return counted(len(runs), "run")
        said = [counted(len(found), noun) for found, noun in ((folds, "fold"), (seeds, "seed")) if len(found) > 1]
        return " × ".join(said)


def counted(n: int, noun: str) -> str:
    """`1 image`, `2,000 images`."""
    plural = {"class": "classes", "nucleus": "nuclei"}.get(noun, noun + "s")
    return f"{n:,} {noun if n == 1 else plural}"


def by_dataset(comparison: "Comparison") -> list[DatasetResults]:
    """The results on each dataset, in the comparison's order."""
    methods = comparison.methods
    return [
        DatasetResults(name, methods, tuple(cell for cell in comparison.cells if cell.dataset == name))
        for name in comparison.datasets
    ]
