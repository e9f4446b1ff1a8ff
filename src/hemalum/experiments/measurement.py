"""A model on labeled images: its pixels by probability, so that every threshold can be asked for, and its nuclei."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError, one_line
from hemalum.experiments.segmenters import model_for_organ
from hemalum.files import atomic_path
from hemalum.inference.probability import segment_with_maps
from hemalum.metrics import MatchCounts, PixelCounts, area_under, average_pixel_scores, match, measure_overlap
from hemalum.metrics.curves import BINS, ProbabilityCounts, count_probabilities
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.nuclei.nuclei import Nuclei
from hemalum.slides.slide import Slide

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a model gives on N images.

    `positive` and `negative` are (N, BINS) int64, each image's pixels by probability (`ProbabilityCounts`);
    `matches` its nuclei at IoU above 0.5, separated at the foreground threshold `threshold`.
    """

    ids: tuple[str, ...]
    organs: tuple[str | None, ...]
    groups: tuple[str, ...]
    positive: Counts
    negative: Counts
    matches: tuple[MatchCounts, ...]
    threshold: float

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def pixels(self) -> list[PixelCounts]:
        """Each image's pixels when those of at least the probability `threshold` are nucleus."""
        first = round(self.threshold * BINS)
        return [
            PixelCounts(
                tp=int(positive[first:].sum()),
                fp=int(negative[first:].sum()),
                fn=int(positive[:first].sum()),
                tn=int(negative[:first].sum()),
            )
            for positive, negative in zip(self.positive, self.negative, strict=True)
        ]

    def scores(self) -> dict[str, Any]:
        """Pixel scores pooled and as means over images, PQ pooled, and the area under the precision–recall curve."""
        pixels = self.pixels
        return {
            "images": len(self),
            "pooled": asdict(average_pixel_scores(pixels, "pooled")),
            "per_image": asdict(average_pixel_scores(pixels, "per_image")),
            "pq": sum(self.matches, MatchCounts(0, 0, 0, 0.0)).pq,
            "average_precision": area_under(ProbabilityCounts(self.positive.sum(axis=0), self.negative.sum(axis=0))),
            "threshold": self.threshold,
        }

    def scores_by_organ(self) -> dict[str, dict[str, float]]:
        """Images, and pooled recall, precision and Dice of each organ, sorted by name; without organs: none."""
        table = {}
        for organ in sorted({organ for organ in self.organs if organ is not None}):
            part = [counts for counts, name in zip(self.pixels, self.organs, strict=True) if name == organ]
            pooled = average_pixel_scores(part, "pooled")
            table[organ] = {
                "images": float(len(part)),
                "recall": pooled.recall,
                "precision": pooled.precision,
                "dice": pooled.dice,
            }
        return table

    def save(self, path: Path) -> None:
        """Write everything into one .npz, whole or not at all."""
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                ids=np.array(self.ids, np.str_),
                organs=np.array([organ or "" for organ in self.organs], np.str_),
                groups=np.array(self.groups, np.str_),
                positive=self.positive,
                negative=self.negative,
                matches=np.array([(m.tp, m.fp, m.fn, m.iou_sum) for m in self.matches], np.float64).reshape(-1, 4),
                threshold=np.float64(self.threshold),
            )

    @classmethod
    def load(cls, path: Path) -> "Measurement":
        """Read what `save` wrote. Raises HemalumError when it cannot be read."""
        try:
            with np.load(path, allow_pickle=False) as file:
                result = cls(
                    ids=tuple(file["ids"].tolist()),
                    organs=tuple(organ or None for organ in file["organs"].tolist()),
                    groups=tuple(file["groups"].tolist()),
                    positive=file["positive"],
                    negative=file["negative"],
                    matches=tuple(MatchCounts(int(a), int(b), int(c), float(d)) for a, b, c, d in file["matches"]),
                    threshold=float(file["threshold"]),
                )
            result._check()
        except Exception as error:  # of zipfile, zlib and NumPy's parser: they share no base
            raise HemalumError(f"{path}: cannot be read ({one_line(error)}); remove it and run again") from error
        return result

    def _check(self) -> None:
        """Raise ValueError where the parts do not belong together."""
        sizes = {len(self), len(self.organs), len(self.groups), len(self.matches)}
        if sizes != {len(self)} or any(not isinstance(name, str) for name in (*self.ids, *self.groups)):
            raise ValueError("its lists are not of the same images")
        for pixels in (self.positive, self.negative):
            if pixels.shape != (len(self), BINS) or pixels.dtype != np.int64 or pixels.min(initial=0) < 0:
                raise ValueError("its counts are not those of pixels by probability")
        if not 0 <= self.threshold <= 1 or not all(math.isfinite(counts.iou_sum) for counts in self.matches):
            raise ValueError("it holds numbers that are not possible")


def predict(sample: Sample, model: Model, engine: Engine) -> tuple[Nuclei, NDArray[np.float32]]:
    """Nuclei of a sample and the probability of nucleus (H, W) on its own grid.

    A model that tells organs apart is told the sample's, where it knows it. Raises HemalumError without a scale.
    """
    mpp = sample.require_mpp()
    with Slide.of(sample.image, name=sample.id) as source:
        nuclei, maps = segment_with_maps(source, model_for_organ(model, sample.organ), engine, mpp=mpp)
    return nuclei, maps.probability


def measure(
    model: Model, dataset: Dataset, engine: Engine, on_progress: Callable[[int, int], None] | None = None,
    *, leave_out_ambiguous: bool = False, organs: Mapping[str, str | None] | None = None,
) -> Measurement:  # fmt: skip
    """Run a model on every image of a dataset. Raises HemalumError for an empty one.

    With `leave_out_ambiguous`, pixels that the annotators could not tell count nowhere. `organs` are those that the
    model is given by image id, in the place of the image's own (`assign_organs`).
    """
    if not len(dataset):
        raise HemalumError(f"{dataset.path}: no images to measure on")
    counts: list[ProbabilityCounts] = []
    matches: list[MatchCounts] = []
    for sample in dataset:
        seen = sample if organs is None else replace(sample, organ=organs[sample.id])
        nuclei, probability = predict(seen, model, engine)
        ambiguous = sample.left_out(ambiguous=leave_out_ambiguous)
        counts.append(count_probabilities(probability, sample.instances > 0, ambiguous))
        matches.append(match(measure_overlap(sample.instances, nuclei.label_map(), ambiguous=ambiguous)))
        if on_progress is not None:
            on_progress(len(matches), len(dataset))
    return Measurement(
        ids=tuple(row.id for row in dataset.rows),
        organs=tuple(row.organ for row in dataset.rows),
        groups=tuple(row.group for row in dataset.rows),
        positive=np.stack([one.positive for one in counts]),
        negative=np.stack([one.negative for one in counts]),
        matches=tuple(matches),
        threshold=model.card.separation.foreground,
    )


def threshold_of_recall(measurement: Measurement, recall: float) -> float:
    """The highest threshold at which the pooled recall of pixels is at least `recall`, a multiple of 1 / BINS.

    At most 0.999 and at least 0.001, where also a recall that cannot be reached ends.
    """
    positive = measurement.positive.sum(axis=0)
    detected = np.cumsum(positive[::-1])[::-1]  # by threshold k / BINS
    reached = np.flatnonzero(detected >= recall * positive.sum() - 1e-9)
    highest = int(reached[-1]) if reached.size else 0
    return min(max(highest, 1), BINS - 1) / BINS
