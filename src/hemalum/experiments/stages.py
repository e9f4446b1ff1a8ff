"""What a second stage changes: p1 and p2 of one trained network on the same images, nucleus by nucleus.

The paper of two-stage enhancement claims nuclei that the first stage overlooks. Dice of pixels cannot show them: a
few small nuclei are few pixels. So they are counted, and what is lost beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.experiments.evaluate import build_segmenter
from hemalum.experiments.plan import check_scales
from hemalum.experiments.segmenters import Segmentation, Segmenter
from hemalum.metrics import (
    Overlap,
    ProbabilityCounts,
    best_dice,
    count_pixels,
    count_probabilities,
    mean_defined,
    measure_overlap,
    score_pixels,
)
from hemalum.models.model import Model, load_model
from hemalum.models.stages import first_stage

MATCHED = 0.5  # IoU above which a predicted nucleus matches a true one

Labels = NDArray[np.integer[Any]]
Both = tuple[float, float]


@dataclass(frozen=True, slots=True)
class NucleiOfStages:
    """Nuclei of one image, or of several: true ones, those matched by each stage, and what lies between the two.

    A nucleus is found where a predicted one has an IoU above 0.5 with it. `newly_found` are missed by p1 and found by
    p2, `untouched` those of them on which p1 has no pixel, `lost` found by p1 and missed by p2. `false` are predicted
    nuclei that match none.
    """

    nuclei: int = 0
    found_p1: int = 0
    found_p2: int = 0
    newly_found: int = 0
    untouched: int = 0
    lost: int = 0
    false_p1: int = 0
    false_p2: int = 0

    def __add__(self, other: "NucleiOfStages") -> "NucleiOfStages":
        return NucleiOfStages(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True, slots=True)
class ImageOfStages:
    """One image under both stages: its nuclei, and Dice of its pixels."""

    id: str
    nuclei: NucleiOfStages
    dice: Both


@dataclass(frozen=True, slots=True, eq=False)
class StageComparison:
    """Both stages of one model on a part of a dataset.

    `pixels` are the counts of both stages by probability, over all images.
    """

    model: str
    images: tuple[ImageOfStages, ...]
    pixels: tuple[ProbabilityCounts, ProbabilityCounts]

    @property
    def nuclei(self) -> NucleiOfStages:
        """Over all images."""
        return sum((image.nuclei for image in self.images), NucleiOfStages())

    @property
    def dice(self) -> Both:
        """Mean of p1 and of p2 over the images that have a nucleus in truth or prediction."""
        first, second = (mean_defined([image.dice[stage] for image in self.images]) for stage in (0, 1))
        return first, second

    @property
    def best_dice(self) -> Both:
        """Pooled, each at its own best threshold: what is left of a difference that no threshold makes."""
        first, second = (best_dice(counts)[0] for counts in self.pixels)
        return first, second


@dataclass(frozen=True, eq=False)
class Stages:
    """A two-stage model with what segments a sample by each of its stages."""

    name: str
    segmenters: tuple[Segmenter, Segmenter]

    def __call__(self, sample: Sample) -> tuple[Segmentation, Segmentation]:
        """The sample by p1 and by p2."""
        first, second = (Segmentation.of(segmenter(sample)) for segmenter in self.segmenters)
        return first, second


def open_stages(
    model: Path | str | Model, dataset: Dataset, *, engine: str = "auto", threads: int | None = None
) -> Stages:
    """Open both stages of a model for the images of a dataset. Raises HemalumError for a model of one stage."""
    both = load_model(model)
    organs = [row.organ for row in dataset.rows]
    first, second = (
        build_segmenter(
            one, data=dataset.info.name, classes=dataset.class_names, organs=organs, engine=engine, threads=threads,
            name=one.card.name, probabilities=True,
        ).segmenter
        for one in (first_stage(both), both)
    )  # fmt: skip
    name = both.path.stem if both.path is not None and both.path.stem != "model" else both.card.name
    return Stages(name, (first, second))


def compare_stages(
    model: Path | str | Model,
    dataset: Dataset | Path | str,
    *,
    split: str = "test",
    engine: str = "auto",
    threads: int | None = None,
) -> StageComparison:
    """Compare p1 and p2 of a two-stage model on the part `split` of a dataset ("all": the whole).

    Raises HemalumError for a model of one stage, a part without images, and images without a scale.
    """
    part = open_part(dataset, split)
    stages = open_stages(model, part, engine=engine, threads=threads)
    images, pixels = [], [ProbabilityCounts.none(), ProbabilityCounts.none()]
    for sample in part:
        both = stages(sample)
        images.append(_compare(sample, *(one.labels for one in both)))
        for stage, one in enumerate(both):
            if one.probability is not None:
                pixels[stage] += count_probabilities(one.probability, sample.instances > 0)
    return StageComparison(stages.name, tuple(images), (pixels[0], pixels[1]))


def open_part(dataset: Dataset | Path | str, split: str) -> Dataset:
    """A part of a dataset whose images have a scale. Raises HemalumError for none, or an empty one."""
    opened = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    part = opened if split == "all" else opened.split(split)
    if not len(part):
        raise HemalumError(f"{opened.path}: no images in part '{split}': name another with --split")
    check_scales(part)
    return part


def _compare(sample: Sample, first: Labels, second: Labels) -> ImageOfStages:
    truth = sample.instances
    nuclei = compare_nuclei(truth, first, second)
    dice = [score_pixels(count_pixels(truth, labels)).dice for labels in (first, second)]
    return ImageOfStages(sample.id, nuclei, (dice[0], dice[1]))


def compare_nuclei(truth: NDArray[np.int32], first: Labels, second: Labels) -> NucleiOfStages:
    """Count the true nuclei of one image by which of two label maps (H, W) finds them."""
    overlaps = [measure_overlap(truth, labels) for labels in (first, second)]
    found_p1, found_p2 = map(_matched, overlaps)
    touched = np.zeros(overlaps[0].n_truth, np.bool_)
    touched[overlaps[0].pair_truth] = True
    newly = ~found_p1 & found_p2
    return NucleiOfStages(
        nuclei=overlaps[0].n_truth,
        found_p1=int(found_p1.sum()),
        found_p2=int(found_p2.sum()),
        newly_found=int(newly.sum()),
        untouched=int((newly & ~touched).sum()),
        lost=int((found_p1 & ~found_p2).sum()),
        false_p1=overlaps[0].n_prediction - int(found_p1.sum()),
        false_p2=overlaps[1].n_prediction - int(found_p2.sum()),
    )


def _matched(overlap: Overlap) -> NDArray[np.bool_]:
    """Which of the true nuclei a predicted one matches, in the overlap's order of them: that of the truth alone."""
    matched = np.zeros(overlap.n_truth, np.bool_)
    matched[overlap.pair_truth[overlap.iou > MATCHED]] = True
    return matched


STAGE_COLUMNS = (
    "model", "nuclei", "found by p1", "by p2", "newly found", "no pixel in p1", "lost", "false p1", "false p2",
    "Dice p1", "Dice p2", "at best threshold p1", "p2",
)  # fmt: skip


def stages_table(comparisons: Sequence[StageComparison]) -> tuple[list[str], list[list[str]]]:
    """A row for each model: nuclei over all images, mean Dice of images, pooled Dice at the best threshold."""
    rows = []
    for one in comparisons:
        counts = [str(getattr(one.nuclei, field.name)) for field in fields(NucleiOfStages)]
        rows.append([one.model, *counts, *(f"{value:.3f}" for value in (*one.dice, *one.best_dice))])
    return list(STAGE_COLUMNS), rows
