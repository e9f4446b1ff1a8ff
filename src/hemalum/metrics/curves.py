"""Precision–recall curves: what a model could do at every threshold, not at one.

Pixels are counted by probability once per image (`ProbabilityCounts`); the counts of images add up, and every
curve comes from them. Nuclei come one by one with the probability of each. See docs/concepts/metrics.md.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hemalum.errors import HemalumError
from hemalum.metrics.pairs import Mask

BINS = 1000

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ProbabilityCounts:
    """Pixels by their probability of being nucleus: (BINS,) int64, bin k holding [k, k + 1) / BINS.

    `positive` counts pixels that truly are nucleus, `negative` the others; 1 falls into the last bin. Counts
    add up over images. Raises HemalumError when an array has another shape or a negative count.
    """

    positive: Ints
    negative: Ints

    def __post_init__(self) -> None:
        for name in ("positive", "negative"):
            counts = np.asarray(getattr(self, name))
            if counts.shape != (BINS,) or counts.dtype.kind not in "iu" or counts.min() < 0:
                raise HemalumError(
                    f"probability counts: '{name}' must be ({BINS},) counts of 0 or more, not "
                    f"{counts.shape} {counts.dtype}"
                )
            object.__setattr__(self, name, counts.astype(np.int64))

    @classmethod
    def none(cls) -> "ProbabilityCounts":
        """Counts of no pixel: what a sum begins with."""
        return cls(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))

    def __add__(self, other: "ProbabilityCounts") -> "ProbabilityCounts":
        return ProbabilityCounts(self.positive + other.positive, self.negative + other.negative)


def count_probabilities(
    probability: NDArray[np.floating[Any]], truth: Mask, ambiguous: Mask | None = None
) -> ProbabilityCounts:
    """Count the pixels of one image by probability.

    `probability` is (H, W) floating in [0, 1], `truth` (H, W) bool. Pixels of `ambiguous` are not counted.
    Raises HemalumError when shapes or dtypes do not fit, or a probability is nan or outside [0, 1].
    """
    _check_probability(probability, "the probability map", 2)
    for name, mask in (("truth", truth), ("the ambiguous mask", ambiguous)):
        if mask is not None and (mask.shape != probability.shape or mask.dtype != np.bool_):
            raise HemalumError(f"curves: {name} must be {probability.shape} bool, not {mask.shape} {mask.dtype}")
    exact = probability.astype(np.float32) if probability.itemsize < 4 else probability
    bins = np.minimum((exact * BINS).astype(np.int32), BINS - 1)
    bins += BINS * truth
    kept = bins.ravel() if ambiguous is None else bins[~ambiguous]
    counts = np.bincount(kept, minlength=2 * BINS)
    return ProbabilityCounts(positive=counts[BINS:], negative=counts[:BINS])


def _check_probability(probability: NDArray[Any], name: str, dimensions: int) -> None:
    if probability.ndim != dimensions or probability.dtype.kind != "f":
        shape = "(H, W)" if dimensions == 2 else "(N,)"
        raise HemalumError(f"curves: {name} must be {shape} floating, not {probability.shape} {probability.dtype}")
    if probability.size == 0:
        return
    low, high = float(probability.min()), float(probability.max())  # nan is passed on by both
    if math.isnan(low):
        raise HemalumError(f"curves: {name} has {np.count_nonzero(np.isnan(probability))} nan values")
    if low < 0 or high > 1:
        raise HemalumError(f"curves: {name} must lie in [0, 1], but spans {low:g} to {high:g}; give probabilities")


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionRecall:
    """A precision–recall curve of K points, by falling threshold; at each, `predicted` ≥ 1 are positive.

    `thresholds` is (K,) float64: what has at least this probability counts as positive. `tp` and `predicted`
    are (K,) int64; `positives` is how many truly are there.
    """

    thresholds: Floats
    tp: Ints
    predicted: Ints
    positives: int

    @property
    def precision(self) -> Floats:
        """(K,) in [0, 1]."""
        return np.asarray(self.tp / self.predicted, dtype=np.float64)

    @property
    def recall(self) -> Floats:
        """(K,) in [0, 1], never falling; nan where nothing is there to be found."""
        if self.positives == 0:
            return np.full(self.tp.size, np.nan)
        return np.asarray(self.tp / self.positives, dtype=np.float64)


def precision_recall(counts: ProbabilityCounts) -> PrecisionRecall:
    """The curve over pixels, at the thresholds 0, 1/BINS, … that hold at least one pixel more than the last."""
    filled = np.flatnonzero(counts.positive + counts.negative)[::-1]
    tp = np.cumsum(counts.positive[filled])
    predicted = tp + np.cumsum(counts.negative[filled])
    return PrecisionRecall(filled / BINS, tp, predicted, int(counts.positive.sum()))


def detection_curve(probability: ArrayLike, matched: ArrayLike, truth: int) -> PrecisionRecall:
    """The curve over predicted nuclei: recall of the `truth` true nuclei as the surest are taken first.

    `probability` is (N,) floating in [0, 1] of each predicted nucleus, `matched` (N,) bool whether it matches
    a true one. Nuclei of many images are pooled by putting them behind one another. Nuclei of equal
    probability enter together. The matching is that of all predictions: with one-to-one matching at IoU
    above 0.5, taking away a prediction changes no other's match.

    Raises HemalumError when the arrays do not fit, or more nuclei match than there are true ones.
    """
    confidence, hits = np.asarray(probability), np.asarray(matched)
    if confidence.size == 0:  # an empty list comes as float64 in either case
        confidence, hits = confidence.astype(np.float64), hits.astype(np.bool_)
    _check_probability(confidence, "the nuclei's probability", 1)
    if hits.shape != confidence.shape or hits.dtype != np.bool_:
        raise HemalumError(f"curves: 'matched' must be {confidence.shape} bool, not {hits.shape} {hits.dtype}")
    if truth < np.count_nonzero(hits):
        raise HemalumError(f"curves: {np.count_nonzero(hits)} nuclei match, but only {truth} are true")
    values, index = np.unique(-confidence.astype(np.float64), return_inverse=True)
    tp = np.cumsum(np.bincount(index, weights=hits, minlength=values.size)).astype(np.int64)
    predicted = np.cumsum(np.bincount(index, minlength=values.size))
    return PrecisionRecall(-values, tp, predicted, truth)


def _as_curve(curve: ProbabilityCounts | PrecisionRecall) -> PrecisionRecall:
    return precision_recall(curve) if isinstance(curve, ProbabilityCounts) else curve


def area_under(curve: ProbabilityCounts | PrecisionRecall) -> float:
    """Average precision: precision at each threshold, weighted by the recall that it adds.

    Steps, no line between points, as scikit-learn has it. True nuclei that no threshold finds add nothing.
    nan when nothing is there to be found.
    """
    curve = _as_curve(curve)
    if curve.positives == 0:
        return math.nan
    return float((np.diff(curve.tp, prepend=0) * curve.precision).sum() / curve.positives)


def best_dice(curve: ProbabilityCounts | PrecisionRecall) -> tuple[float, float]:
    """The highest Dice of any threshold, and the least threshold that has it; both nan where there is nothing.

    Over the pixels that the curve counts: pooled. What a network could have at its best threshold is no figure of a
    model, whose threshold is set without the truth; but two networks that differ in Dice and not in this one differ
    in their threshold alone.
    """
    curve = _as_curve(curve)
    if curve.positives == 0 or curve.tp.size == 0:
        return math.nan, math.nan
    dice = 2 * curve.tp / (curve.predicted + curve.positives)
    best = int(dice.size - 1 - np.argmax(dice[::-1]))
    return float(dice[best]), float(curve.thresholds[best])


def recall_at_precision(curve: ProbabilityCounts | PrecisionRecall, precision: float) -> float:
    """The highest recall that some threshold reaches with at least this precision.

    Between the last threshold that reaches it and the next lower one, the pixels (or nuclei) of the step are
    taken to enter in even proportion: counts, not precision, change along a line. nan when no threshold
    reaches the precision, or nothing is there to be found. Raises HemalumError unless 0 < precision <= 1.
    Source: Davis and Goadrich, "The relationship between precision-recall and ROC curves", ICML 2006.
    """
    if not 0 < precision <= 1:
        raise HemalumError(f"recall at precision: precision must be above 0 and at most 1, not {precision}")
    curve = _as_curve(curve)
    reached = np.flatnonzero(curve.precision >= precision)
    if curve.positives == 0 or reached.size == 0:
        return math.nan
    last = int(reached[-1])
    tp, predicted = float(curve.tp[last]), float(curve.predicted[last])
    if last + 1 < curve.tp.size:
        more_tp, more = float(curve.tp[last + 1] - tp), float(curve.predicted[last + 1] - predicted)
        # (tp + share * more_tp) / (predicted + share * more) = precision; the next point lies below it
        share = (tp - precision * predicted) / (precision * more - more_tp)
        tp += more_tp * min(max(share, 0.0), 1.0)
    return tp / curve.positives
