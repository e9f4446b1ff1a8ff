"""Augmentation: one geometric warp shared by image and labels, then colour and blur on the image batch.

Every draw comes from a generator that the caller seeds per sample and epoch, so a stream of batches is a pure
function of (seed, epoch, position) and a resumed run sees what an uninterrupted one would have seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import kornia
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from hemalum.data.stain import draw_stain_jitter, jitter_stain

_KNOTS = 6  # of the elastic displacement, per side of the crop
_BYTE_DEVIATION = 73.9  # standard deviation of a uniform byte


class AugmentSettings(BaseModel):
    """Strengths; 0 (or False) switches a part off. The defaults are the shipped model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flips: bool = Field(True, description="mirror and right-angle rotations, each of the eight equally likely")
    rotation: float = Field(0.25, ge=0, le=1, description="share of samples turned by a free angle as well")
    scale: float = Field(1.25, ge=1, description="zoom between 1/scale and scale, log-uniform")
    elastic: float = Field(2.0, ge=0, description="amplitude of a smooth random displacement, px of the crop")
    stain: float = Field(0.3, ge=0, lt=1, description="stain jitter in optical-density space")
    brightness: float = Field(0.1, ge=0, lt=1)
    contrast: float = Field(0.2, ge=0, lt=1)
    saturation: float = Field(0.3, ge=0, lt=1)
    gamma: float = Field(0.2, ge=0, lt=1)
    grey: float = Field(0.03, ge=0, le=1, description="share of samples turned grey")
    blur: float = Field(1.2, ge=0, description="largest sigma of Gaussian blur, px; half the samples stay sharp")
    noise: float = Field(0.02, ge=0, description="largest standard deviation of pixel noise, of 1")


NO_AUGMENTATION = AugmentSettings(
    flips=False, rotation=0, scale=1, elastic=0, stain=0, brightness=0, contrast=0, saturation=0, gamma=0,
    grey=0, blur=0, noise=0,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A training image at the model's scale with its labels at their own: (H, W, 3) uint8, (H', W') int32.

    Both cover the same field. Labels keep their resolution so that cropping at another scale does not
    shift them by half a pixel.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]


def augment(
    samples: Sequence[Prepared], rngs: Sequence[np.random.Generator], size: int, settings: AugmentSettings
) -> tuple[Tensor, NDArray[np.int32]]:
    """Cut one augmented crop per sample: images (B, 3, size, size) float32 in [0, 1], labels (B, size, size)."""
    images, labels = [], []
    for sample, rng in zip(samples, rngs, strict=True):
        image, label = _warp(sample, _draw_grid(sample, rng, size, settings))
        images.append(image)
        labels.append(label)
    batch = _colour(torch.cat(images), rngs, settings)
    return batch, np.concatenate(labels)


def _draw_grid(sample: Prepared, rng: np.random.Generator, size: int, settings: AugmentSettings) -> Tensor:
    """Draw where each crop pixel lies in the sample: (1, size, size, 2) in [-1, 1] over the sample's field."""
    height, width = sample.image.shape[:2]
    zoom = math.exp(rng.uniform(-1, 1) * math.log(settings.scale))
    turn = rng.integers(4) * math.pi / 2 if settings.flips else 0.0
    mirror = -1.0 if settings.flips and rng.random() < 0.5 else 1.0
    if rng.random() < settings.rotation:
        turn += rng.uniform(-math.pi / 4, math.pi / 4)
    half = size / 2 / zoom
    centre = [rng.uniform(min(half, length / 2), max(length - half, length / 2)) for length in (width, height)]
    steps = (torch.arange(size, dtype=torch.float32) + 0.5 - size / 2) / zoom
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    if settings.elastic > 0:
        coarse = torch.from_numpy(rng.normal(0, settings.elastic / zoom, (2, _KNOTS, _KNOTS)).astype(np.float32))
        basis = _spline(size)
        shift = basis @ coarse @ basis.T
        x, y = x + shift[0], y + shift[1]
    cos, sin = math.cos(turn), math.sin(turn)
    across = centre[0] + mirror * (cos * x - sin * y)
    down = centre[1] + sin * x + cos * y
    return torch.stack([across * (2 / width) - 1, down * (2 / height) - 1], dim=-1)[None]


@cache
def _spline(size: int) -> Tensor:
    """Bicubic interpolation from `_KNOTS` values to `size`, as a matrix (size, _KNOTS)."""
    identity = torch.eye(_KNOTS)[:, None, None]
    rows = F.interpolate(identity, size=(1, size), mode="bicubic", align_corners=True)
    return rows[:, 0, 0].T.contiguous()


def _warp(sample: Prepared, grid: Tensor) -> tuple[Tensor, NDArray[np.int32]]:
    image = torch.from_numpy(sample.image).permute(2, 0, 1)[None].float().div_(255)
    labels = torch.from_numpy(sample.labels)[None, None].float()  # exact below 2^24 ids
    warped = F.grid_sample(image, grid, "bilinear", "reflection", align_corners=False)
    moved = F.grid_sample(labels, grid, "nearest", "reflection", align_corners=False)
    return warped, moved[0].numpy().astype(np.int32)


def _colour(batch: Tensor, rngs: Sequence[np.random.Generator], settings: AugmentSettings) -> Tensor:
    """Stain jitter, colour, blur and noise on (B, 3, H, W) in [0, 1]."""

    def draw(low: float, high: float) -> Tensor:
        return torch.tensor([rng.uniform(low, high) for rng in rngs], dtype=torch.float32)

    if settings.stain:
        drawn = [draw_stain_jitter(rng, settings.stain) for rng in rngs]
        matrix = torch.from_numpy(np.stack([m for m, _ in drawn]))
        batch = jitter_stain(batch, matrix, torch.from_numpy(np.stack([o for _, o in drawn])))
    if settings.saturation or settings.grey:
        keep = (draw(0, 1) >= settings.grey).float()
        factor = draw(1 - settings.saturation, 1 + settings.saturation) * keep
        batch = kornia.enhance.adjust_saturation_with_gray_subtraction(batch, factor)
    if settings.contrast:
        batch = kornia.enhance.adjust_contrast(batch, draw(1 - settings.contrast, 1 + settings.contrast))
    if settings.brightness:
        batch = kornia.enhance.adjust_brightness(batch, draw(-settings.brightness, settings.brightness))
    if settings.gamma:
        batch = kornia.enhance.adjust_gamma(batch, draw(1 - settings.gamma, 1 + settings.gamma))
    if settings.blur:
        sigma = draw(-settings.blur, settings.blur)
        blurred = sigma > 0.2  # a smaller sigma changes nothing
        if blurred.any():
            pair = sigma[blurred, None].expand(-1, 2)
            batch[blurred] = kornia.filters.gaussian_blur2d(batch[blurred], (7, 7), pair)
    if settings.noise:
        for image, rng in zip(batch, rngs, strict=True):
            # uniform, not Gaussian: drawn as bytes it costs a tenth, and the network cannot tell
            bytes_ = np.frombuffer(rng.bytes(image.numel()), np.uint8).astype(np.float32).reshape(image.shape)
            deviation = rng.uniform(0, settings.noise)
            image += torch.from_numpy((bytes_ - 127.5) * np.float32(deviation / _BYTE_DEVIATION))
    return batch.clamp_(0, 1)
