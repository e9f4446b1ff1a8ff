"""Augmented training crops: one geometric warp shared by image and labels, then how the image looks.

Every draw comes from a generator that the caller seeds per sample and epoch, so a stream of batches is a pure
function of (seed, epoch, position) and a resumed run sees what an uninterrupted one would have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hemalum.data.augmentation.appearance import apply_appearance, draw_appearance
from hemalum.data.augmentation.settings import AugmentSettings
from hemalum.data.augmentation.warp import TrainingImage, crop_of, draw_geometry, warp_image, warp_labels, warp_valid
from hemalum.data.stain.jitter import StainProfile

_PROBES = 16  # points along a side of a crop, by which is measured how much of it lies inside its image


def augment(
    samples: Sequence[TrainingImage],
    rngs: Sequence[np.random.Generator],
    size: int,
    settings: AugmentSettings,
    *,
    supersampling: int = 1,
    donors: Sequence[StainProfile] = (),
) -> tuple[Tensor, NDArray[np.int32]]:
    """Cut one augmented crop per sample: images (B, 3, size, size) float32 in [0, 1], labels (B, n, n) int32.

    Labels come on a grid `supersampling` times as fine over the same field, n = size·supersampling. `donors` are the
    stains that `stain_mix` moves towards.
    """
    crops = cut(samples, rngs, size, settings, supersampling=supersampling, donors=donors)
    return apply_appearance(crops.images, crops.drawn), crops.labels


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """The first half of `augment`: crops before they look as they are to.

    `images` (B, 3, size, size) uint8, none of them where they are cut elsewhere (`ImageBank`), by `affine` (B, 2, 3)
    and `shift` (B, 2, K, K); `labels` (B, n, n) int32; `drawn` is for `apply_appearance`.
    """

    images: Tensor
    labels: NDArray[np.int32]
    drawn: dict[str, Tensor]
    affine: Tensor
    shift: Tensor


def cut(
    samples: Sequence[TrainingImage],
    rngs: Sequence[np.random.Generator],
    size: int,
    settings: AugmentSettings,
    *,
    supersampling: int = 1,
    donors: Sequence[StainProfile] = (),
    images: bool = True,
) -> Crops:
    """Cut labels, and `images` unless that is done elsewhere, and draw how the crops are to look."""
    pixels = np.empty((len(samples) if images else 0, size, size, 3), np.uint8)
    labels = np.empty((len(samples), size * supersampling, size * supersampling), np.int32)
    geometry = []
    for index, (sample, rng) in enumerate(zip(samples, rngs, strict=True)):
        affine, shift = draw_geometry(sample, rng, size, settings)
        geometry.append((affine, shift))
        if images:
            warp_image(sample, affine, shift, size, pixels[index])
        warp_labels(sample, affine, shift, size, supersampling, labels[index])
    profiles = [sample.stains for sample in samples]
    drawn = draw_appearance(
        rngs, size, settings, profiles, donors, labels[:, ::supersampling, ::supersampling], noise=images
    )  # fmt: skip
    return Crops(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        labels,
        drawn,
        torch.from_numpy(np.stack([affine for affine, _ in geometry])),
        torch.from_numpy(np.stack([shift for _, shift in geometry])),
    )


def cut_valid(
    samples: Sequence[TrainingImage], crops: Crops, size: int, supersampling: int = 1, *, beyond: bool = True
) -> Tensor:
    """Where crops count (B, 1, size, size) float32: 0 on ambiguous areas, and where they lie beyond their images.

    With `beyond`, these count as well.
    """
    valid = np.empty((len(samples), 1, size, size), np.float32)
    for sample, affine, shift, out in zip(samples, crops.affine.numpy(), crops.shift.numpy(), valid, strict=True):
        warp_valid(sample, affine, shift, size, supersampling, beyond, out[0])
    return torch.from_numpy(valid)


def measure_inside(
    samples: Sequence[TrainingImage],
    size: int,
    settings: AugmentSettings,
    probability: NDArray[np.float64] | None = None,
    draws: int = 500,
) -> float:
    """The share of an average crop of `size` px that lies inside its image, and is not mirrored: of `draws` crops.

    `probability` is how likely each sample is drawn; None: all alike. The elastic displacement is left out.
    """
    chosen = np.random.default_rng(0).choice(len(samples), draws, p=probability)
    grid = (np.arange(_PROBES) + 0.5) * size / _PROBES
    across, down = np.meshgrid(grid, grid)
    shares = []
    for number, index in enumerate(chosen):
        affine = crop_of(samples[index], np.random.default_rng([0, number]), size, settings)
        height, width = samples[index].image.shape[:2]
        x, y = (row[0] * across + row[1] * down + row[2] for row in affine)
        shares.append(((x >= 0) & (x < width) & (y >= 0) & (y < height)).mean())
    return float(np.mean(shares))
