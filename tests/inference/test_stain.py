"""Stain normalization where a model is used: the network sees other colors, the result is of the image's own."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from builders.grids import cut_smaller
from builders.stains import normalize_stain
from hemalum.data.stain.normalization import measure_stain, sample_image
from hemalum.data.stain.statistics import StainTarget
from hemalum.errors import HemalumError
from hemalum.inference.scale import estimate_mpp
from hemalum.inference.segment import segment
from hemalum.inference.staining import find_stain
from hemalum.slides.slide import Slide

METHODS = ("macenko", "reinhard", "vahadane")


PAIR = np.array([[0.61, 0.79, 0.45], [0.22, 0.80, 0.56]])  # hematoxylin, eosin


def section(disks: NDArray[np.uint8], seed: int, strength: float, color: tuple[float, float, float]) -> Any:
    """The disks in hematoxylin, their ground in eosin, in shares that vary from pixel to pixel."""
    rng = np.random.default_rng(seed)
    inside = disks[..., 0] < 100
    amount = np.stack([np.where(inside, 2.0, 0.1), np.where(inside, 0.2, 0.9)], axis=-1)
    amount *= rng.uniform(0.8, 1.2, amount.shape) * strength
    density = amount @ (PAIR * color)
    density[:8] = 0  # empty glass
    return np.clip(np.rint(256 * np.exp(-density) - 1), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def image(make_disks: Callable[..., NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pale and reddish, 300 x 260 px."""
    return section(make_disks(300, 260, 16.0, seed=3), 0, 0.7, (1.2, 0.8, 0.9))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def target_image(make_disks: Callable[..., NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return section(make_disks(300, 260, 16.0, seed=4), 1, 1.0, (1, 1, 1))  # type: ignore[no-any-return]


def target(image: NDArray[np.uint8], method: Any, **changes: Any) -> StainTarget:
    return StainTarget(**measure_stain(sample_image(image), method).model_dump(), **changes)


@pytest.mark.parametrize("method", METHODS)
def test_the_network_sees_the_normalized_image(
    method: str, image: NDArray[np.uint8], target_image: NDArray[np.uint8], make_tiny_model: Any, disk_engine: Any
) -> None:
    aim = target(target_image, method)
    plain, stained = make_tiny_model(), make_tiny_model(stain=aim)
    nuclei = segment(image, stained, mpp=0.5, engine=disk_engine)
    by_hand = segment(normalize_stain(image, aim), plain, mpp=0.5, engine=disk_engine)
    without = segment(image, plain, mpp=0.5, engine=disk_engine)
    assert nuclei.count == by_hand.count > 20
    np.testing.assert_array_equal(nuclei.outlines.coords, by_hand.outlines.coords)
    assert not np.array_equal(nuclei.outlines.coords, without.outlines.coords)
    assert nuclei.notes["stain_normalization"] == method
    assert "stain_normalization" not in without.notes


def test_measurements_are_of_the_image_as_it_is(
    image: NDArray[np.uint8], target_image: NDArray[np.uint8], make_tiny_model: Any, disk_engine: Any
) -> None:
    aim = target(target_image, "macenko")
    result = segment(image, make_tiny_model(stain=aim), mpp=0.5, engine=disk_engine)
    by_hand = segment(normalize_stain(image, aim), make_tiny_model(), mpp=0.5, engine=disk_engine)
    without = segment(image, make_tiny_model(), mpp=0.5, engine=disk_engine)
    measured, other, plain = (
        nuclei.table.column("hematoxylin_mean").to_numpy().mean() for nuclei in (result, by_hand, without)
    )
    assert measured == pytest.approx(plain, rel=0.005)
    assert measured < other * 0.95  # the image is paler than the target


@pytest.mark.parametrize("method", METHODS)
def test_windows_and_bands_change_nothing(
    method: str, image: NDArray[np.uint8], target_image: NDArray[np.uint8], make_tiny_model: Any, disk_engine: Any,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    model = make_tiny_model(stain=target(target_image, method), halo=8)
    reference = segment(image, model, mpp=0.4, engine=disk_engine)
    with cut_smaller():
        cut = segment(image, model, mpp=0.4, engine=disk_engine)
    path = tmp_path / "strips.tif"
    tifffile.imwrite(path, image, rowsperstrip=7, compression="zlib", photometric="rgb")
    read = segment(path, model, mpp=0.4, engine=disk_engine)
    for other in (cut, read):
        np.testing.assert_array_equal(other.outlines.coords, reference.outlines.coords)
        assert other.table.equals(reference.table)


def test_a_blank_image_passes_with_a_warning(
    target_image: NDArray[np.uint8], make_tiny_model: Any, disk_engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_tiny_model(stain=target(target_image, "macenko"))
    blank = np.full((64, 64, 3), 245, np.uint8)
    with caplog.at_level(logging.WARNING):
        result = segment(blank, model, mpp=0.5, engine=disk_engine)
    assert result.count == 0
    assert result.notes["stain_normalization"] == "none, the image is unfit"
    assert caplog.messages == ["no macenko stain normalization of image: too little tissue: 0 of 4096 sampled pixels"]


@pytest.mark.fault
def test_a_blank_image_is_refused_where_the_card_says_so(
    target_image: NDArray[np.uint8], make_tiny_model: Any, disk_engine: Any
) -> None:
    model = make_tiny_model(stain=target(target_image, "macenko", unfit="refuse"))
    with pytest.raises(HemalumError, match="image: macenko stain normalization is impossible, too little tissue"):
        segment(np.full((64, 64, 3), 245, np.uint8), model, mpp=0.5, engine=disk_engine)


def test_the_scale_is_estimated_on_the_same_colors(
    image: NDArray[np.uint8], target_image: NDArray[np.uint8], make_tiny_model: Any, home_engine: Any
) -> None:
    aim = target(target_image, "reinhard")
    stained = estimate_mpp(Slide.of(image), make_tiny_model(stain=aim), home_engine)
    by_hand = estimate_mpp(Slide.of(normalize_stain(image, aim)), make_tiny_model(), home_engine)
    # normalized after resampling here and before it there, which differs by a hair
    assert abs(np.log2(stained.mpp / by_hand.mpp)) < 0.1
    assert abs(stained.confidence - by_hand.confidence) < 0.02
    without = estimate_mpp(Slide.of(image), make_tiny_model(), home_engine)
    assert without.score_by_mpp != stained.score_by_mpp


def test_a_model_without_it_reads_nothing(tiny_model: Any) -> None:
    class Untouched:
        shape = (10, 10)

        def read(self, start: int, stop: int) -> None:
            raise AssertionError("read")

    assert find_stain(Untouched(), tiny_model) is None  # type: ignore[arg-type]
