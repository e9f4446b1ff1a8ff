"""The target of a recipe's stain normalization, fitted on what the recipe names."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hemalum.data.dataset import Dataset, pixel_hash
from hemalum.data.image import read_image
from hemalum.data.stain.normalization import (
    StainNormalization,
    UnfitImage,
    measure_stain,
    median_stain,
    sample_image,
)
from hemalum.data.stain.statistics import StainStatistics, StainTarget
from hemalum.errors import HemalumError, nearest

log = logging.getLogger(__name__)

POOLED_IMAGES = 256  # spread evenly over the training images


def fit_stain_target(
    settings: StainNormalization, datasets: Mapping[str, Dataset], *, images: int = POOLED_IMAGES
) -> StainTarget:
    """Fit the target that `settings` names; `datasets` are open and whole, by the recipe's names.

    "train" is the median of the statistics of each training image (of at most `images`), without those that the
    method can say nothing about: one slide with ink on it moves nothing. Else the target is the id of a training
    image, as ID or DATASET/ID, or an image file.

    Raises HemalumError when there is no such image, it is not in the training part, or it is unfit as a target.
    """
    if settings.target == "train":
        statistics, origin = _pool(settings, datasets, images)
        return StainTarget(**statistics.model_dump(), origin=origin, unfit=settings.unfit)
    path, origin = _find(settings.target, datasets)
    image = read_image(path)
    try:
        statistics = measure_stain(sample_image(image), settings.method)
    except UnfitImage as error:
        raise HemalumError(
            f"stain_normalization: target '{settings.target}' is unfit for {settings.method}, {error}; choose another"
        ) from error
    origin = f"{origin}, sha256 {pixel_hash(image)[:16]}"
    return StainTarget(**statistics.model_dump(), origin=origin, unfit=settings.unfit)


def _pool(settings: StainNormalization, datasets: Mapping[str, Dataset], images: int) -> tuple[StainStatistics, str]:
    parts = [dataset.split("train") for dataset in datasets.values()]
    paths = [part.path / row.image for part in parts for row in part.rows]
    if not paths:
        raise HemalumError("stain_normalization: no training images to pool; the datasets' train parts are empty")
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(images, len(paths))).astype(int))
    statistics: list[StainStatistics] = []
    first = ""
    for index in chosen:
        try:
            statistics.append(measure_stain(sample_image(read_image(paths[index])), settings.method))
        except UnfitImage as error:
            first = first or f"{paths[index]}, {error}"
    if not statistics:
        raise HemalumError(f"stain_normalization: no training image is fit for {settings.method}: {first}")
    left_out = len(chosen) - len(statistics)
    if left_out:
        log.info("%d of %d images are not in the stain target: %s …", left_out, len(chosen), first)
    return median_stain(statistics), f"the median of {len(statistics)} training images of {', '.join(datasets)}"


def _find(target: str, datasets: Mapping[str, Dataset]) -> tuple[Path, str]:
    """The image file that `target` names, and what it is in words."""
    matches = {
        f"{name}/{row.id}": (dataset.path / row.image, row.split)
        for name, dataset in datasets.items()
        for row in dataset.rows
        if target in (row.id, f"{name}/{row.id}")
    }
    if len(matches) > 1:
        raise HemalumError(f"stain_normalization: target '{target}' is one of {', '.join(matches)}: say which")
    for name, (path, part) in matches.items():
        if part != "train":
            raise HemalumError(
                f"stain_normalization: target '{target}' is in the {part} part; choose a training image"
            )
        return path, f"training image {name}"
    if Path(target).is_file():
        return Path(target), f"image {Path(target).name}"
    known = [row.id for dataset in datasets.values() for row in dataset.rows if row.split == "train"]
    raise HemalumError(
        f"stain_normalization: target '{target}' is neither \"train\" nor the id of a training image nor an image "
        f"file{nearest(target, known)}"
    )
