"""Nucleus by nucleus: overlaps in one compiled pass, then AJI, AJI+, PQ, F1 and AP from the overlaps alone.

Ids only name nuclei: nothing depends on their order. Where two candidates tie, the one whose first pixel
comes first in raster order is taken. An id in several pieces is one nucleus.

Empty cases: no true and no predicted nucleus is nan, left out of means. Only one side empty is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hemalum.compiled import njit
from hemalum.errors import HemalumError
from hemalum.metrics.pairs import Labels, Mask, check_pair, divide

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """Areas (px) of T true and P predicted nuclei, and the K pairs that share a pixel.

    `pair_truth` and `pair_prediction` index the areas; pairs are sorted by them. Nuclei are in raster order
    of their first pixel; `truth_ids` and `prediction_ids` are their ids in the label maps.
    """

    truth_ids: Ints
    prediction_ids: Ints
    truth_areas: Ints
    prediction_areas: Ints
    pair_truth: Ints
    pair_prediction: Ints
    intersection: Ints

    @property
    def n_truth(self) -> int:
        """Number of true nuclei."""
        return self.truth_areas.size

    @property
    def n_prediction(self) -> int:
        """Number of predicted nuclei."""
        return self.prediction_areas.size

    @property
    def union(self) -> Ints:
        """(K,) px."""
        both = self.truth_areas[self.pair_truth] + self.prediction_areas[self.pair_prediction]
        return both - self.intersection

    @property
    def iou(self) -> Floats:
        """(K,) in (0, 1]."""
        return np.asarray(self.intersection / self.union, dtype=np.float64)


def measure_overlap(truth: Labels, prediction: Labels, *, ambiguous: Mask | None = None) -> Overlap:
    """Overlap of every pair of nuclei of two (H, W) label maps, 0 = background.

    Pixels of `ambiguous` are taken as background on both sides, so a nucleus that lies wholly in them does
    not count. Raises HemalumError when shapes or dtypes do not fit.
    """
    check_pair(truth, prediction, ambiguous)
    true_map, true_largest = _with_small_ids(truth, ambiguous)
    predicted_map, predicted_largest = _with_small_ids(prediction, ambiguous)
    first, areas, (n_truth, n_prediction), keys, lengths = _scan(
        true_map, predicted_map, max(true_largest, predicted_largest)
    )
    unique, inverse = np.unique(keys, return_inverse=True)
    intersection = np.bincount(inverse, weights=lengths, minlength=unique.size).astype(np.int64)
    return Overlap(
        truth_ids=truth.ravel()[first[0, :n_truth]].astype(np.int64),
        prediction_ids=prediction.ravel()[first[1, :n_prediction]].astype(np.int64),
        truth_areas=areas[0, :n_truth].copy(),
        prediction_areas=areas[1, :n_prediction].copy(),
        pair_truth=unique >> 32,
        pair_prediction=unique & 0xFFFFFFFF,
        intersection=intersection,
    )


def _with_small_ids(labels: Labels, ambiguous: Mask | None) -> tuple[NDArray[np.uint32], int]:
    """The map as uint32 with ids that fit a lookup array, and its largest id."""
    if ambiguous is not None:
        labels = np.where(ambiguous, labels.dtype.type(0), labels)
    largest = int(labels.max(initial=0))
    if largest > 4 * labels.size + 1024:  # ids of a whole slide in one small region
        ids, inverse = np.unique(labels, return_inverse=True)
        shift = 0 if ids[0] == 0 else 1
        return (inverse.reshape(labels.shape) + shift).astype(np.uint32), int(ids.size)
    return np.ascontiguousarray(labels, dtype=np.uint32), largest


@njit(nogil=True)
def _scan(truth: NDArray[np.uint32], prediction: NDArray[np.uint32], largest: int) -> Any:
    """One raster pass: first pixels and areas of all nuclei, and runs of pixels that share a pair."""
    height, width = truth.shape
    # row 0 is of the true nuclei, row 1 of the predicted ones
    index = np.full((2, largest + 1), -1, np.int64)
    first = np.empty((2, largest), np.int64)
    areas = np.zeros((2, largest), np.int64)
    count = np.zeros(2, np.int64)
    run_pair = np.empty(height * width, np.int64)
    run_length = np.empty(height * width, np.int64)
    n_runs = 0
    for row in range(height):
        previous_truth = previous_prediction = np.uint32(0)
        for column in range(width):
            t, p = truth[row, column], prediction[row, column]
            for side in range(2):
                n = p if side else t
                if n == 0:
                    continue
                if index[side, n] < 0:
                    index[side, n] = count[side]
                    first[side, count[side]] = row * width + column
                    count[side] += 1
                areas[side, index[side, n]] += 1
            if t != 0 and p != 0:
                if t != previous_truth or p != previous_prediction:
                    run_pair[n_runs] = index[0, t] << 32 | index[1, p]
                    run_length[n_runs] = 0
                    n_runs += 1
                run_length[n_runs - 1] += 1
            previous_truth, previous_prediction = t, p
    return first, areas, count, run_pair[:n_runs].copy(), run_length[:n_runs].copy()


@dataclass(frozen=True, slots=True)
class AjiSums:
    """Numerator and denominator of an AJI, in px; they add up over images for the pooled value."""

    intersection: int
    union: int

    def __add__(self, other: "AjiSums") -> "AjiSums":
        return AjiSums(self.intersection + other.intersection, self.union + other.union)

    @property
    def value(self) -> float:
        """The index in [0, 1]; nan when there is no nucleus at all."""
        return divide(self.intersection, self.union)


def sum_aji(overlap: Overlap) -> AjiSums:
    """Aggregated Jaccard Index: every true nucleus takes the prediction of highest IoU, even a taken one.

    True nuclei without overlap and predictions never taken add their area to the union.
    Source: Kumar et al., "A dataset and a technique for generalized nuclear segmentation", IEEE TMI 2017.
    """
    order = np.lexsort((overlap.pair_prediction, -overlap.iou, overlap.pair_truth))
    best = order[np.flatnonzero(np.diff(overlap.pair_truth[order], prepend=-1))]
    return _aggregate(overlap, best)


def sum_aji_plus(overlap: Overlap) -> AjiSums:
    """AJI with one-to-one pairs of the greatest summed IoU, so an over-large prediction counts once.

    Source: Graham et al., "HoVer-Net", Medical Image Analysis 2019, and its public code (AJI+).
    """
    return _aggregate(overlap, _assign(overlap, overlap.iou))


def _aggregate(overlap: Overlap, pairs: Ints) -> AjiSums:
    truth_left = np.ones(overlap.truth_areas.size, bool)
    prediction_left = np.ones(overlap.prediction_areas.size, bool)
    truth_left[overlap.pair_truth[pairs]] = False
    prediction_left[overlap.pair_prediction[pairs]] = False
    missed = overlap.truth_areas[truth_left].sum() + overlap.prediction_areas[prediction_left].sum()
    return AjiSums(
        intersection=int(overlap.intersection[pairs].sum()), union=int(overlap.union[pairs].sum() + missed)
    )


def _assign(overlap: Overlap, gain: Floats) -> Ints:
    """Indices of one-to-one pairs with the greatest summed gain (gain > 0; pairs with gain 0 are not made).

    Nuclei that touch no common nucleus cannot compete, so each cluster of overlaps is solved by itself;
    most are a single pair. One Hungarian problem over 20,000 nuclei would take minutes.
    """
    candidates: Ints = np.flatnonzero(gain > 0)
    if candidates.size == 0:
        return candidates
    truth, prediction = overlap.pair_truth[candidates], overlap.pair_prediction[candidates]
    nodes = overlap.n_truth + overlap.n_prediction
    edges = (truth, overlap.n_truth + prediction)
    graph = coo_array((np.ones(candidates.size, np.int8), edges), shape=(nodes, nodes))
    n_clusters, cluster = connected_components(graph, directed=False)
    row, n_rows = _rank_in_group(cluster[: overlap.n_truth], n_clusters)
    column, n_columns = _rank_in_group(cluster[overlap.n_truth :], n_clusters)
    row, column, pair_cluster = row[truth], column[prediction], cluster[truth]
    taken: Mask = n_rows[pair_cluster] * n_columns[pair_cluster] == 1
    open_pairs = np.flatnonzero(~taken)
    open_pairs = open_pairs[np.argsort(pair_cluster[open_pairs], kind="stable")]
    starts = np.flatnonzero(np.diff(pair_cluster[open_pairs], prepend=-1))
    for pairs in np.split(open_pairs, starts[1:]) if starts.size else []:
        shape = (n_rows[pair_cluster[pairs[0]]], n_columns[pair_cluster[pairs[0]]])
        taken[pairs] = _solve(row[pairs], column[pairs], gain[candidates[pairs]], shape)
    return candidates[taken]


def _rank_in_group(group: Ints, n_groups: int) -> tuple[Ints, Ints]:
    """Position of each element among those of its group, in order, and the size of each group."""
    sizes = np.bincount(group, minlength=n_groups)
    order = np.argsort(group, kind="stable")
    rank = np.empty(group.size, np.int64)
    rank[order] = np.arange(group.size) - (np.cumsum(sizes) - sizes)[group[order]]
    return rank, sizes


def _solve(row: Ints, column: Ints, gain: Floats, shape: tuple[int, int]) -> Mask:
    table = np.zeros(shape)
    table[row, column] = gain
    partner = np.full(shape[0], -1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    partner[rows] = columns
    return np.asarray(partner[row] == column)


@dataclass(frozen=True, slots=True)
class MatchCounts:
    """Matched, spurious and missed nuclei at one IoU threshold; counts add up over images."""

    tp: int
    fp: int
    fn: int
    iou_sum: float

    def __add__(self, other: "MatchCounts") -> "MatchCounts":
        return MatchCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.iou_sum + other.iou_sum)

    @property
    def dq(self) -> float:
        """Detection quality, which is the F1 of nuclei: TP / (TP + FP/2 + FN/2)."""
        return divide(self.tp, self.tp + 0.5 * (self.fp + self.fn))

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the matched pairs; 0 when none matched, nan without a nucleus."""
        return self.iou_sum / self.tp if self.tp else 0.0 * self.dq

    @property
    def pq(self) -> float:
        """Panoptic quality, DQ x SQ. Source: Kirillov et al., "Panoptic segmentation", CVPR 2019."""
        return divide(self.iou_sum, self.tp + 0.5 * (self.fp + self.fn))

    @property
    def precision(self) -> float:
        """Average precision at this threshold as the 2018 Data Science Bowl has it: TP / (TP + FP + FN)."""
        return divide(self.tp, self.tp + self.fp + self.fn)


def match(overlap: Overlap, threshold: float = 0.5) -> MatchCounts:
    """Match nuclei whose IoU is *above* the threshold (strictly).

    From 0.5 on such pairs are unique. Below, they are assigned one to one: as many pairs as possible, among
    these the greatest summed IoU. Raises HemalumError unless 0 <= threshold < 1.
    """
    if not 0 <= threshold < 1:
        raise HemalumError(f"IoU threshold must be in [0, 1), not {threshold}")
    iou = overlap.iou
    if threshold >= 0.5:
        pairs = np.flatnonzero(iou > threshold)
    else:
        # one more pair outweighs any sum of IoU
        pairs = _assign(overlap, np.where(iou > threshold, iou + min(overlap.n_truth, overlap.n_prediction), 0.0))
    return MatchCounts(
        tp=pairs.size,
        fp=overlap.n_prediction - pairs.size,
        fn=overlap.n_truth - pairs.size,
        iou_sum=float(iou[pairs].sum()),
    )


def match_at_thresholds(overlap: Overlap, thresholds: Sequence[float] = THRESHOLDS) -> list[MatchCounts]:
    """`match` at each threshold."""
    return [match(overlap, threshold) for threshold in thresholds]


def average_precision(matches: Sequence[MatchCounts]) -> float:
    """Mean over IoU thresholds of TP / (TP + FP + FN): the 2018 Data Science Bowl's score of one image.

    nan when there is no nucleus at all, or no threshold.
    """
    return divide(sum(counts.precision for counts in matches), len(matches))
