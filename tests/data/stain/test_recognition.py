"""The stain of an image from its colors: images mixed from known stains, and what must not be taken for brown."""

import numpy as np
import pytest
from numpy.typing import NDArray

from hemalum.data.stain.recognition import known_stains, recognize_stain

HEMATOXYLIN, EOSIN, DAB = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


def mixed(seed: int = 0, *, blue: float = 0.3, pink: float = 0.0, brown: float = 0.0, share: float = 0.1) -> NDArray:
    """Pixels (N, 3): a fifth in hematoxylin, a `share` in DAB, all in eosin, amounts that vary; optical density."""
    rng = np.random.default_rng(seed)
    count = 20_000
    nucleus, stained = rng.random(count) < 0.2, rng.random(count) < share
    density = np.outer(nucleus * blue * rng.uniform(0.7, 1.3, count), HEMATOXYLIN)
    density += np.outer(pink * rng.uniform(0, 1.3, count), EOSIN)
    density += np.outer(stained * brown * rng.uniform(0.7, 1.3, count), DAB)
    return np.clip(np.rint(250 * 10**-density + rng.normal(0, 2, (count, 3))), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("amounts", "stain"),
    [
        ({"blue": 0.6, "pink": 0.25}, "he"),
        ({"blue": 0.2, "pink": 0.1}, "he"),
        ({"blue": 0.6}, "he"),  # no eosin, no DAB: there is nothing brown in it
        ({"blue": 0.2, "brown": 0.6, "share": 0.5}, "hdab"),
        ({"blue": 0.5, "brown": 0.6, "share": 0.01}, "hdab"),  # one nucleus in twenty
        ({"blue": 0.6, "pink": 0.25, "brown": 0.4, "share": 0.02}, "he"),  # some pigment
    ],
)
def test_bright_field(amounts: dict[str, float], stain: str) -> None:
    assert recognize_stain(mixed(**amounts)).stain == stain


def shining(colors: tuple[float, float, float], ground: float = 8, seed: int = 0) -> NDArray:
    rng = np.random.default_rng(seed)
    light = np.where(rng.random((20_000, 1)) < 0.2, rng.uniform(60, 200, (20_000, 1)), 0) * colors
    return np.clip(ground + light + rng.normal(0, 0.7, (20_000, 1)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("colors", [(1, 1, 1), (0.1, 0.2, 1), (0, 1, 0.1)])
@pytest.mark.parametrize("ground", [3, 25])
def test_fluorescence_in_gray_and_in_colors(colors: tuple[float, float, float], ground: float) -> None:
    assert recognize_stain(shining(colors, ground)).stain == "fluorescence"


def test_fluorescence_on_a_lighter_ground_when_it_is_gray() -> None:
    assert recognize_stain(shining((1, 1, 1), 55)).stain == "fluorescence"


def test_gray_bright_field_is_said_to_be_gray() -> None:
    recognition = recognize_stain(255 - shining((1, 1, 1)))
    assert (recognition.stain, recognition.gray, recognition.description) == ("he", True, "gray bright-field")
    assert recognize_stain(mixed(pink=0.2)).description == "H&E"


@pytest.mark.parametrize("value", [0, 128, 250])
def test_a_blank_image_is_nothing_special(value: int) -> None:
    assert recognize_stain(np.full((5000, 3), value, np.uint8)).stain == "he"


@pytest.mark.parametrize("seed", range(20))
def test_color_noise_is_not_brown(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(200, 255, (4096, 3))
    pixels[:400] = rng.integers(60, 90, (400, 3))
    recognition = recognize_stain(pixels.astype(np.uint8))
    assert (recognition.stain, recognition.brown) == ("he", 0.0)


def test_few_dark_pixels_do_not_decide() -> None:
    pixels = np.full((20_000, 3), 240, np.uint8)
    pixels[:5] = (70, 45, 30)
    assert recognize_stain(pixels).stain == "he"


def test_known_stains_are_those_of_a_quarter_of_a_set() -> None:
    he, hdab = (mixed(pink=0.3).reshape(100, 200, 3), mixed(brown=0.7, share=0.5).reshape(100, 200, 3))
    assert known_stains([[hdab, hdab], [he]]) == ["hdab"]
    assert known_stains([[hdab, he, he, he], [he, he], [he]]) == ["hdab"]
    assert known_stains([[hdab, he, he, he, he], [he, he], [he]]) == []
    assert known_stains([[hdab, hdab, hdab, he], []]) == ["hdab"]
    assert known_stains([]) == []
