"""Resampling in bands equals resampling whole, and both equal Pillow's."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from hemalum.slides.resample import Resampler, triangle_weights

lengths = st.integers(1, 90)


@given(height=lengths, width=lengths, tall=lengths, wide=lengths, band=st.integers(1, 40), seed=st.integers(0, 99))
def test_bands_equal_the_whole(height: int, width: int, tall: int, wide: int, band: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    resampler = Resampler((height, width), (tall, wide))
    full = resampler.rows(image, 0, tall)
    parts = []
    for start in range(0, tall, band):
        stop = min(start + band, tall)
        first, last = resampler.needs(start, stop)
        parts.append(resampler.rows(image[first:last], start, stop))
    assert np.array_equal(np.concatenate(parts), full)


@pytest.mark.parametrize("size", [(128, 96), (64, 48), (100, 71), (300, 250), (256, 192), (1, 1)])
def test_equals_pillow_within_its_rounding(
    make_blobs: Callable[..., NDArray[np.uint8]], size: tuple[int, int]
) -> None:
    image = make_blobs(128, 96, seed=1)
    resampled = Resampler((128, 96), size).rows(image, 0, size[0])
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.abs(resampled.astype(int) - expected).max() <= 1


def test_equal_sizes_give_the_pixels_themselves(make_blobs: Callable[..., NDArray[np.uint8]]) -> None:
    image = make_blobs(30, 20, seed=0)
    assert Resampler((30, 20), (30, 20)).rows(image, 0, 30) is image


@pytest.mark.parametrize("value", [0, 1, 128, 254, 255])
@pytest.mark.parametrize("size", [(13, 7), (77, 41), (40, 40)])
def test_one_color_stays_that_color(value: int, size: tuple[int, int]) -> None:
    image = np.full((40, 40, 3), value, np.uint8)
    assert (Resampler((40, 40), size).rows(image, 0, size[0]) == value).all()


def test_halving_weighs_one_three_three_one() -> None:
    weights = triangle_weights(8, 4)
    assert weights.first[1] == 1
    assert weights.values[1, :4] * 8 == pytest.approx([1, 3, 3, 1])
