"""Precision, recall, Dice and IoU of nucleus pixels, under three averagings that papers mix up.

`pooled`            counts of all images are added up, then one score (large and crowded images weigh most)
`per_image`         a score per image, then their mean (every image weighs the same)
`support_weighted`  per image the scores of background and of nucleus, weighted by their true pixels, then the
                    mean over images (scikit-learn's `average="weighted"`; background dominates)

Empty cases of `pooled` and `per_image`: nothing true and nothing predicted is nan, and nan is left out of
means; only one of them empty is 0 in all four scores. `support_weighted` is defined for every image with a
pixel in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from hemalum.errors import HemalumError
from hemalum.metrics.pairs import Labels, Mask, check_pair, divide, mean_defined

Averaging = Literal["pooled", "per_image", "support_weighted"]
AVERAGINGS: tuple[Averaging, ...] = get_args(Averaging)


@dataclass(frozen=True, slots=True)
class PixelCounts:
    """Pixels by truth and prediction, nucleus being positive; counts add up over images."""

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        return PixelCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def inverted(self) -> "PixelCounts":
        """The same pixels with background as positive."""
        return PixelCounts(tp=self.tn, fp=self.fn, fn=self.fp, tn=self.tp)


@dataclass(frozen=True, slots=True)
class PixelScores:
    """Four scores in [0, 1], or nan where undefined."""

    precision: float
    recall: float
    dice: float
    iou: float


UNDEFINED = PixelScores(*[float("nan")] * 4)


def count_pixels(truth: Labels, prediction: Labels, *, ambiguous: Mask | None = None) -> PixelCounts:
    """Confusion counts of two (H, W) label maps or masks; any id above 0 is nucleus.

    Pixels of `ambiguous` are in none of the counts. Raises HemalumError when shapes or dtypes do not fit.
    """
    check_pair(truth, prediction, ambiguous)
    is_true, is_predicted = truth != 0, prediction != 0
    size = truth.size
    if ambiguous is not None:
        is_true, is_predicted = is_true & ~ambiguous, is_predicted & ~ambiguous
        size -= int(np.count_nonzero(ambiguous))
    tp = int(np.count_nonzero(is_true & is_predicted))
    fn = int(np.count_nonzero(is_true)) - tp
    fp = int(np.count_nonzero(is_predicted)) - tp
    return PixelCounts(tp=tp, fp=fp, fn=fn, tn=size - tp - fp - fn)


def score_pixels(counts: PixelCounts) -> PixelScores:
    """Scores of the nucleus pixels. Both empty: nan. One empty: 0."""
    union = counts.tp + counts.fp + counts.fn
    if union == 0:
        return UNDEFINED
    return PixelScores(
        precision=counts.tp / max(counts.tp + counts.fp, 1),
        recall=counts.tp / max(counts.tp + counts.fn, 1),
        dice=2 * counts.tp / (union + counts.tp),
        iou=counts.tp / union,
    )


def score_pixels_weighted(counts: PixelCounts) -> PixelScores:
    """Scores of background and nucleus weighted by their true pixels (one image). No pixels at all: nan.

    A class without true pixels has weight 0. Source: as published with "SAM Guided Task-Specific Enhanced
    Nuclei Segmentation" (MICCAI 2024), which calls scikit-learn's weighted F1 and Jaccard. The weighted
    recall is the pixel accuracy.
    """
    supported = [part for part in (counts.inverted, counts) if part.tp + part.fn > 0]
    parts = [(part.tp + part.fn, score_pixels(part)) for part in supported]
    total = sum(weight for weight, _ in parts)

    def weighted(name: str) -> float:
        return divide(sum(weight * getattr(scores, name) for weight, scores in parts), total)

    return PixelScores(weighted("precision"), weighted("recall"), weighted("dice"), weighted("iou"))


def average_pixel_scores(counts: Sequence[PixelCounts], averaging: Averaging) -> PixelScores:
    """Scores of a set of images under one named averaging; undefined images are left out of the mean.

    No image, or only undefined ones: nan. Raises HemalumError for an unknown averaging.
    """
    if averaging not in AVERAGINGS:
        raise HemalumError(f"averaging '{averaging}' is unknown; use one of {', '.join(AVERAGINGS)}")
    if averaging == "pooled":
        return score_pixels(sum(counts, PixelCounts(0, 0, 0, 0)))
    score = score_pixels if averaging == "per_image" else score_pixels_weighted
    return average_scores([score(image) for image in counts])


def average_scores(scores: Sequence[PixelScores]) -> PixelScores:
    """Mean of each score where it is defined."""
    return PixelScores(
        precision=mean_defined([score.precision for score in scores]),
        recall=mean_defined([score.recall for score in scores]),
        dice=mean_defined([score.dice for score in scores]),
        iou=mean_defined([score.iou for score in scores]),
    )
