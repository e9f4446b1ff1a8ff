"""All metrics of an image, and of many images under each averaging, from one set of counts per image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.metrics import (
    AVERAGINGS,
    THRESHOLDS,
    AjiSums,
    BoundaryDistances,
    MatchCounts,
    PixelCounts,
    PixelScores,
    average_by_class,
    average_pixel_scores,
    average_precision,
    average_surface_distance,
    boundary_f1,
    bpq_image,
    bpq_tissue,
    count_matches_by_class,
    count_pixels,
    count_pixels_by_class,
    hd95,
    match_at_thresholds,
    match_by_class,
    measure_boundary,
    measure_overlap,
    mpq_image,
    mpq_plus,
    mpq_tissue,
    pool_boundaries,
    pool_classes,
    score_pixels,
    score_pixels_weighted,
    sum_aji,
    sum_aji_plus,
)

BOUNDARY_TOLERANCE_PX = 2.0

SEMANTIC: tuple[Literal["pooled", "per_image"], ...] = ("pooled", "per_image")

Row = dict[str, Any]
Classes = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class ByClass:
    """Classes of an image: by true id, by predicted id (None: the prediction has none), and the names to score by id.

    `pixels` (H, W) int32 is the predicted class of each pixel; without it a pixel has the class of its nucleus.
    """

    truth: Classes
    prediction: Classes | None
    names: Mapping[int, str]
    pixels: Classes | None = None


@dataclass(frozen=True, eq=False)
class ImageScores:
    """What one image adds to a study. `matches` are at `THRESHOLDS`.

    `by_class` and `semantic` (nuclei and pixels by class) are None where truth or prediction has no classes,
    `recalled` (matched, true nuclei of each true class) where the truth has none. `class_names` are in their order.
    """

    pixels: PixelCounts
    boundary: BoundaryDistances
    aji: AjiSums
    aji_plus: AjiSums
    matches: tuple[MatchCounts, ...]
    by_class: tuple[MatchCounts, ...] | None
    semantic: tuple[PixelCounts, ...] | None
    recalled: tuple[tuple[int, int], ...] | None
    class_names: tuple[str, ...]
    mpp: float | None

    @cached_property
    def row(self) -> Row:
        """The scores as a flat row; nan where undefined (docs/concepts/metrics.md)."""
        return (
            {"nuclei_truth": self.n_truth, "nuclei_predicted": self.n_prediction}
            | asdict(score_pixels(self.pixels))
            | {f"weighted_{name}": value for name, value in asdict(score_pixels_weighted(self.pixels)).items()}
            | _boundary(self.boundary, self.mpp)
            | _instance(self.aji, self.aji_plus, self.matches)
            | ({"mpq": mpq_image([self.by_class])} if self.by_class is not None else {})
            | (_semantic_row(self.semantic, self.class_names) if self.semantic is not None else {})
        )

    @property
    def n_truth(self) -> int:
        """Number of true nuclei."""
        return self.matches[0].tp + self.matches[0].fn

    @property
    def n_prediction(self) -> int:
        """Number of predicted nuclei."""
        return self.matches[0].tp + self.matches[0].fp


def score_image(
    truth: NDArray[np.int32],
    prediction: NDArray[np.integer[Any]],
    *,
    ambiguous: NDArray[np.bool_] | None = None,
    mpp: float | None = None,
    classes: ByClass | None = None,
) -> ImageScores:
    """Score one (H, W) label map against the truth.

    Boundaries are those of the foreground as a whole. Raises HemalumError when shapes, dtypes or classes do not fit.
    """
    overlap = measure_overlap(truth, prediction, ambiguous=ambiguous)
    by_class = semantic = recalled = None
    if classes is not None:
        scored = list(classes.names)
        recalled = tuple(count_matches_by_class(overlap, classes.truth, scored))
        if classes.prediction is not None:
            by_class = tuple(match_by_class(overlap, classes.truth, classes.prediction, scored))
            pixels = classes.prediction[prediction] if classes.pixels is None else classes.pixels
            semantic = tuple(count_pixels_by_class(classes.truth[truth], pixels, scored, ambiguous=ambiguous))
    return ImageScores(
        pixels=count_pixels(truth, prediction, ambiguous=ambiguous),
        boundary=measure_boundary(truth > 0, prediction > 0, ambiguous=ambiguous),
        aji=sum_aji(overlap),
        aji_plus=sum_aji_plus(overlap),
        matches=tuple(match_at_thresholds(overlap)),
        by_class=by_class,
        semantic=semantic,
        recalled=recalled,
        class_names=tuple(classes.names.values()) if classes is not None else (),
        mpp=mpp,
    )


def _semantic_row(counts: Sequence[PixelCounts], names: Sequence[str]) -> Row:
    scores = average_by_class([counts], "pooled")
    row: Row = {"semantic_f1": scores.f1, "semantic_miou": scores.miou}
    for name, pixels in zip(names, scores.by_class, strict=True):
        row |= {f"semantic_f1_{name}": pixels.dice, f"semantic_iou_{name}": pixels.iou}
    return row


def _boundary(distances: BoundaryDistances, mpp: float | None) -> Row:
    far, mean = hd95(distances), average_surface_distance(distances)
    scale = float("nan") if mpp is None else mpp
    return {
        "hd95_px": far,
        "hd95_um": far * scale,
        "assd_px": mean,
        "assd_um": mean * scale,
        "boundary_f1": boundary_f1(distances, BOUNDARY_TOLERANCE_PX),
    }


def _instance(aji: AjiSums, aji_plus: AjiSums, matches: Sequence[MatchCounts]) -> Row:
    half = matches[0]
    return (
        {"aji": aji.value, "aji_plus": aji_plus.value, "pq": half.pq, "dq": half.dq, "sq": half.sq}
        | {"ap": average_precision(matches)}
        | {f"f1_{_percent(t)}": counts.dq for t, counts in zip(THRESHOLDS, matches, strict=True)}
        | {f"ap_{_percent(t)}": counts.precision for t, counts in zip(THRESHOLDS, matches, strict=True)}
    )


def _percent(threshold: float) -> int:
    return round(100 * threshold)


def summarize(images: Sequence[ImageScores], tissues: Sequence[str | None] | None = None) -> Row:
    """Every metric of a set of images under every averaging that it has; `tissues` names the tissue of each image.

    pixel: pooled, per_image, support_weighted; boundary and instance: pooled, per_image; binary: bpq_tissue and
    bpq_image; classes, where truth and prediction have any: mpq_tissue, mpq_image, mpq_plus and the pooled PQ of each
    class, and semantic: pooled, per_image, of pixels by
    class; found_by_class, where the truth has any: pooled recall at IoU > 0.5 of each true class, whatever class it
    was given. Undefined values are nan; `left_out` says how many images had none of a kind, `classes_absent` which
    classes have no true pixel and are in no mean of semantic.
    """
    rows = [image.row for image in images]
    tissues = [None] * len(images) if tissues is None else tissues
    halves = [image.matches[0] for image in images]
    boundary = pool_boundaries([image.boundary for image in images])
    pooled_matches = [_pool_matches(column) for column in zip(*(i.matches for i in images), strict=True)]
    summary: Row = {
        "images": len(images),
        "nuclei_truth": sum(image.n_truth for image in images),
        "nuclei_predicted": sum(image.n_prediction for image in images),
        "pixel": {name: asdict(average_pixel_scores([i.pixels for i in images], name)) for name in AVERAGINGS},
        "boundary": {
            "pooled": _boundary(boundary, _shared_scale(images)),
            "per_image": _means(rows, ("hd95_px", "hd95_um", "assd_px", "assd_um", "boundary_f1")),
        },
        "instance": {
            "pooled": _instance(
                sum((i.aji for i in images), AjiSums(0, 0)),
                sum((i.aji_plus for i in images), AjiSums(0, 0)),
                pooled_matches or [MatchCounts(0, 0, 0, 0.0)] * len(THRESHOLDS),
            ),
            "per_image": _means(rows, ("aji", "aji_plus", "pq", "dq", "sq", "ap", *_threshold_names())),
        },
        "binary": {"bpq_tissue": bpq_tissue(halves, tissues), "bpq_image": bpq_image(halves)},
        "left_out": {name: sum(bool(np.isnan(row[name])) for row in rows) for name in ("dice", "pq")},
    }
    classed = [(i.by_class, tissue) for i, tissue in zip(images, tissues, strict=True) if i.by_class is not None]
    if classed:
        by_class, class_tissues = zip(*classed, strict=True)
        summary["classes"] = {
            "mpq_tissue": mpq_tissue(by_class, class_tissues),
            "mpq_image": mpq_image(by_class),
            "mpq_plus": mpq_plus(by_class),
            "pq_pooled": [counts.pq for counts in pool_classes(by_class)],
        }
    semantic = [image.semantic for image in images if image.semantic is not None]
    if semantic:
        summary |= _semantic(semantic, next(image.class_names for image in images if image.semantic is not None))
    recalled = [image.recalled for image in images if image.recalled is not None]
    if recalled:
        pooled = np.array(recalled).sum(axis=0)
        summary["found_by_class"] = {
            "nuclei": pooled[:, 1].tolist(),
            "recall": [matched / true if true else float("nan") for matched, true in pooled.tolist()],
        }
    return summary


def _semantic(images: Sequence[Sequence[PixelCounts]], names: Sequence[str]) -> Row:
    averaged = {averaging: average_by_class(images, averaging) for averaging in SEMANTIC}
    true_pixels = [sum(counts.tp + counts.fn for counts in column) for column in zip(*images, strict=True)]
    return {
        "semantic": {
            averaging: {"precision": one.precision, "recall": one.recall, "f1": one.f1, "miou": one.miou}
            for averaging, one in averaged.items()
        },
        "semantic_by_class": {
            name: {"true_pixels": true_pixels[k]}
            | {averaging: _of_class(one.by_class[k]) for averaging, one in averaged.items()}
            for k, name in enumerate(names)
        },
        "classes_absent": [name for name, count in zip(names, true_pixels, strict=True) if not count],
    }


def _of_class(scores: PixelScores) -> Row:
    return {"precision": scores.precision, "recall": scores.recall, "f1": scores.dice, "iou": scores.iou}


def table_by(names: Sequence[str | None], images: Sequence[ImageScores]) -> list[Row]:
    """One short row per name (patient, organ, …), sorted; images without a name are left out."""
    table = []
    for name in sorted({name for name in names if name is not None}):
        part = [image for image, image_name in zip(images, names, strict=True) if image_name == name]
        means = _means([image.row for image in part], ("dice", "recall", "precision", "hd95_px", "aji", "pq"))
        pooled = average_pixel_scores([image.pixels for image in part], "pooled")
        table.append(
            {
                "name": name,
                "images": len(part),
                "nuclei_truth": sum(image.n_truth for image in part),
                "nuclei_predicted": sum(image.n_prediction for image in part),
                "dice_pooled": pooled.dice,
                "recall_pooled": pooled.recall,
                "precision_pooled": pooled.precision,
                **means,
                "pq_pooled": _pool_matches([image.matches[0] for image in part]).pq,
            }
        )
    return table


def _pool_matches(column: Sequence[MatchCounts]) -> MatchCounts:
    return sum(column, MatchCounts(0, 0, 0, 0.0))


def _threshold_names() -> list[str]:
    return [f"{kind}_{_percent(threshold)}" for kind in ("f1", "ap") for threshold in THRESHOLDS]


def _means(rows: Sequence[Row], names: Sequence[str]) -> Row:
    table = np.array([[row[name] for name in names] for row in rows], float).reshape(len(rows), len(names))
    defined = ~np.isnan(table)
    count = defined.sum(axis=0)
    total = np.where(defined, table, 0).sum(axis=0)
    means = np.divide(total, count, out=np.full(len(names), np.nan), where=count > 0)
    return dict(zip(names, means.tolist(), strict=True))


def _shared_scale(images: Sequence[ImageScores]) -> float | None:
    """The mpp of all images, or None: boundary pixels of different size cannot be pooled in µm."""
    scales = {image.mpp for image in images}
    return scales.pop() if len(scales) == 1 else None


def without_nan(value: Any) -> Any:
    """A structure for JSON and CSV: tuples as lists, None in the place of nan."""
    if isinstance(value, Mapping):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
