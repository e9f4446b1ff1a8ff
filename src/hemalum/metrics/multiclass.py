"""PQ by class of nucleus: mPQ (per image, by tissue) and mPQ+ (pooled over images); recall by true class.

A pair matches when both nuclei are of the class and their IoU is above 0.5. A nucleus of right shape and
wrong class is a miss in one class and a false alarm in the other.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError, counted
from hemalum.metrics.instance import MatchCounts, Overlap
from hemalum.metrics.pairs import mean_defined


def match_by_class(
    overlap: Overlap,
    truth_classes: NDArray[np.int32],
    prediction_classes: NDArray[np.int32],
    classes: Sequence[int],
) -> list[MatchCounts]:
    """Matches of one image at IoU > 0.5 for each of `classes`, in their order.

    `truth_classes` and `prediction_classes` are (max id + 1,) int32: the class of each nucleus by its id.
    Nuclei of a class not in `classes` are in none of the counts. Raises HemalumError when an id has no
    class.
    """
    true_class = _look_up_classes(truth_classes, overlap.truth_ids, "truth")
    predicted_class = _look_up_classes(prediction_classes, overlap.prediction_ids, "prediction")
    iou = overlap.iou
    pair_true, pair_predicted = true_class[overlap.pair_truth], predicted_class[overlap.pair_prediction]
    matched = (iou > 0.5) & (pair_true == pair_predicted)
    counts = []
    for class_id in classes:
        pairs = matched & (pair_true == class_id)
        tp = int(np.count_nonzero(pairs))
        fp = int(np.count_nonzero(predicted_class == class_id)) - tp
        fn = int(np.count_nonzero(true_class == class_id)) - tp
        counts.append(MatchCounts(tp, fp, fn, float(iou[pairs].sum())))
    return counts


def count_matches_by_class(
    overlap: Overlap, truth_classes: NDArray[np.int32], classes: Sequence[int]
) -> list[tuple[int, int]]:
    """(matched, true) nuclei of one image for each of `classes`: those matched at IoU > 0.5, and all of them.

    For a prediction that knows no classes: what it finds of each kind. `truth_classes` is (max id + 1,) int32.
    Raises HemalumError when an id has no class.
    """
    true_class = _look_up_classes(truth_classes, overlap.truth_ids, "truth")
    matched = true_class[overlap.pair_truth[overlap.iou > 0.5]]
    return [
        (int(np.count_nonzero(matched == class_id)), int(np.count_nonzero(true_class == class_id)))
        for class_id in classes
    ]


def _look_up_classes(classes: NDArray[np.int32], ids: NDArray[np.int64], role: str) -> NDArray[np.int32]:
    largest = int(ids.max(initial=0))
    if classes.dtype.kind not in "iu":
        raise HemalumError(f"classes of the {role} are {classes.dtype}; give one whole number per nucleus id")
    if classes.ndim != 1 or largest >= classes.size:
        raise HemalumError(
            f"classes of the {role} have shape {classes.shape}, but its largest nucleus id is {largest}: "
            "give one class per id, index 0 being background"
        )
    return classes[ids]


def mpq_plus(images: Sequence[Sequence[MatchCounts]]) -> float:
    """mPQ+: counts of each class pooled over all images, PQ per class, mean over classes.

    A class that occurs in no image, true or predicted, is left out. (The challenge's own code would count
    it as 0.) `images` holds one `match_by_class` result each. Source: Graham et al., CoNIC challenge,
    2021-2023.
    """
    return mean_defined([counts.pq for counts in pool_classes(images)])


def pool_classes(images: Sequence[Sequence[MatchCounts]]) -> list[MatchCounts]:
    """Counts of each class added up over the images."""
    return [sum(column, MatchCounts(0, 0, 0, 0.0)) for column in zip(*images, strict=True)]


def mpq_image(images: Sequence[Sequence[MatchCounts]]) -> float:
    """Per image the mean PQ of the classes that occur in its truth, then the mean over images.

    A class predicted but not in an image's truth is not counted against that image, which is why mPQ+ was
    made. Images whose truth has no class are left out. `images` holds one `match_by_class` result each.
    """
    return mean_defined(_mpq_by_image(images))


def mpq_tissue(images: Sequence[Sequence[MatchCounts]], tissues: Sequence[str | None]) -> float:
    """mPQ of PanNuke: as `mpq_image` in each image, their mean in each tissue, then the mean over tissues.

    `tissues` names the tissue of each image; images without one are left out, and nan is given where none has.
    Raises HemalumError when the numbers differ. Source: Gamper et al., PanNuke, arXiv:2003.10778, and its code.
    """
    return _mean_over_tissues(_mpq_by_image(images), tissues)


def bpq_image(images: Sequence[MatchCounts]) -> float:
    """Mean PQ over the images whose truth has nuclei, whatever their classes. `images` are matches at IoU > 0.5."""
    return mean_defined(_bpq_by_image(images))


def bpq_tissue(images: Sequence[MatchCounts], tissues: Sequence[str | None]) -> float:
    """bPQ of PanNuke: as `bpq_image` in each tissue, then the mean over tissues; see `mpq_tissue`.

    An image without a true nucleus is left out, also where nuclei are predicted in it.
    """
    return _mean_over_tissues(_bpq_by_image(images), tissues)


def _mpq_by_image(images: Sequence[Sequence[MatchCounts]]) -> list[float]:
    return [mean_defined([counts.pq for counts in image if counts.tp + counts.fn]) for image in images]


def _bpq_by_image(images: Sequence[MatchCounts]) -> list[float]:
    return [counts.pq if counts.tp + counts.fn else float("nan") for counts in images]


def _mean_over_tissues(values: Sequence[float], tissues: Sequence[str | None]) -> float:
    if len(values) != len(tissues):
        of_images, of_tissues = counted(len(values), "image"), counted(len(tissues), "tissue")
        raise HemalumError(f"mean over tissues: {of_images} but {of_tissues}; give one per image, None where unknown")
    by_tissue: dict[str, list[float]] = {}
    for value, tissue in zip(values, tissues, strict=True):
        if tissue is not None:
            by_tissue.setdefault(tissue, []).append(value)
    return mean_defined([mean_defined(part) for part in by_tissue.values()])
