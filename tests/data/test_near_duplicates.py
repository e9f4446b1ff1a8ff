"""Copies are found however they were turned or encoded; tiles that only look alike are not."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemalum.data.mosaic import edges_of, same_content


def scene(seed: int) -> np.ndarray:
    """(96, 128, 3) uint8: blobs of any brightness, nothing periodic."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((128, 96), Image.Resampling.BICUBIC))


def as_jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer))


def halved(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((64, 48), Image.Resampling.BOX))


@pytest.mark.parametrize(
    "changed",
    [as_jpeg, halved, np.fliplr, np.flipud, np.rot90, lambda image: np.rot90(np.fliplr(image), 3)],
    ids=["jpeg", "half size", "left-right", "upside down", "turned", "flipped and turned"],
)
def test_copies_are_found(changed: Callable[[np.ndarray], np.ndarray]) -> None:
    images = [scene(0), scene(1), np.ascontiguousarray(changed(scene(0))), scene(2)]
    assert list(same_content([edges_of(image) for image in images])) == [(0, 2)]


def test_blank_images_are_no_copies_of_each_other() -> None:
    blank = [np.full((40, 40, 3), value, np.uint8) for value in (250, 251)]
    assert list(same_content([edges_of(image) for image in blank])) == []
    assert list(same_content([])) == []


def test_nearly_blank_images_are_no_copies_of_each_other() -> None:
    nearly = np.full((40, 40, 3), 250, np.uint8)
    nearly[:, 20:] = 251  # half a gray level of spread
    assert list(same_content([edges_of(nearly), edges_of(nearly)])) == []
    nearly[:, 20:] = 254  # two gray levels are something to compare
    assert list(same_content([edges_of(nearly), edges_of(nearly)])) == [(0, 1)]


@pytest.mark.parametrize(("correlation", "pairs"), [(0.9, []), (0.95, []), (0.99, [(0, 1)])])
def test_copies_correlate(correlation: float, pairs: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(np.column_stack([np.ones(256), rng.normal(size=(256, 2))]))[0][:, 1:] * 16
    mixed = np.stack([basis[:, 0], basis @ [correlation, np.sqrt(1 - correlation**2)]])
    gray = np.clip(128 + 35 * mixed, 0, 255).round().astype(np.uint8).reshape(2, 16, 16, 1)
    assert np.corrcoef(gray.reshape(2, -1))[0, 1] == pytest.approx(correlation, abs=2e-3)
    assert list(same_content([edges_of(image) for image in gray.repeat(3, axis=3)])) == pairs


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = [edges_of(scene(number % 5)) for number in range(9)]
    pairs = sorted(same_content(edges))
    monkeypatch.setattr("hemalum.data.mosaic.BLOCK", 2)
    assert sorted(same_content(edges)) == pairs == [(0, 5), (1, 6), (2, 7), (3, 8)]


@pytest.mark.slow
def test_real_tiles_that_differ_stay_far_below_the_limit(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hemalum.data.mosaic.ALIKE", 0.9)
    for name, expected in (("tnbc", 0), ("nuinsseg_human", 0), ("consep_train", 0), ("dsb2018", 1)):
        files = sorted((real_data / name / "images").iterdir())
        edges = [edges_of(np.asarray(Image.open(file).convert("RGB"))) for file in files]
        assert len(list(same_content(edges))) == expected, name
