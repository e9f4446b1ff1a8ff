"""The warp against SciPy's interpolation at places worked out anew."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from hemalum.data.augmentation.settings import NO_AUGMENTATION, AugmentSettings
from hemalum.data.augmentation.warp import (
    TrainingImage,
    crop_of,
    draw_geometry,
    inside_of,
    warp_image,
    warp_labels,
    warp_valid,
)

FREE = NO_AUGMENTATION.model_copy(update={"flips": True, "rotation": 1.0, "scale": 1.5, "elastic": 3.0})
STRAIGHT = FREE.model_copy(update={"elastic": 0.0})


def photograph(height: int, width: int, seed: int = 0, magnified: tuple[int, int] = (2, 2)) -> TrainingImage:
    """An image of noise with labels of small blocks, so many times magnified down and across."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 9, (-(-height // 4), -(-width // 4))).astype(np.int32)
    down, across = magnified
    labels = blocks.repeat(4 * down, axis=0).repeat(4 * across, axis=1)[: down * height, : across * width]
    labels = np.ascontiguousarray(labels)
    return TrainingImage(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), labels)


def source_positions(affine: np.ndarray, shift: np.ndarray, size: int, supersampling: int = 1) -> np.ndarray:
    """Rows and columns (2, n, n), in px of the image, of the middles of a crop's pixels, n = size·magnified."""
    n = size * supersampling
    moved = (
        F.interpolate(torch.from_numpy(shift)[None], (n, n), mode="bicubic", align_corners=True)[0].double().numpy()
    )
    middles = (np.arange(n) + 0.5) / supersampling
    x, y = middles + moved[0], middles[:, None] + moved[1]
    ((a, b, c), (d, e, f)) = affine.astype(np.float64)
    return np.stack([d * x + e * y + f, a * x + b * y + c])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(48, 70), (30, 25)])  # the second is smaller than the crop: mirrored
def test_images_are_interpolated_as_scipy_does(shape: tuple[int, int], seed: int) -> None:
    sample, size = photograph(*shape), 40
    affine, shift = draw_geometry(sample, np.random.default_rng(seed), size, FREE)
    out = np.empty((size, size, 3), np.uint8)
    warp_image(sample, affine, shift, size, out)
    at = source_positions(affine, shift, size) - 0.5
    for channel in range(3):
        image = sample.image[:, :, channel].astype(float)
        expected = ndimage.map_coordinates(image, at, order=1, mode="reflect")  # SciPy's word for mirroring
        np.testing.assert_allclose(out[:, :, channel], expected, atol=0.51)


@pytest.mark.parametrize("supersampling", [1, 2])
@pytest.mark.parametrize("magnified", [(2, 2), (1, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_labels_are_the_nearest_ones(seed: int, magnified: tuple[int, int], supersampling: int) -> None:
    sample, size = photograph(30, 44, magnified=magnified), 40
    affine, shift = draw_geometry(sample, np.random.default_rng(seed), size, FREE)
    out = np.empty((size * supersampling, size * supersampling), np.int32)
    warp_labels(sample, affine, shift, size, supersampling, out)
    times = np.array(magnified)[:, None, None]
    at = np.floor(times * source_positions(affine, shift, size, supersampling)).astype(int)
    folded = [
        np.where(i % (2 * n) < n, i % (2 * n), 2 * n - 1 - i % (2 * n))
        for i, n in zip(at, sample.labels.shape, strict=True)
    ]
    assert (out != sample.labels[folded[0], folded[1]]).mean() < 0.002  # what rounding moves over a border


def test_zoom_turn_and_mirror_by_hand() -> None:
    """With every draw pinned: the columns of the map are what a step to the right and one down become."""

    class Pinned:
        def uniform(self, low: float, high: float) -> float:
            return high if high in (1, math.pi / 4) else (low + high) / 2

        def integers(self, _: int) -> int:
            return 1

        def random(self) -> float:
            return 0.0

        def normal(self, *arguments: object) -> np.ndarray:
            return np.zeros((2, 6, 6))

    settings = AugmentSettings(scale=2.0, rotation=1.0, elastic=0.0)
    affine, _ = draw_geometry(photograph(100, 100), Pinned(), 20, settings)  # type: ignore[arg-type]
    turn = 3 * math.pi / 4  # a right angle and half of one, mirrored, at zoom 2
    step = np.array([[-math.cos(turn), math.sin(turn)], [math.sin(turn), math.cos(turn)]]) / 2
    np.testing.assert_allclose(affine[:, :2], step, atol=1e-6)
    np.testing.assert_allclose(affine @ [10, 10, 1], [50, 50], atol=1e-4)  # the middle stays in the middle


@pytest.mark.parametrize("supersampling", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_what_counts_of_a_crop(seed: int, supersampling: int) -> None:
    """Against the position of each label: ambiguous, or beyond the image."""
    sample, size = photograph(30, 44), 40
    ambiguous = sample.labels == 3
    sample = replace(sample, ambiguous=ambiguous)
    affine, shift = draw_geometry(sample, np.random.default_rng(seed), size, FREE)
    magnified = np.array(sample.labels.shape) / sample.image.shape[:2]
    at = np.floor(magnified[:, None, None] * source_positions(affine, shift, size, supersampling)).astype(int)
    height, width = sample.labels.shape
    inside = (at[0] >= 0) & (at[0] < height) & (at[1] >= 0) & (at[1] < width)
    folded = [
        np.where(i % (2 * n) < n, i % (2 * n), 2 * n - 1 - i % (2 * n))
        for i, n in zip(at, sample.labels.shape, strict=True)
    ]
    known = ~ambiguous[folded[0], folded[1]]
    for beyond, labels in ((True, known), (False, known & inside)):
        expected = labels.reshape(size, supersampling, size, supersampling).all((1, 3))
        out = np.empty((size, size), np.float32)
        warp_valid(sample, affine, shift, size, supersampling, beyond, out)
        assert set(np.unique(out)) == {0, 1}
        assert (out != expected).mean() < 0.005  # what rounding moves over a border
        assert 0.1 < out.mean() < 0.99
    plain = np.empty((size, size), np.float32)
    warp_valid(replace(sample, ambiguous=None), affine, shift, size, supersampling, True, plain)
    assert plain.all()


@pytest.mark.parametrize("seed", range(6))
def test_inside_is_where_the_image_is(seed: int) -> None:
    sample, size = photograph(30, 44), 40
    inside = inside_of(sample, np.random.default_rng(seed), size, STRAIGHT)
    affine = crop_of(sample, np.random.default_rng(seed), size, STRAIGHT)
    expected = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            x, y = affine.astype(np.float64) @ [j + 0.5, i + 0.5, 1]
            expected[i, j] = 0 <= x < 44 and 0 <= y < 30
    assert (inside != expected).sum() <= 2  # rounding at the very border
    assert 0 < inside.mean() < 1
