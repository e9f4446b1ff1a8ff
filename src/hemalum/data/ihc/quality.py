"""How far a registered pair can be trusted: a score, and the error at landmarks."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.data.ihc.registration import Alignment
from hemalum.data.ihc.search import Field

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

PATCH_UM = 16.0  # half the side of a matched patch: two or three nuclei across
REACH_UM = 10.0  # how far off a patch is looked for
STRIDE_UM = 24.0
MIN_TISSUE = 0.8  # share of a patch that has to lie on tissue of both sections
MIN_MATCH = 0.6  # correlation below which a patch has no partner
MIN_SPREAD = 0.1  # standard deviation of the signal (0..1): a patch of plain stroma matches everywhere


@dataclass(frozen=True, slots=True)
class Quality:
    """What is known of a registration, each from 0 to 1.

    `overlap` is the share of the smaller tissue mask that lies on the other, where the IHC section covers the H&E
    field (its stroma may be too pale to count as tissue, so it is not held against it), `coverage` the share
    of the H&E tissue that it covers, `correlation` that of hematoxylin over the tissue of both, `clarity` how far
    the position stands out from the best one at another rotation.
    """

    overlap: float = 0.0
    coverage: float = 0.0
    correlation: float = 0.0
    clarity: float = 0.0

    @property
    def score(self) -> float:
        """overlap · coverage · √(correlation · clarity)."""
        return self.overlap * self.coverage * math.sqrt(max(self.correlation, 0) * max(self.clarity, 0))


def measure_quality(tissue: Mask, warped: Mask, covered: Mask, alignment: Alignment) -> Quality:
    """Score a registration; `tissue`, `warped` (that of the IHC section) and `covered` are (H, W) on the H&E grid."""
    here, there = tissue & covered, warped & covered
    smaller = min(int(here.sum()), int(there.sum()))
    return Quality(
        overlap=int((here & there).sum()) / smaller if smaller else 0.0,
        coverage=int(here.sum()) / max(int(tissue.sum()), 1),
        correlation=max(alignment.correlation, 0.0),
        clarity=alignment.clarity,
    )


@dataclass(frozen=True, slots=True)
class LandmarkError:
    """Distances in µm between where landmarks lie and where the registration puts them.

    `source` is "landmarks" for those of a file, "patches" where patches of hematoxylin were matched: these
    are not independent of the registration, and see no error larger than `REACH_UM`.
    """

    source: Literal["landmarks", "patches"]
    count: int
    mean: float
    median: float
    p95: float

    @classmethod
    def of(cls, distances: NDArray[np.float64], source: Literal["landmarks", "patches"]) -> "LandmarkError | None":
        """Summarize; None where there are no landmarks."""
        if len(distances) == 0:
            return None
        middle, high = np.percentile(distances, [50, 95])
        return cls(source, len(distances), float(distances.mean()), float(middle), float(high))


def error_at(alignment: Alignment, he_um: NDArray[np.float64], ihc_um: NDArray[np.float64]) -> LandmarkError | None:
    """The error at landmarks given by a person, (N, 2) in µm on each section; measured on the IHC section."""
    off = alignment.points(he_um) - ihc_um
    return LandmarkError.of(np.hypot(off[:, 0], off[:, 1]), "landmarks")


def error_of_patches(fixed: Field, warped: Float, where: Mask) -> LandmarkError | None:
    """The remaining shift of patches of hematoxylin, `warped` being the IHC signal on the grid of `fixed`.

    A patch counts when four fifths of it lie in `where` (h, w), it has structure, finds a partner that correlates
    with at least 0.6, and that partner finds it back. None where no patch does.
    """
    half = tuple(max(round(PATCH_UM / spacing), 3) for spacing in fixed.spacing[::-1])
    reach = tuple(max(round(REACH_UM / spacing), 2) for spacing in fixed.spacing[::-1])
    distances = []
    for y in range(half[0], fixed.signal.shape[0] - half[0], max(round(STRIDE_UM / fixed.spacing[1]), 1)):
        for x in range(half[1], fixed.signal.shape[1] - half[1], max(round(STRIDE_UM / fixed.spacing[0]), 1)):
            box = np.s_[y - half[0] : y + half[0] + 1, x - half[1] : x + half[1] + 1]
            if where[box].mean() < MIN_TISSUE or min(fixed.signal[box].std(), warped[box].std()) < MIN_SPREAD:
                continue
            there = _match(fixed.signal, warped, (y, x), half, reach)
            if there is None:
                continue
            back = _match(warped, fixed.signal, (round(there[0]), round(there[1])), half, reach)
            if back is None or math.hypot(back[0] - y, back[1] - x) > 2:
                continue
            distances.append(math.hypot((there[0] - y) * fixed.spacing[1], (there[1] - x) * fixed.spacing[0]))
    return LandmarkError.of(np.array(distances), "patches")


def _match(
    signal: Float, other: Float, at: tuple[int, int], half: tuple[int, ...], reach: tuple[int, ...]
) -> tuple[float, float] | None:
    """Where in `other` the patch of `signal` around `at` (row, column) is found, None where nowhere for certain."""
    from skimage.feature import match_template

    top, left = at[0] - half[0], at[1] - half[1]
    if top < 0 or left < 0:
        return None
    patch = signal[top : top + 2 * half[0] + 1, left : left + 2 * half[1] + 1]
    first = (max(top - reach[0], 0), max(left - reach[1], 0))
    window = other[first[0] : top + 2 * half[0] + 1 + reach[0], first[1] : left + 2 * half[1] + 1 + reach[1]]
    if patch.shape != (2 * half[0] + 1, 2 * half[1] + 1) or np.ptp(window) == 0:
        return None
    scores = match_template(window, patch)
    row, column = np.unravel_index(int(scores.argmax()), scores.shape)
    if scores[row, column] < MIN_MATCH:
        return None
    down = _vertex(scores[max(row - 1, 0) : row + 2, column])
    right = _vertex(scores[row, max(column - 1, 0) : column + 2])
    return first[0] + float(row) + half[0] + down, first[1] + float(column) + half[1] + right


def _vertex(three: NDArray[np.float64]) -> float:
    """How far beside the middle of three values the parabola through them has its top; 0 at a border."""
    if len(three) != 3:
        return 0.0
    bend = float(three[0] - 2 * three[1] + three[2])
    return 0.5 * float(three[0] - three[2]) / bend if bend < 0 else 0.0
