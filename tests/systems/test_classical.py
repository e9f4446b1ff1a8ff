"""The classical floor: what it finds, in µm, on light and dark grounds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.color import hed2rgb

from hemalum.errors import HemalumError
from hemalum.metrics import count_pixels, match, measure_overlap, score_pixels
from hemalum.systems.classical import is_fluorescence, segment_classical

Labels = NDArray[np.int32]
Image8 = NDArray[np.uint8]

CENTERS = [(30, 30), (30, 58), (80, 40), (95, 100), (40, 110), (120, 20)]
RADIUS = 12  # px, so 3 µm at 0.25 µm/px


def discs(radius: int = RADIUS, shape: tuple[int, int] = (140, 140)) -> Labels:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for name, (y, x) in enumerate(CENTERS, start=1):
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = name
    return labels


def stained(labels: Labels, seed: int = 0) -> Image8:
    """Hematoxylin in the nuclei, eosin everywhere, some noise."""
    rng = np.random.default_rng(seed)
    hed = np.zeros((*labels.shape, 3))
    hed[..., 0] = np.where(labels > 0, 0.12, 0.01) + rng.normal(0, 0.005, labels.shape)
    hed[..., 1] = 0.05
    return np.round(np.clip(hed2rgb(hed), 0, 1) * 255).astype(np.uint8)


def gray(values: NDArray[Any]) -> Image8:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def finds_all(labels: Labels, prediction: Labels) -> bool:
    counts = match(measure_overlap(labels, prediction))
    return (counts.tp, counts.fp, counts.fn) == (len(CENTERS), 0, 0) and counts.sq > 0.85


@pytest.mark.parametrize("mpp", [0.25, None])
def test_finds_nuclei_in_hematoxylin_not_in_eosin(mpp: float | None) -> None:
    labels = discs()
    image = stained(labels)
    assert not is_fluorescence(image)
    assert finds_all(labels, segment_classical(image, mpp))


def test_finds_bright_nuclei_on_black_and_dark_ones_on_white() -> None:
    labels = discs()
    black, white = gray(np.where(labels > 0, 120, 8)), gray(np.where(labels > 0, 90, 240))
    assert is_fluorescence(black)
    assert not is_fluorescence(white)
    assert finds_all(labels, segment_classical(black, 0.25))
    assert finds_all(labels, segment_classical(white, 0.25))


def test_touching_nuclei_are_split() -> None:
    labels = discs(radius=15)  # the first two centers are 28 px apart
    assert np.any((labels[:, :-1] == 1) & (labels[:, 1:] == 2))
    assert finds_all(labels, segment_classical(stained(labels), 0.25))


def test_sizes_are_in_microns() -> None:
    labels = discs(radius=4)
    image = stained(labels)
    assert segment_classical(image, 0.5).max() == len(CENTERS)  # 4 µm across
    assert segment_classical(image, 0.25).max() == 0  # 2 µm across: specks


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (5, 40)])
@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("mpp", [0.5, None])
def test_blank_images_have_no_nuclei(shape: tuple[int, int], value: int, mpp: float | None) -> None:
    labels = segment_classical(np.full((*shape, 3), value, np.uint8), mpp)
    assert labels.shape == shape
    assert labels.dtype == np.int32
    assert not labels.any()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("image", "mpp", "message"),
    [
        (np.zeros((4, 4), np.uint8), 0.5, "uint8"),
        (np.zeros((4, 4, 3), np.float32), 0.5, "float32"),
        (np.zeros((4, 4, 3), np.uint8), 0.0, "mpp"),
    ],
)
def test_what_does_not_fit_is_refused(image: NDArray[Any], mpp: float, message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        segment_classical(image, mpp)


def test_real_tissue_is_well_above_chance(real_data: Path) -> None:
    image = np.asarray(Image.open(real_data / "tnbc" / "images" / "05_2.png").convert("RGB"))
    labels = np.asarray(Image.open(real_data / "tnbc" / "labels" / "05_2.png")).astype(np.int32)
    prediction = segment_classical(image, 0.25)
    everything = np.ones_like(labels)
    assert score_pixels(count_pixels(labels, prediction)).dice > 0.6
    assert score_pixels(count_pixels(labels, everything)).dice < 0.5
