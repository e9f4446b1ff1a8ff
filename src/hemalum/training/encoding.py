"""Samples as a network takes them, and the target maps that it learns from."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hemalum.compiled import njit
from hemalum.data.augmentation.appearance import normalize
from hemalum.data.augmentation.warp import TrainingImage
from hemalum.data.sample import Sample
from hemalum.data.stain.normalization import StainNormalizer, sample_image
from hemalum.models.card import RANGES, Channels, InputRange
from hemalum.models.input import to_input
from hemalum.targets.extra_targets import EXTRA_TARGETS
from hemalum.targets.representations import Representation


def prepare_sample(
    sample: Sample,
    mpp: float,
    stain: StainNormalizer | None = None,
    class_map: NDArray[np.int32] | None = None,
    *,
    ambiguous: Literal["ignore", "count"] = "ignore",
) -> TrainingImage:
    """Bring a sample's image to `mpp`, and to the colors of `stain`; its labels keep their own resolution.

    `class_map` is that of `DataSpec.class_map`. With `ambiguous` "count", areas where the annotators could not tell
    are as they are labeled; what is not annotated is marked as such in any case. Raises HemalumError when the sample
    does not say its scale.
    """
    height, width = sample.instances.shape
    factor = sample.require_mpp() / mpp
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    resized = np.array(Image.fromarray(sample.image).resize(size, Image.Resampling.BILINEAR))
    # as in inference: measured on the image as it is, applied at the model's scale
    change = None if stain is None else stain.match(sample_image(sample.image), f"sample {sample.id}")
    classes = None
    if class_map is not None:
        ids = int(sample.instances.max()) + 1
        classes = np.full(ids, class_map[0]) if sample.classes is None else class_map[sample.classes]
        classes[0] = 0
    image = resized if change is None else change.apply(resized)
    return TrainingImage(image, sample.instances, classes, ambiguous=sample.left_out(ambiguous=ambiguous == "ignore"))


def mean_and_std(input_range: InputRange) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """What is taken off each channel in [0, 1], and what it is divided by."""
    mean, std = RANGES[input_range]
    return (mean, mean, mean), (std, std, std)


def normalize_images(
    images_BCHW: Tensor, channels: Channels = "RGB", input_range: InputRange = "standardized"
) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] as the network takes them, (B, 3 or 1, H, W), channels last.

    "standardized" is (x - 0.5) / 0.25 of every channel, "[0, 1]" leaves it as it is.
    """
    images = to_input(images_BCHW, channels)
    mean, std = mean_and_std(input_range)
    return normalize(images, mean[: images.shape[1]], std[: images.shape[1]])


def encode_targets(
    labels_BHW: NDArray[np.int32],
    representation: Representation,
    supersampling: int = 1,
    classes: Sequence[NDArray[np.int32] | None] | None = None,
) -> Tensor:
    """Target maps (B, C, H/s, W/s) float32 of a batch of label maps, averaged over s × s pixels of the labels.

    `classes` has for each label map the class of each nucleus by its id, where the representation has classes.
    """
    batch, height, width = labels_BHW.shape
    shape = batch, len(representation.channels), height // supersampling, width // supersampling
    targets = np.empty(shape, np.float32)
    for labels, out, classes_by_id in zip(labels_BHW, targets, classes or [None] * batch, strict=True):
        _average(representation.encode(labels, classes_by_id), supersampling, out)
    return torch.from_numpy(targets)


def encode_extra(labels_BHW: NDArray[np.int32], names: Sequence[str]) -> dict[str, Tensor]:
    """The further target maps (B, 1, H, W) float32 of a batch of label maps, by name."""
    return {
        name: torch.from_numpy(np.stack([EXTRA_TARGETS[name](labels) for labels in labels_BHW])[:, None])
        for name in names
    }


@njit(nogil=True)
def _average(maps: Any, supersampling: int, out: Any) -> None:
    if supersampling == 1:
        out[:] = maps
        return
    share = np.float32(1 / supersampling**2)
    for c in range(out.shape[0]):
        for i in range(out.shape[1]):
            row = out[c, i]
            row[:] = 0
            for v in range(i * supersampling, (i + 1) * supersampling):
                for u in range(supersampling):  # the innermost loop goes along the row: vector instructions
                    for j in range(row.shape[0]):
                        row[j] += maps[c, v, j * supersampling + u]
            row *= share
