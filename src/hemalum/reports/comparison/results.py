"""One dataset's part of a comparison: values by run and by image, in one order for every table and figure."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import counted
from hemalum.metrics.statistics import mean_sd
from hemalum.reports.comparison.metrics import Metric
from hemalum.reports.numbers import number

if TYPE_CHECKING:
    from hemalum.experiments.plan import Method
    from hemalum.experiments.records import Comparison, Run

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """What the tables hold of an image besides its scores."""

    id: str
    group: str | None
    organ: str | None
    nuclei: int


@dataclass(frozen=True)
class DatasetResults:
    """The finished runs on one dataset. `methods` are all of the comparison, the reference first."""

    name: str
    methods: tuple["Method", ...]
    runs: tuple["Run", ...]

    @cached_property
    def scored(self) -> tuple["Method", ...]:
        """The methods that have a finished run here."""
        return tuple(method for method in self.methods if self.runs_of(method))

    def runs_of(self, method: "Method") -> list["Run"]:
        """The finished runs of a method, by fold and seed."""
        runs = [run for run in self.runs if run.method == method.name]
        return sorted(runs, key=lambda run: (run.fold, run.seed))

    def rows_of(self, method: "Method") -> list[dict[str, Any]]:
        """The rows of per_image.csv of a method's runs, in the order of `runs_of`."""
        return [row for run in self.runs_of(method) for row in run.per_image]

    @cached_property
    def images(self) -> tuple[ScoredImage, ...]:
        """Every test image that some run scored, sorted by id."""
        first = {str(row["id"]): row for run in reversed(self.runs) for row in reversed(run.per_image)}
        return tuple(
            ScoredImage(name, row.get("group"), row.get("organ"), int(row.get("nuclei_truth") or 0))
            for name, row in sorted(first.items())
        )

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
        values, scored = self._by_seed(method, column)
        count = scored.sum(axis=0)
        total = np.where(scored, values, 0).sum(axis=0)  # nan stays nan
        means: Floats = np.divide(total, count, out=np.full(count.size, np.nan), where=count > 0)
        return means

    def training_values(self, method: "Method", column: str) -> Floats:
        """(S, N) value of each image with each of the method's S seeds, nan where it has none.

        Only seeds with which the method has been scored on all its images are rows. Where there are fewer than two,
        the one row is `image_values`: nothing is known of another training.
        """
        values, scored = self._by_seed(method, column)
        complete = (scored | ~scored.any(axis=0)).all(axis=1)
        return values[complete] if complete.sum() > 1 else self.image_values(method, column)[None]

    def _by_seed(self, method: "Method", column: str) -> tuple[Floats, NDArray[np.bool_]]:
        """(S, N) value of each image with each of the method's seeds, and where it has been scored."""
        images = {image.id: position for position, image in enumerate(self.images)}
        seeds = {seed: row for row, seed in enumerate(sorted({run.seed for run in self.runs_of(method)}))}
        values, scored = np.full((len(seeds), len(images)), np.nan), np.zeros((len(seeds), len(images)), bool)
        for run in self.runs_of(method):
            for row in run.per_image:
                at = seeds[run.seed], images[str(row["id"])]
                values[at], scored[at] = number(row.get(column)), True
        return values, scored

    def n_images(self, method: "Method") -> int:
        """How many of the images the method has been scored on."""
        return len({str(row["id"]) for row in self.rows_of(method)})

    def n_undefined(self, method: "Method", column: str) -> int:
        """On how many of its images a value of the method is undefined in any of its runs."""
        return len({str(row["id"]) for row in self.rows_of(method) if not np.isfinite(number(row.get(column)))})

    def mean_sd(self, method: "Method", metric: Metric) -> tuple[float, float]:
        """Mean and sd over the method's runs; the sd is nan for a single one."""
        return mean_sd([metric.of(run.summary) for run in self.runs_of(method)])

    def describe_runs(self, method: "Method") -> str:
        """`3 seeds`, `5 folds × 3 seeds`; the bare number of runs for one, or where some are missing."""
        runs = self.runs_of(method)
        folds, seeds = {run.fold for run in runs}, {run.seed for run in runs}
        if len(runs) == 1 or len(runs) != len(folds) * len(seeds):
            return counted(len(runs), "run")
        counts = [counted(len(keys), noun) for keys, noun in ((folds, "fold"), (seeds, "seed")) if len(keys) > 1]
        return " × ".join(counts)


def by_dataset(comparison: "Comparison") -> list[DatasetResults]:
    """The results on each dataset, in the comparison's order."""
    methods = comparison.methods
    return [
        DatasetResults(name, methods, tuple(run for run in comparison.runs if run.dataset == name))
        for name in comparison.datasets
    ]
