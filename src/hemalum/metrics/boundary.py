"""How far the predicted outline runs from the true one: HD95, average surface distance, boundary F1.

The boundary of a mask is its pixels with one of the four neighbors outside it; of a label map, its nucleus
pixels with a neighbor of another id, so lines between touching nuclei count. Beyond the image is outside.
Distances are Euclidean between pixel centers.

Empty cases: no boundary on either side is nan. A boundary on one side only: every distance is the image's
diagonal (the worst that could be), so boundary F1 is 0. nan is left out of means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.compiled import njit
from hemalum.errors import HemalumError
from hemalum.metrics.pairs import Labels, Mask, check_pair


@dataclass(frozen=True, slots=True, eq=False)
class BoundaryDistances:
    """Per boundary pixel the distance to the other side's boundary, in units of `spacing`; (N,) float64."""

    from_truth: NDArray[np.float64]
    from_prediction: NDArray[np.float64]

    @property
    def directions(self) -> list[NDArray[np.float64]]:
        """The directions that have a boundary pixel."""
        return [direction for direction in (self.from_truth, self.from_prediction) if direction.size]


def find_boundary(labels: Labels) -> Mask:
    """(H, W) bool: pixels of a mask or label map with a 4-neighbor of another id, or outside the image."""
    padded = np.pad(labels, 1)
    center = padded[1:-1, 1:-1]
    enclosed = (
        (padded[:-2, 1:-1] == center)
        & (padded[2:, 1:-1] == center)
        & (padded[1:-1, :-2] == center)
        & (padded[1:-1, 2:] == center)
    )
    boundary: Mask = (center != 0) & ~enclosed
    return boundary


def measure_boundary(
    truth: Labels, prediction: Labels, *, ambiguous: Mask | None = None, spacing: float = 1.0
) -> BoundaryDistances:
    """Distances between the boundaries of two (H, W) masks or label maps.

    `spacing` is the size of a pixel: 1 gives px, mpp gives µm. Boundary pixels inside `ambiguous` are not
    measured, but others may be near them. Raises HemalumError when shapes or dtypes do not fit or spacing
    is not positive.
    """
    check_pair(truth, prediction, ambiguous)
    if not spacing > 0:
        raise HemalumError(f"boundary metrics: spacing must be positive, not {spacing}")
    true_boundary, predicted_boundary = find_boundary(truth), find_boundary(prediction)
    worst = float(np.hypot(truth.shape[0], truth.shape[1]))
    window = _find_window(true_boundary | predicted_boundary)
    true_boundary, predicted_boundary = true_boundary[window], predicted_boundary[window]
    counted = np.True_ if ambiguous is None else ~ambiguous[window]
    return BoundaryDistances(
        from_truth=_measure_distances(true_boundary & counted, predicted_boundary, worst) * spacing,
        from_prediction=_measure_distances(predicted_boundary & counted, true_boundary, worst) * spacing,
    )


def _find_window(mask: Mask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _measure_distances(start: Mask, target: Mask, worst: float) -> NDArray[np.float64]:
    if not start.any() or not target.any():
        return np.full(np.count_nonzero(start), worst)
    columns = np.flatnonzero(target.any(axis=0))
    squared: NDArray[np.int64] = _search_nearest(start, target, columns[0], columns[-1])
    return np.sqrt(squared)


@njit(nogil=True)
def _search_nearest(start: Mask, target: Mask, first: int, last: int) -> Any:
    """Exact squared distance to the nearest target pixel, of the start pixels only, in raster order.

    `first` and `last` are the outermost columns with a target. A distance transform finds the distances of all
    pixels, nearly all of which nobody asks for: this takes a tenth of its time.
    """
    height, width = target.shape
    far = height + width  # its square is above any squared distance in the image
    gap = np.full((height, width), far, np.int32)  # to the nearest target in the same column
    for row in range(height):
        for column in range(width):
            if target[row, column]:
                gap[row, column] = 0
            elif row > 0:
                gap[row, column] = min(far, gap[row - 1, column] + 1)
    for row in range(height - 2, -1, -1):
        for column in range(width):
            gap[row, column] = min(gap[row, column], gap[row + 1, column] + 1)
    squared = np.empty(np.count_nonzero(start), np.int64)
    n = 0
    for row in range(height):
        for column in range(width):
            if not start[row, column]:
                continue
            nearest = np.int64(gap[row, column]) ** 2
            # outwards from column to column, until the way there alone is longer than the best so far
            step = max(first - column, column - last, 1)
            while step * step < nearest:
                left, right = column - step, column + step
                if left >= first:
                    nearest = min(nearest, step * step + np.int64(gap[row, left]) ** 2)
                if right <= last:
                    nearest = min(nearest, step * step + np.int64(gap[row, right]) ** 2)
                if left <= first and right >= last:
                    break
                step += 1
            squared[n] = nearest
            n += 1
    return squared


def pool_boundaries(images: Sequence[BoundaryDistances]) -> BoundaryDistances:
    """All boundary pixels of a set of images together."""
    nothing = np.empty(0)
    return BoundaryDistances(
        from_truth=np.concatenate([nothing, *(image.from_truth for image in images)]),
        from_prediction=np.concatenate([nothing, *(image.from_prediction for image in images)]),
    )


def hd95(distances: BoundaryDistances) -> float:
    """95th percentile Hausdorff distance: the larger of the two directed 95th percentiles.

    (MONAI's and Metrics Reloaded's reading; MedPy takes one percentile of both directions together.)
    """
    return float(max((np.percentile(direction, 95) for direction in distances.directions), default=np.nan))


def average_surface_distance(distances: BoundaryDistances) -> float:
    """Average symmetric surface distance: mean over the boundary pixels of both sides together."""
    directions = distances.directions
    return float(np.concatenate(directions).mean()) if directions else float("nan")


def boundary_f1(distances: BoundaryDistances, tolerance: float) -> float:
    """Harmonic mean of the shares of predicted and of true boundary pixels that lie within `tolerance`.

    `tolerance` is in the units of the distances and inclusive. A side all of whose pixels are ambiguous is
    left out. Source: Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC
    2013.
    """
    shares = [float(np.mean(direction <= tolerance)) for direction in distances.directions]
    if not shares:
        return float("nan")
    return len(shares) / sum(1 / share for share in shares) if min(shares) > 0 else 0.0
