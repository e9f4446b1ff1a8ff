"""How an image was stained, from its own colors: H&E, H-DAB, or fluorescence.

Only these three are told apart. A gray bright-field image has no color to tell its stain by and passes for H&E, which
is what a model takes it for; `Recognition.description` calls it gray. The limits below were set on every real image
at hand, and wrong guesses are counted by `benchmarks/stain_recognition.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hemalum.data.stain.normalization import sample_image
from hemalum.data.stain.separation import PALE, density_table, white_of

Stain = Literal["he", "hdab", "fluorescence"]
STAIN_NAMES: tuple[Stain, ...] = get_args(Stain)
STAIN_TITLES: dict[Stain, str] = {"he": "H&E", "hdab": "H-DAB", "fluorescence": "fluorescence"}

GRAY = 6.0  # of 255: an image is gray when 99 % of its pixels have channels no further apart
DARK_MEDIAN, DARK_QUARTER = 45.0, 32.0  # of 255, of the brightest channel; of the darkest H&E at hand 51 and 37
DEEP = 0.6  # natural optical density, mean over channels, above which a pixel's hue is certain
FEWEST_DEEP = 5e-4  # share of the sampled pixels: with fewer, there is no brown to speak of
MOSTLY_BROWN = 0.3  # share of the deep pixels: of H&E 0.22 at most (spleen, with its blood), of H-DAB 0.7 at least
SOME_BROWN = 0.01  # enough where there is no eosin
PINK = 1.5  # optical density of green by that of red and blue: hematoxylin and DAB mix to 1.1 at most, eosin is at 9
LEAST_PINK = 0.02  # share of tissue; H&E with less has no brown either
KNOWN = 0.25  # share of a set's images that a network knows a stain by


@dataclass(frozen=True, slots=True)
class Recognition:
    """The stain, and what it was told by: shares of brown (of the deep pixels) and of pink (of tissue); gray."""

    stain: Stain
    brown: float = 0.0
    pink: float = 0.0
    gray: bool = False

    @property
    def description(self) -> str:
        """The stain in words."""
        return "gray bright-field" if self.stain == "he" and self.gray else STAIN_TITLES[self.stain]


def recognize_stain(pixels: NDArray[np.uint8]) -> Recognition:
    """Tell the stain of an image from a sample of its pixels, (N, 3) uint8 RGB.

    Fluorescence is bright on dark ground, in gray or in colors. Brown is an optical density that rises from red over
    green to blue, as only DAB's does; blood and pigment do so, too, in a small share of an H&E image, which pink
    gives away. Without tissue, or without either, it is H&E.
    """
    brightest = pixels.max(axis=1).astype(np.float64)
    gray = bool(np.percentile(brightest - pixels.min(axis=1), 99) <= GRAY)
    low, quarter, median, high = np.percentile(brightest, (1, 25, 50, 99))
    if gray:
        dark = median < 128 and median - low < high - median
    else:
        dark = median <= DARK_MEDIAN and quarter <= DARK_QUARTER
    if dark:
        return Recognition("fluorescence", gray=gray)
    if gray:
        return Recognition("he", gray=True)
    density = density_table(white_of(pixels))[pixels]
    mean = density.mean(axis=1)
    tissue, deep = density[mean >= PALE], density[mean >= DEEP]
    if not len(tissue):
        return Recognition("he")
    strongest = np.maximum(np.maximum(tissue[:, 0], tissue[:, 2]), 1e-6)
    pink = float((tissue[:, 1] > PINK * strongest).mean())
    if len(deep) < FEWEST_DEEP * len(pixels):
        return Recognition("he", pink=pink)
    red, green, blue = deep.T
    browns = int(((blue > green) & (green > 1.1 * red)).sum())
    # no stain has this order: what noise gives of it, within three standard deviations, it gives of brown as well
    noise = int(((blue > red) & (red > 1.1 * green)).sum())
    brown = (browns - noise) / len(deep) if browns - noise > 3 * (browns + noise) ** 0.5 else 0.0
    is_brown = brown >= MOSTLY_BROWN or (brown >= SOME_BROWN and pink < LEAST_PINK)
    return Recognition("hdab" if is_brown else "he", brown, pink)


def known_stains(sets: Iterable[Iterable[NDArray[np.uint8]]]) -> list[Stain]:
    """The stains other than H&E of at least a quarter of the images (H, W, 3) uint8 of one of the sets or more.

    A network that was trained on such images does better when it sees them as they are: a mean PQ of 0.767 in the
    place of 0.729 on fluorescence, one of four sets (`benchmarks/fluorescence_stain.py`).
    """
    known: set[Stain] = set()
    for images in sets:
        seen = [recognize_stain(sample_image(image)).stain for image in images]
        known |= {stain for stain in seen if stain != "he" and seen.count(stain) >= KNOWN * len(seen)}
    return [name for name in STAIN_NAMES if name in known]
