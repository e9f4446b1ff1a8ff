"""The metrics of a comparison, each under every averaging that it has and named in full."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hemalum.metrics import THRESHOLDS
from hemalum.reports.numbers import mean_text, number

NAMES = {
    "pixel": {"dice": "Dice", "iou": "IoU", "precision": "Precision of pixels", "recall": "Recall of pixels"},
    "boundary": {
        "hd95_px": "HD95 (px)",
        "hd95_um": "HD95 (µm)",
        "assd_px": "Average surface distance (px)",
        "assd_um": "Average surface distance (µm)",
        "boundary_f1": "Boundary F1",
    },
    "instance": {
        "pq": "PQ",
        "dq": "DQ (F1 of nuclei, IoU > 0.5)",
        "sq": "SQ (mean IoU of matched nuclei)",
        "aji": "AJI",
        "aji_plus": "AJI+",
        "ap": "AP, mean over IoU 0.50–0.95",
    },
    "semantic": {
        "f1": "F1 of pixels by class",
        "miou": "mIoU of pixels by class",
        "precision": "Precision of pixels by class",
        "recall": "Recall of pixels by class",
    },
}
AVERAGED = {
    ("pixel", "pooled"): "pooled over all pixels",
    ("pixel", "per_image"): "mean over images",
    ("pixel", "support_weighted"): "weighted over background and nuclei (support-weighted), mean over images",
    ("boundary", "pooled"): "pooled over the boundary pixels of all images",
    ("boundary", "per_image"): "mean over images",
    ("instance", "pooled"): "pooled over the nuclei of all images",
    ("instance", "per_image"): "mean over images",
    ("semantic", "pooled"): "pooled over all pixels, mean over classes without background",
    ("semantic", "per_image"): "mean over the classes of an image without background, then over images",
}
KIND_TITLES = {
    "pixel": "Pixels",
    "boundary": "Boundaries",
    "instance": "Nuclei",
    "semantic": "Pixels by class of nucleus",
}


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric under one averaging; `key` and `averaging` are its keys in an evaluation's summary."""

    kind: str
    key: str
    averaging: str
    name: str

    @property
    def title(self) -> str:
        """Name with the averaging: "Dice, pooled over all pixels"."""
        return f"{self.name}, {AVERAGED[self.kind, self.averaging]}"

    @property
    def distance(self) -> bool:
        """A distance is better the smaller it is; everything else the larger."""
        return self.key.startswith(("hd95", "assd"))

    def of(self, summary: Mapping[str, Any]) -> float:
        """The value in `summary`, nan where it is missing or undefined."""
        return number(summary.get(self.kind, {}).get(self.averaging, {}).get(self.key))

    def text(self, value: float, sd: float = math.nan) -> str:
        """`0.812 ± 0.004`; a dash where undefined, no sd where there is none."""
        return mean_text(value, sd, decimals=2 if self.distance else 3)


METRICS = tuple(
    Metric(kind, key, averaging, name)
    for kind, names in NAMES.items()
    for key, name in names.items()
    for averaged, averaging in AVERAGED
    if averaged == kind
)
BY_THRESHOLD = tuple(
    Metric("instance", f"{key}_{round(100 * threshold)}", by, f"{name} at IoU > {threshold:.2f}")
    for key, name in {"f1": "F1 of nuclei", "ap": "AP"}.items()
    for by in ("pooled", "per_image")
    for threshold in THRESHOLDS
)
HEADLINE = tuple(
    Metric(kind, key, averaging, NAMES[kind][key])
    for kind, key, averaging in (
        ("pixel", "dice", "pooled"),
        ("pixel", "dice", "per_image"),
        ("instance", "aji", "per_image"),
        ("instance", "pq", "per_image"),
        ("instance", "pq", "pooled"),
        ("boundary", "hd95_px", "per_image"),
    )
)
# beside them where methods tell classes of nuclei apart
HEADLINE_BY_CLASS = tuple(Metric("semantic", key, "pooled", NAMES["semantic"][key]) for key in ("f1", "miou"))
# the columns of per_image.csv that are tested and drawn; those by class where several methods have them
PER_IMAGE = {"dice": "Dice", "aji": "AJI", "pq": "PQ", "hd95_px": "HD95 (px)"}
PER_IMAGE_BY_CLASS = {
    "semantic_f1": "F1 of pixels by class",
    "semantic_miou": "mIoU of pixels by class",
    "mpq": "mPQ",
}
