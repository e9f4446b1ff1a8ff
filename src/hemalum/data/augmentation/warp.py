"""The geometric part of augmentation: one smooth warp shared by an image and its labels."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from hemalum.compiled import njit
from hemalum.data.augmentation.settings import AugmentSettings
from hemalum.data.stain.jitter import StainProfile

Floats = NDArray[np.float32]

_KNOTS = 6  # of the elastic displacement, per side of the crop


@dataclass(frozen=True, slots=True, eq=False)
class TrainingImage:
    """A training image at the model's scale with its labels at their own: (H, W, 3) uint8, (H', W') int32.

    Both cover the same field. Labels keep their resolution so that cropping at another scale does not
    shift them by half a pixel. `classes` (max id + 1,) is the class of each nucleus by its id. `stains`
    are what the image is stained with, where that was measured. `ambiguous` (H', W') bool is where the
    annotators could not tell. Without `truth` the labels say nothing: it has none.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    classes: NDArray[np.int32] | None = None
    stains: StainProfile | None = None
    ambiguous: NDArray[np.bool_] | None = None
    truth: bool = True


def warp_image(sample: TrainingImage, affine: Floats, shift: Floats, size: int, out: NDArray[np.uint8]) -> None:
    """Fill a crop (size, size, 3) of the sample's image, in place; see `draw_geometry`."""
    _warp_image(sample.image, affine, shift, spline(size), out)


def warp_labels(
    sample: TrainingImage, affine: Floats, shift: Floats, size: int, supersampling: int, out: NDArray[np.int32]
) -> None:
    """Fill the labels (n, n) of a crop, n = size·supersampling, in place."""
    affine = _to_labels(sample, affine, supersampling)
    _warp_labels(sample.labels, affine, shift, spline(size * supersampling), supersampling, out)


def warp_valid(
    sample: TrainingImage, affine: Floats, shift: Floats, size: int, supersampling: int, beyond: bool, out: Floats
) -> None:
    """Fill a crop (size, size) in place with 1, and 0 where one of a pixel's labels is ambiguous.

    With `beyond` a pixel counts that lies beyond the image, where the crop is mirrored; without, it is 0 as well.
    """
    ambiguous = np.zeros(sample.labels.shape, np.bool_) if sample.ambiguous is None else sample.ambiguous
    affine = _to_labels(sample, affine, supersampling)
    _warp_valid(ambiguous, affine, shift, spline(size * supersampling), supersampling, beyond, out)


def _to_labels(sample: TrainingImage, affine: Floats, supersampling: int) -> Floats:
    """The affine map from px of the crop's labels to px of the sample's, which have a scale of their own."""
    down, across = (a / b for a, b in zip(sample.labels.shape, sample.image.shape, strict=False))
    source = np.array([[across], [down]], np.float32)
    crop = np.array([1 / supersampling, 1 / supersampling, 1], np.float32)
    return affine * source * crop


def crop_of(sample: TrainingImage, rng: np.random.Generator, size: int, settings: AugmentSettings) -> Floats:
    """The affine map (2, 3) from crop px to image px of the crop that `warp` cuts with a generator as `rng` is.

    The elastic displacement, some px at most, is left out.
    """
    return draw_geometry(sample, rng, size, settings)[0]


def inside_of(sample: TrainingImage, rng: np.random.Generator, size: int, settings: AugmentSettings) -> Floats:
    """1 where the crop that `warp` cuts with a generator as `rng` is lies within its image (size, size) float32.

    The elastic displacement, some px at most, is left out.
    """
    affine = crop_of(sample, rng, size, settings)
    centers = np.arange(size, dtype=np.float32) + np.float32(0.5)
    height, width = sample.image.shape[:2]
    x = affine[0, 0] * centers + affine[0, 1] * centers[:, None] + affine[0, 2]
    y = affine[1, 0] * centers + affine[1, 1] * centers[:, None] + affine[1, 2]
    within: Floats = ((x >= 0) & (x < width) & (y >= 0) & (y < height)).astype(np.float32)
    return within


def draw_geometry(
    sample: TrainingImage, rng: np.random.Generator, size: int, settings: AugmentSettings
) -> tuple[Floats, Floats]:
    """Draw where the crop lies: an affine map (2, 3) from crop px to image px, and a displacement at knots.

    The displacement (2, _KNOTS, _KNOTS) is in crop px, x before y, and added before the affine map.
    """
    height, width = sample.image.shape[:2]
    zoom = math.exp(rng.uniform(-1, 1) * math.log(settings.scale))
    turn = rng.integers(4) * math.pi / 2 if settings.flips is True else 0.0
    mirror = -1.0 if settings.flips and rng.random() < 0.5 else 1.0
    if rng.random() < settings.rotation:
        turn += rng.uniform(-math.pi / 4, math.pi / 4)
    half = size / 2 / zoom
    center = [rng.uniform(min(half, length / 2), max(length - half, length / 2)) for length in (width, height)]
    cos, sin = math.cos(turn) / zoom, math.sin(turn) / zoom
    across, down = (mirror * cos, -mirror * sin), (sin, cos)
    middle = size / 2
    affine = np.array(
        [
            [*across, center[0] - middle * (across[0] + across[1])],
            [*down, center[1] - middle * (down[0] + down[1])],
        ],
        np.float32,
    )
    shift = rng.normal(0, 1, (2, _KNOTS, _KNOTS)) * settings.elastic
    return affine, shift.astype(np.float32)


@cache
def spline(size: int) -> Floats:
    """Bicubic interpolation from `_KNOTS` values to `size`, as a matrix (_KNOTS, size)."""
    identity = torch.eye(_KNOTS)[:, None, None]
    rows = F.interpolate(identity, size=(1, size), mode="bicubic", align_corners=True)
    return np.ascontiguousarray(rows[:, 0, 0].numpy())


# Row by row without intermediate grids: resampling by tensor operations took a tenth of a training step. Where the
# row's pixels come from is worked out in loops that compilers turn into vector instructions, mirroring only where
# the row leaves the source; unsigned indices spare a check for negative ones.
@njit(nogil=True, fastmath=True)
def _warp_image(image: Any, affine: Any, shift: Any, basis: Any, out: Any) -> None:
    """Fill a crop (size, size, 3) uint8 bilinearly, mirrored at the border."""
    height, width = image.shape[:2]
    size = out.shape[1]
    half, one = np.float32(0.5), np.float32(1)
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
                out[i, j, c] = np.uint8(upper + (lower - upper) * v[j] + half)


@njit(nogil=True, fastmath=True)
def _warp_labels(labels: Any, affine: Any, shift: Any, basis: Any, supersampling: int, out: Any) -> None:
    """Fill a crop (n, n) int32 with the nearest labels, mirrored at the border, `supersampling` times as shifted."""
    height, width = labels.shape
    size = out.shape[1]
    u, v = np.empty(size, np.float32), np.empty(size, np.float32)
    x, y = np.empty(size, np.int32), np.empty(size, np.int32)
    for i in range(out.shape[0]):
        _locate(i, affine, shift, basis, np.float32(supersampling), u, v)
        for j in range(size):
            x[j], y[j] = np.int32(np.floor(u[j])), np.int32(np.floor(v[j]))
        _mirror_row(x, width)
        _mirror_row(y, height)
        for j in range(size):
            out[i, j] = labels[np.uint32(y[j]), np.uint32(x[j])]


@njit(nogil=True, fastmath=True)
def _warp_valid(
    ambiguous: Any, affine: Any, shift: Any, basis: Any, supersampling: int, beyond: bool, out: Any
) -> None:
    """Fill a crop (size, size) float32 with 1, or 0 where a label under it does not count."""
    height, width = ambiguous.shape
    size = basis.shape[1]
    u, v = np.empty(size, np.float32), np.empty(size, np.float32)
    out[:] = 1
    for i in range(size):
        _locate(i, affine, shift, basis, np.float32(supersampling), u, v)
        for j in range(size):
            x, y = int(np.floor(u[j])), int(np.floor(v[j]))
            inside = 0 <= x < width and 0 <= y < height
            if not (inside or beyond) or ambiguous[_mirror(y, height), _mirror(x, width)]:
                out[i // supersampling, j // supersampling] = 0


@njit(nogil=True, fastmath=True)
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


@njit(nogil=True)
def _mirror_row(indices: Any, length: int) -> None:
    if indices.min() < 0 or indices.max() >= length:
        for j in range(indices.shape[0]):
            indices[j] = _mirror(indices[j], length)


@njit(nogil=True, inline="always")
def _mirror(index: int, length: int) -> int:
    """Index mirrored at the borders, each border pixel twice."""
    if 0 <= index < length:
        return index
    index = index % (2 * length)
    return index if index < length else 2 * length - 1 - index
