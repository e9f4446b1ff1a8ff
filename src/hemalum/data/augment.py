"""Augmentation of training crops: one geometric warp shared by image and labels, then how the image looks.

Every draw comes from a generator that the caller seeds per sample and epoch, so a stream of batches is a pure
function of (seed, epoch, position) and a resumed run sees what an uninterrupted one would have seen.
"""

import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hemalum.data.appearance import apply_appearance, draw_appearance
from hemalum.data.augment_settings import NO_AUGMENTATION, AugmentSettings
from hemalum.data.simulated_dab import stain_with_dab
from hemalum.data.stain import StainProfile
from hemalum.data.warp import Prepared, crop_of, inside_of, warp

__all__ = ["NO_AUGMENTATION", "AugmentSettings", "Prepared", "augment", "crop_of", "cut", "inside_of"]

_QUALITY = (30, 91)  # of JPEG, from and below


def augment(
    samples: Sequence[Prepared],
    rngs: Sequence[np.random.Generator],
    size: int,
    settings: AugmentSettings,
    *,
    finer: int = 1,
    donors: Sequence[StainProfile] = (),
) -> tuple[Tensor, NDArray[np.int32]]:
    """Cut one augmented crop per sample: images (B, 3, size, size) float32 in [0, 1], labels (B, n, n) int32.

    Labels come on a grid `finer` times as fine over the same field, n = size·finer. `donors` are the stains that
    `stain_mix` moves towards.
    """
    images, labels, drawn = cut(samples, rngs, size, settings, finer=finer, donors=donors)
    return apply_appearance(images, drawn), labels


def cut(
    samples: Sequence[Prepared],
    rngs: Sequence[np.random.Generator],
    size: int,
    settings: AugmentSettings,
    *,
    finer: int = 1,
    donors: Sequence[StainProfile] = (),
) -> tuple[Tensor, NDArray[np.int32], dict[str, Tensor]]:
    """The first half of `augment`: crops (B, 3, size, size) uint8, their labels, and how they are to look.

    `apply_appearance` does the other half, on any device.
    """
    images = np.empty((len(samples), size, size, 3), np.uint8)
    labels = np.empty((len(samples), size * finer, size * finer), np.int32)
    for sample, rng, image, label in zip(samples, rngs, images, labels, strict=True):
        warp(sample, rng, size, settings, finer, image, label)
        if settings.dab and rng.random() < settings.dab:
            image[:] = stain_with_dab(image, label[::finer, ::finer], rng)
        if settings.jpeg and rng.random() < settings.jpeg:
            image[:] = _compressed(image, int(rng.integers(*_QUALITY)))
    drawn = draw_appearance(rngs, size, settings, [sample.stains for sample in samples], donors)
    return torch.from_numpy(images).permute(0, 3, 1, 2), labels, drawn


def _compressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """The image after JPEG at `quality`, as scanners and viewers write it."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
