"""Positive and negative nuclei of an H-DAB image, and the scores that pathology counts from them.

A nucleus is graded by the mean optical density of its DAB: with one threshold `Negative` or `Positive`, with three
`Negative`, `1+`, `2+` or `3+` (QuPath's names); at a threshold it is above it.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError

GRADES: dict[int, tuple[str, ...]] = {1: ("Negative", "Positive"), 3: ("Negative", "1+", "2+", "3+")}
LARGEST = 3.0  # optical density; a byte ends at 2.4
OTSU_FLOOR = 0.1  # optical density: below it is background staining, not a positive nucleus


@dataclass(frozen=True, slots=True)
class Allred:
    """Allred's score: `proportion` 0 to 5 and `intensity` 0 to 3; their sum is 0 or 2 to 8."""

    proportion: int
    intensity: int

    @property
    def total(self) -> int:
        """The sum of both."""
        return self.proportion + self.intensity

    def __str__(self) -> str:
        return f"{self.total} ({self.proportion} + {self.intensity})"


@dataclass(frozen=True, slots=True)
class IhcScore:
    """Number of nuclei by grade, negative first, and what follows from it."""

    counts: dict[str, int]

    @property
    def nuclei(self) -> int:
        """Number of nuclei that were graded."""
        return sum(self.counts.values())

    @property
    def positive_share(self) -> float | None:
        """Share of nuclei that are positive, in [0, 1]; None where there are none."""
        return None if not self.nuclei else 1 - self.counts["Negative"] / self.nuclei

    @property
    def h_score(self) -> float | None:
        """Percentage of 1+, plus twice that of 2+, plus three times that of 3+, 0 to 300; None with one threshold.

        Source: McCarty et al., Arch. Pathol. Lab. Med. 109 (1985).
        """
        if len(self.counts) != 4 or not self.nuclei:
            return None
        return 100 * self._weighted / self.nuclei

    @property
    def allred(self) -> Allred | None:
        """Allred's score; None with one threshold.

        Proportion: 0 none, 1 up to 1/100, 2 up to 1/10, 3 up to 1/3, 4 up to 2/3, 5 above. Intensity: the average of
        the positive nuclei, 1 weak to 3 strong. Source: Allred et al., Mod. Pathol. 11 (1998); Harvey et al., J.
        Clin. Oncol. 17 (1999). They estimate the average by eye; here it is the mean of 1, 2 and 3 over the positive
        nuclei, rounded by thirds of its range: 1 below 5/3, 3 above 7/3.
        """
        if len(self.counts) != 4 or not self.nuclei:
            return None
        positive = self.nuclei - self.counts["Negative"]
        if not positive:
            return Allred(0, 0)
        # compared as whole numbers: 1 of 100 is 1/100, whatever floating point says
        proportion = 1 + sum(
            positive * limit > self.nuclei * times for times, limit in ((1, 100), (1, 10), (1, 3), (2, 3))
        )
        intensity = 1 if 3 * self._weighted < 5 * positive else 3 if 3 * self._weighted > 7 * positive else 2
        return Allred(proportion, intensity)

    @property
    def _weighted(self) -> int:
        return sum(grade * count for grade, count in enumerate(self.counts.values()))

    def as_dict(self) -> dict[str, Any]:
        """Counts and scores as plain values, for files."""
        allred = self.allred
        return {
            "counts": self.counts,
            "positive_share": self.positive_share,
            "h_score": self.h_score,
            "allred": None
            if allred is None
            else {"proportion": allred.proportion, "intensity": allred.intensity, "total": allred.total},
        }


Positive = float | str | Sequence[float] | None


def check_positive(positive: Positive) -> tuple[float, ...] | str | None:
    """What `positive` asks for: thresholds of DAB's optical density, one or three, "otsu", or None.

    Raises HemalumError for another number of thresholds, for some that do not rise, or are out of range.
    """
    if positive is None:
        return None
    if isinstance(positive, str):
        if positive.strip().casefold() == "otsu":
            return "otsu"
        parts: list[Any] = positive.split(",")
    else:
        plain = positive.tolist() if hasattr(positive, "tolist") else positive
        parts = list(plain) if isinstance(plain, Sequence) else [plain]
    try:
        values = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        raise HemalumError(
            f"positive '{positive}': want a threshold of DAB's optical density such as 0.2, three such as "
            "0.2,0.4,0.6, or otsu"
        ) from None
    if len(values) not in GRADES:
        raise HemalumError(f"positive has {len(values)} thresholds: want one, or three for 1+, 2+ and 3+")
    if not all(math.isfinite(value) and 0 < value <= LARGEST for value in values):
        raise HemalumError(
            f"positive {_format_values(values)}: a threshold is an optical density above 0, at most {LARGEST:g}"
        )
    if any(lower >= upper for lower, upper in itertools.pairwise(values)):
        raise HemalumError(f"positive {_format_values(values)}: thresholds must rise, as in 0.2,0.4,0.6")
    return values


def otsu_threshold(values: NDArray[np.float64]) -> float:
    """Otsu's threshold of the nuclei's mean DAB, (N,), at least `OTSU_FLOOR`.

    Over the values themselves, in the middle of the gap that parts the two groups (Otsu, IEEE Trans. Syst. Man
    Cybern. 9, 1979); one over a histogram ends at the lower edge of the gap, just above the last negative nucleus.
    """
    ordered = np.sort(values[np.isfinite(values)])
    if len(ordered) < 2 or ordered[0] == ordered[-1]:
        return OTSU_FLOOR
    below = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)
    means = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(ordered) - below)
    best = int(np.argmax(below * (len(ordered) - below) * (means[1] - means[0]) ** 2))
    return max(round(float(ordered[best] + ordered[best + 1]) / 2, 4), OTSU_FLOOR)


def grade(values: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.int32]:
    """Number of the grade of each nucleus, (N,), from 1 for `Negative`; 0 where the value is NaN."""
    numbers = 1 + np.searchsorted(np.asarray(thresholds, np.float64), values, side="right")
    return np.where(np.isfinite(values), numbers, 0).astype(np.int32)


def _format_values(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
