"""Pixels by class of nucleus: precision, recall, F1 and IoU of each class, and their means without background.

Background is no class, so the easy majority of pixels carries nothing. A class without a true pixel is nan and left
out of every mean; what is falsely called it counts in the recall of the class that it was taken from.

`pooled`     counts of each class are added up over the images, scored, and the scores averaged over the classes
`per_image`  per image the mean over the classes in its truth, then the mean over images; of one class: the mean over
             the images whose truth has it
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hemalum.errors import HemalumError
from hemalum.metrics.pairs import Labels, Mask, check_pair
from hemalum.metrics.pixel import UNDEFINED, PixelCounts, PixelScores, average_scores, score_pixels

SemanticAveraging = Literal["pooled", "per_image"]


@dataclass(frozen=True, slots=True)
class SemanticScores:
    """Means over classes, in [0, 1] or nan, and the scores of each class (`dice` is the F1 of pixels)."""

    precision: float
    recall: float
    f1: float
    miou: float
    by_class: tuple[PixelScores, ...]


def count_pixels_by_class(
    truth: Labels, prediction: Labels, classes: Sequence[int], *, ambiguous: Mask | None = None
) -> list[PixelCounts]:
    """Confusion counts of each of `classes` against everything else, from two (H, W) class maps, 0 = background.

    Other values than `classes` are taken for background. Pixels of `ambiguous` are in none of the counts. Raises
    HemalumError when shapes or dtypes do not fit, or a class is not positive.
    """
    check_pair(truth, prediction, ambiguous)
    if min(classes, default=1) < 1:
        raise HemalumError(f"class {min(classes)}: classes are numbered from 1, 0 is background")
    size = 1 + max((int(truth.max(initial=0)), int(prediction.max(initial=0)), *classes))
    class_index = np.zeros(size, np.int64)
    class_index[list(classes)] = np.arange(1, len(classes) + 1)
    n_values = len(classes) + 1
    # as integers: a bool would be a mask
    pairs = class_index[truth.astype(np.int64)] * n_values + class_index[prediction.astype(np.int64)]
    if ambiguous is not None:
        pairs = pairs[~ambiguous]
    table = np.bincount(pairs.ravel(), minlength=n_values**2).reshape(n_values, n_values)
    truth_pixels, predicted_pixels = table.sum(axis=1), table.sum(axis=0)
    counts = []
    for n in range(1, n_values):
        tp = int(table[n, n])
        fp, fn = int(predicted_pixels[n]) - tp, int(truth_pixels[n]) - tp
        counts.append(PixelCounts(tp=tp, fp=fp, fn=fn, tn=int(table.sum()) - tp - fp - fn))
    return counts


def score_class(counts: PixelCounts) -> PixelScores:
    """Scores of one class; nan without a true pixel of it, also where some were predicted."""
    return score_pixels(counts) if counts.tp + counts.fn else UNDEFINED


def average_by_class(images: Sequence[Sequence[PixelCounts]], averaging: SemanticAveraging) -> SemanticScores:
    """Mean precision, recall, F1 and IoU over classes, under one averaging over images.

    `images` holds one `count_pixels_by_class` result each. F1 is the mean of the classes' F1. All nan without
    images. Source: the mIoU without background is eq. 20 of CSRA-Net (docs/systems/csra_net.md), which does not
    say over which pixels; both averagings are readings of it.
    """
    if averaging == "pooled":
        columns = zip(*images, strict=True)
        by_class = [score_class(sum(column, PixelCounts(0, 0, 0, 0))) for column in columns]
        mean = average_scores(by_class)
    else:
        scored = [[score_class(counts) for counts in image] for image in images]
        by_class = [average_scores(column) for column in zip(*scored, strict=True)]
        mean = average_scores([average_scores(image) for image in scored])
    return SemanticScores(mean.precision, mean.recall, mean.dice, mean.iou, tuple(by_class))
