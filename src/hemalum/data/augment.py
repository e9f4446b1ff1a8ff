"""Augmentation: one geometric warp shared by image and labels, then colour and blur on the image batch.

Every draw comes from a generator that the caller seeds per sample and epoch, so a stream of batches is a pure
function of (seed, epoch, position) and a resumed run sees what an uninterrupted one would have seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import kornia
import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from hemalum.data.stain import draw_stain_jitter, jitter_stain

Floats = NDArray[np.float32]

_KNOTS = 6  # of the elastic displacement, per side of the crop
_BYTE_DEVIATION = 73.9  # standard deviation of a uniform byte
_CLAHE_LIMIT, _CLAHE_TILES = 2.0, 8  # clip limit, and tiles along each side of a crop (Zuiderveld 1994)


class AugmentSettings(BaseModel):
    """Strengths; 0 (or False) switches a part off. The defaults are the shipped model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flips: bool = Field(True, description="mirror and right-angle rotations, each of the eight equally likely")
    rotation: float = Field(0.25, ge=0, le=1, description="share of samples turned by a free angle as well")
    scale: float = Field(1.25, ge=1, description="zoom between 1/scale and scale, log-uniform")
    elastic: float = Field(2.0, ge=0, description="amplitude of a smooth random displacement, px of the crop")
    stain: float = Field(0.3, ge=0, lt=1, description="stain jitter in optical-density space")
    brown: float = Field(0.0, ge=0, le=1, description="share of samples whose eosin is turned into DAB's brown")
    brightness: float = Field(0.1, ge=0, lt=1)
    contrast: float = Field(0.2, ge=0, lt=1)
    saturation: float = Field(0.3, ge=0, lt=1)
    gamma: float = Field(0.2, ge=0, lt=1)
    grey: float = Field(0.03, ge=0, le=1, description="share of samples turned grey")
    blur: float = Field(1.2, ge=0, description="largest sigma of Gaussian blur, px; half the samples stay sharp")
    noise: float = Field(0.02, ge=0, description="largest standard deviation of pixel noise, of 1")
    intensity: float = Field(0.0, ge=0, lt=1, description="all channels times 1 - intensity to 1 + intensity")
    clahe: float = Field(0.0, ge=0, le=1, description="share of samples with their local contrast equalised (CLAHE)")


NO_AUGMENTATION = AugmentSettings(
    flips=False, rotation=0, scale=1, elastic=0, stain=0, brightness=0, contrast=0, saturation=0, gamma=0,
    grey=0, blur=0, noise=0,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A training image at the model's scale with its labels at their own: (H, W, 3) uint8, (H', W') int32.

    Both cover the same field. Labels keep their resolution so that cropping at another scale does not
    shift them by half a pixel. `classes` (max id + 1,) is the class of each nucleus by its id.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    classes: NDArray[np.int32] | None = None


def augment(
    samples: Sequence[Prepared],
    rngs: Sequence[np.random.Generator],
    size: int,
    settings: AugmentSettings,
    *,
    finer: int = 1,
) -> tuple[Tensor, NDArray[np.int32]]:
    """Cut one augmented crop per sample: images (B, 3, size, size) float32 in [0, 1], labels (B, n, n) int32.

    Labels come on a grid `finer` times as fine over the same field, n = size·finer.
    """
    images = np.empty((len(samples), size, size, 3), np.float32)
    labels = np.empty((len(samples), size * finer, size * finer), np.int32)
    for index, (sample, rng) in enumerate(zip(samples, rngs, strict=True)):
        affine, shift = _draw_geometry(sample, rng, size, settings)
        _warp_image(sample.image, affine, shift, _spline(size), images[index])
        _warp_labels(
            sample.labels, _on_labels(sample, affine, finer), shift, _spline(size * finer), finer, labels[index]
        )
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return _colour(batch, rngs, settings), labels


def crop_of(sample: Prepared, rng: np.random.Generator, size: int, settings: AugmentSettings) -> Floats:
    """The affine map (2, 3) from crop px to image px of the crop that `augment` cuts with a generator as `rng` is.

    The elastic displacement, some px at most, is left out.
    """
    return _draw_geometry(sample, rng, size, settings)[0]


def inside_of(sample: Prepared, rng: np.random.Generator, size: int, settings: AugmentSettings) -> Floats:
    """1 where the crop that `augment` cuts with a generator as `rng` is lies within its image (size, size) float32.

    The elastic displacement, some px at most, is left out.
    """
    affine = crop_of(sample, rng, size, settings)
    centres = np.arange(size, dtype=np.float32) + np.float32(0.5)
    height, width = sample.image.shape[:2]
    x = affine[0, 0] * centres + affine[0, 1] * centres[:, None] + affine[0, 2]
    y = affine[1, 0] * centres + affine[1, 1] * centres[:, None] + affine[1, 2]
    within: Floats = ((x >= 0) & (x < width) & (y >= 0) & (y < height)).astype(np.float32)
    return within


def _draw_geometry(
    sample: Prepared, rng: np.random.Generator, size: int, settings: AugmentSettings
) -> tuple[Floats, Floats]:
    """Draw where the crop lies: an affine map (2, 3) from crop px to image px, and a displacement at knots.

    The displacement (2, _KNOTS, _KNOTS) is in crop px, x before y, and added before the affine map.
    """
    height, width = sample.image.shape[:2]
    zoom = math.exp(rng.uniform(-1, 1) * math.log(settings.scale))
    turn = rng.integers(4) * math.pi / 2 if settings.flips else 0.0
    mirror = -1.0 if settings.flips and rng.random() < 0.5 else 1.0
    if rng.random() < settings.rotation:
        turn += rng.uniform(-math.pi / 4, math.pi / 4)
    half = size / 2 / zoom
    centre = [rng.uniform(min(half, length / 2), max(length - half, length / 2)) for length in (width, height)]
    cos, sin = math.cos(turn) / zoom, math.sin(turn) / zoom
    across, down = (mirror * cos, -mirror * sin), (sin, cos)
    middle = size / 2
    affine = np.array(
        [
            [*across, centre[0] - middle * (across[0] + across[1])],
            [*down, centre[1] - middle * (down[0] + down[1])],
        ],
        np.float32,
    )
    shift = rng.normal(0, 1, (2, _KNOTS, _KNOTS)) * settings.elastic
    return affine, shift.astype(np.float32)


@cache
def _spline(size: int) -> Floats:
    """Bicubic interpolation from `_KNOTS` values to `size`, as a matrix (_KNOTS, size)."""
    identity = torch.eye(_KNOTS)[:, None, None]
    rows = F.interpolate(identity, size=(1, size), mode="bicubic", align_corners=True)
    return np.ascontiguousarray(rows[:, 0, 0].numpy())


def _on_labels(sample: Prepared, affine: Floats, finer: int) -> Floats:
    """The affine map from px of the labels' crop to px of the sample's labels, which have a scale of their own."""
    down, across = (a / b for a, b in zip(sample.labels.shape, sample.image.shape, strict=False))
    return affine * np.array([[across], [down]], np.float32) * np.array([1 / finer, 1 / finer, 1], np.float32)


# Row by row without intermediate grids: resampling by tensor operations took a tenth of a training step. Where the
# row's pixels come from is worked out in loops that compilers turn into vector instructions, mirroring only where
# the row leaves the source; unsigned indices spare a check for negative ones.
@njit(cache=True, nogil=True, fastmath=True)
def _warp_image(image: Any, affine: Any, shift: Any, basis: Any, out: Any) -> None:
    """Fill a crop (size, size, 3) float32 in [0, 1] bilinearly, mirrored at the border."""
    height, width = image.shape[:2]
    size = out.shape[1]
    half, one, scale = np.float32(0.5), np.float32(1), np.float32(1 / 255)
    u, v = np.empty(size, np.float32), np.empty(size, np.float32)
    x, y = np.empty((2, size), np.int32), np.empty((2, size), np.int32)
    for i in range(out.shape[0]):
        _locate(i, affine, shift, basis, one, u, v)
        for j in range(size):
            u[j] -= half
            v[j] -= half
            left, top = np.floor(u[j]), np.floor(v[j])
            u[j] -= left
            v[j] -= top
            x[0, j], y[0, j] = np.int32(left), np.int32(top)
            x[1, j], y[1, j] = x[0, j] + 1, y[0, j] + 1
        _mirror_row(x[0], width)
        _mirror_row(x[1], width)
        _mirror_row(y[0], height)
        _mirror_row(y[1], height)
        for j in range(size):
            x0, x1, y0, y1 = np.uint32(x[0, j]), np.uint32(x[1, j]), np.uint32(y[0, j]), np.uint32(y[1, j])
            for c in range(3):
                upper = image[y0, x0, c] * (one - u[j]) + image[y0, x1, c] * u[j]
                lower = image[y1, x0, c] * (one - u[j]) + image[y1, x1, c] * u[j]
                out[i, j, c] = scale * (upper + (lower - upper) * v[j])


@njit(cache=True, nogil=True, fastmath=True)
def _warp_labels(labels: Any, affine: Any, shift: Any, basis: Any, finer: int, out: Any) -> None:
    """Fill a crop (n, n) int32 with the nearest labels, mirrored at the border; `finer` scales the displacement."""
    height, width = labels.shape
    size = out.shape[1]
    u, v = np.empty(size, np.float32), np.empty(size, np.float32)
    x, y = np.empty(size, np.int32), np.empty(size, np.int32)
    for i in range(out.shape[0]):
        _locate(i, affine, shift, basis, np.float32(finer), u, v)
        for j in range(size):
            x[j], y[j] = np.int32(np.floor(u[j])), np.int32(np.floor(v[j]))
        _mirror_row(x, width)
        _mirror_row(y, height)
        for j in range(size):
            out[i, j] = labels[np.uint32(y[j]), np.uint32(x[j])]


@njit(cache=True, nogil=True, fastmath=True)
def _locate(i: int, affine: Any, shift: Any, basis: Any, times: Any, u: Any, v: Any) -> None:
    """Where the pixels of row i of the crop lie in the source: x and y in px, into u and v."""
    for j in range(u.shape[0]):
        u[j] = j + np.float32(0.5)
        v[j] = i + np.float32(0.5)
    for k in range(basis.shape[0]):
        shift_x, shift_y = np.float32(0), np.float32(0)
        for m in range(basis.shape[0]):
            shift_x += times * basis[m, i] * shift[0, m, k]
            shift_y += times * basis[m, i] * shift[1, m, k]
        for j in range(u.shape[0]):
            u[j] += basis[k, j] * shift_x
            v[j] += basis[k, j] * shift_y
    for j in range(u.shape[0]):
        across, down = u[j], v[j]
        u[j] = affine[0, 0] * across + affine[0, 1] * down + affine[0, 2]
        v[j] = affine[1, 0] * across + affine[1, 1] * down + affine[1, 2]


@njit(cache=True, nogil=True)
def _mirror_row(indices: Any, length: int) -> None:
    if indices.min() < 0 or indices.max() >= length:
        for j in range(indices.shape[0]):
            indices[j] = _mirror(indices[j], length)


@njit(cache=True, nogil=True, inline="always")
def _mirror(index: int, length: int) -> int:
    """Index mirrored at the borders, each border pixel twice."""
    if 0 <= index < length:
        return index
    index = index % (2 * length)
    return index if index < length else 2 * length - 1 - index


def _colour(batch: Tensor, rngs: Sequence[np.random.Generator], settings: AugmentSettings) -> Tensor:
    """Stain jitter, colour, blur and noise on (B, 3, H, W) in [0, 1]."""

    def draw(low: float, high: float) -> Tensor:
        return torch.tensor([rng.uniform(low, high) for rng in rngs], dtype=torch.float32)

    if settings.stain or settings.brown:
        drawn = [draw_stain_jitter(rng, settings.stain, settings.brown) for rng in rngs]
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
    if settings.intensity:
        batch = batch * draw(1 - settings.intensity, 1 + settings.intensity).view(-1, 1, 1, 1)
    if settings.clahe:
        chosen = draw(0, 1) < settings.clahe
        if chosen.any():
            batch[chosen] = equalise_locally(batch[chosen])
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


def equalise_locally(images_BCHW: Tensor) -> Tensor:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld 1994) of the luminance; colours keep their hue."""
    images = images_BCHW.clamp(0, 1)
    # each tile needs an even number of px
    tiles = max(1, min(_CLAHE_TILES, images.shape[2] // 2, images.shape[3] // 2))
    lab = kornia.color.rgb_to_lab(images)
    lightness = kornia.enhance.equalize_clahe(lab[:, :1] / 100, _CLAHE_LIMIT, (tiles, tiles)) * 100
    result: Tensor = kornia.color.lab_to_rgb(torch.cat([lightness, lab[:, 1:]], dim=1))
    return result
