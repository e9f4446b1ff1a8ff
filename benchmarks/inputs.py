"""What benchmarks run on: images that stand for a set, images at a model's scale, models with other cards."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.sample import Sample
from hemalum.models.card import Card
from hemalum.models.model import Model
from hemalum.slides.resample import Resampler


def choose_evenly(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` indices below `count`, spread evenly from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).astype(np.int64))


def read_pair(folder: Path, row: Mapping[str, str]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Image and label map of a row of index.csv: in images/ and labels/, or from the top in a dataset folder."""
    image, labels = (
        folder / name if "/" in name else folder / kind / name
        for kind, name in (("images", row["image"]), ("labels", row["label"]))
    )
    return np.asarray(Image.open(image).convert("RGB")), np.asarray(Image.open(labels)).astype(np.int32)


def resize_labels(labels: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """The label map (H, W) at another size, each pixel by the center that is nearest."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(shape, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns[None, :]]


def scaled_image(sample: Sample, card: Card) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The image at the model's scale, mirrored below and right up to whole strides; and its size before that."""
    height, width = (max(1, round(length * sample.require_mpp() / card.mpp)) for length in sample.instances.shape)
    image = Resampler(sample.instances.shape, (height, width)).rows(sample.image, 0, height)
    padding = ((0, -height % card.stride), (0, -width % card.stride), (0, 0))
    return np.pad(image, padding, mode="symmetric"), (height, width)


def change_card(model: Model, **changes: Any) -> Model:
    """The model with some values of its card changed."""
    return replace(model, card=model.card.model_copy(update=changes))


def change_separation(model: Model, **changes: Any) -> Model:
    """The model with some of its separation settings changed."""
    return change_card(model, separation=model.card.separation.model_copy(update=changes))
