"""What a network that knows H&E is shown of an image that is none: H-DAB and fluorescence in the colors of H&E.

What is done to a pixel depends on that pixel and on the image's statistics alone, which come from a regular sample
of its pixels; so cutting it in tiles or bands changes nothing. Only the network sees the result. All constants were
chosen by `benchmarks/ihc_stain.py` and `benchmarks/fluorescence_stain.py`, with the shipped models; run them again
with new weights.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hemalum.compiled import njit
from hemalum.data.stain.separation import (
    PALE,
    STAINS,
    angle_between,
    density_table,
    macenko_stains,
    unmixing,
    white_of,
)

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

HEMATOXYLIN, EOSIN, DAB = STAINS
LN10 = math.log(10)

# H-DAB
EOSIN_TRACE = 0.06  # optical density (log10) that every pixel is given: H&E has a ground of eosin
NUCLEAR_SHARE = 0.6  # of DAB's optical density that counts as hematoxylin where the marker is nuclear
FARTHEST_HEMATOXYLIN, FARTHEST_DAB = 15.0, 20.0  # degrees from Ruifrok & Johnston's beyond which theirs are taken
DEEP_BROWN = 0.3  # natural optical density, mean over channels: paler pixels say little of DAB's hue
TYPICAL_BROWN = 70.0  # percentile of the hues of brown pixels, from blue to brown, that is DAB
FEWEST_BROWN = 30  # sampled px
LEAST_DAB = 0.1  # optical density (log10) of the 99.9th percentile: an image with less has no DAB

# fluorescence
GROUND, BRIGHTEST = 1.0, 99.7  # percentiles of pixels, of their brightest channel
GAMMA = 0.6  # lifts weakly stained nuclei
DEEPEST = 0.5  # optical density (log10) of hematoxylin of the brightest pixels
FLUORESCENCE_EOSIN = 0.1


class ColorChange(Protocol):
    """What is done to every pixel before the network sees it."""

    def apply(self, pixels: Pixels) -> Pixels:
        """Take and give (..., 3) uint8, anew."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class HdabStains:
    """Directions of an H-DAB image in optical density, unit length: `hematoxylin` and `dab`, (3,).

    `white` is the value of an unstained pixel. `estimated` names those that are the image's own; the others are
    Ruifrok & Johnston's. `strongest` is the 99.9th percentile of DAB's amount, in optical density (log10).
    """

    hematoxylin: Floats
    dab: Floats
    white: float
    estimated: tuple[str, ...]
    strongest: float

    @property
    def has_dab(self) -> bool:
        """Whether any pixel is brown."""
        return self.strongest >= LEAST_DAB

    @property
    def description(self) -> str:
        """Where the directions come from, in words."""
        if len(self.estimated) == 2:
            return "hematoxylin and DAB of the image"
        if not self.estimated:
            return "fixed hematoxylin and DAB: the image's own cannot be told"
        other = "DAB" if self.estimated == ("hematoxylin",) else "hematoxylin"
        return f"{self.estimated[0]} of the image, fixed {other}"


def find_hdab(pixels: Pixels) -> HdabStains:
    """The stains of an H-DAB image from a sample of its pixels, (N, 3) uint8.

    Hematoxylin is the bluer of Macenko's two directions. His other one is the hue of the yellowest pixels, which
    would leave blue in all the others, so DAB is the hue of typical brown in the plane of the two. A direction that
    is far from Ruifrok & Johnston's is none, and theirs is taken.
    """
    white = white_of(pixels)
    density = density_table(white)[pixels]
    tissue = density[density.mean(axis=1) >= PALE]
    hematoxylin, dab = HEMATOXYLIN, DAB
    estimated: list[str] = []
    if len(tissue) >= 2:
        first, second = (row / max(float(np.linalg.norm(row)), 1e-12) for row in macenko_stains(tissue))
        if angle_between(np.stack([first, HEMATOXYLIN])) <= FARTHEST_HEMATOXYLIN:
            hematoxylin = first
            estimated.append("hematoxylin")
        if angle_between(np.stack([second, DAB])) <= FARTHEST_DAB:
            typical = _typical_brown(tissue, hematoxylin, second)
            if typical is not None and angle_between(np.stack([typical, DAB])) <= FARTHEST_DAB:
                dab = typical
                estimated.append("DAB")
    brown = (density @ unmixing(hematoxylin, dab))[:, 1] / LN10
    return HdabStains(hematoxylin, dab, white, tuple(estimated), float(np.percentile(brown, 99.9)))


def _typical_brown(tissue: Floats, hematoxylin: Floats, yellowest: Floats) -> Floats | None:
    blue, brown = (tissue @ unmixing(hematoxylin, yellowest)).T
    chosen = (brown > np.maximum(blue, 0)) & (tissue.mean(axis=1) >= DEEP_BROWN)
    if chosen.sum() < FEWEST_BROWN:
        return None
    hue = float(np.percentile(np.arctan2(brown[chosen], blue[chosen]), TYPICAL_BROWN))
    mixed = math.cos(hue) * hematoxylin + math.sin(hue) * yellowest
    typical: Floats = mixed / np.linalg.norm(mixed)
    return typical


class HdabMap:
    """H-DAB as H&E: hematoxylin in its usual hue, a trace of eosin, and of DAB the share `nuclear` as hematoxylin.

    With `nuclear` 0 DAB is taken out. Hematoxylin's strength is left as it is: to raise that of a pale counterstain
    raises its haze in the cytoplasm as well, and lost nuclei in every trial.
    """

    def __init__(self, stains: HdabStains, nuclear: float = 0.0) -> None:
        self.stains, self.nuclear = stains, nuclear
        # what a channel's byte adds to hematoxylin and to DAB
        shares = unmixing(stains.hematoxylin, stains.dab)
        density = density_table(stains.white)
        self._amounts = (shares.T[:, :, None] * density).astype(np.float32)

    def apply(self, pixels: Pixels) -> Pixels:
        """See `ColorChange`."""
        flat = np.ascontiguousarray(pixels).reshape(-1, 3)
        result = np.empty_like(flat)
        ground = (EOSIN_TRACE * LN10 * EOSIN).astype(np.float32)
        _as_he(flat, self._amounts, np.float32(self.nuclear), HEMATOXYLIN.astype(np.float32), ground, result)
        return result.reshape(pixels.shape)


class FluorescenceMap:
    """Fluorescence as H&E: what shines is hematoxylin, the dark ground a trace of eosin on white.

    `low` and `high` are the values of ground and of the brightest pixels, each by its brightest channel.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        share = np.clip((np.arange(256) - low) / max(high - low, 8.0), 0, 1) ** GAMMA
        density = DEEPEST * share[:, None] * HEMATOXYLIN + FLUORESCENCE_EOSIN * EOSIN
        self._colors = np.clip(np.rint(256 * 10**-density - 1), 0, 255).astype(np.uint8)

    @classmethod
    def of(cls, pixels: Pixels) -> "FluorescenceMap":
        """That of an image, from a sample of its pixels (N, 3) uint8."""
        low, high = np.percentile(pixels.max(axis=1), (GROUND, BRIGHTEST))
        return cls(float(low), float(high))

    def apply(self, pixels: Pixels) -> Pixels:
        """See `ColorChange`."""
        colors: Pixels = self._colors[pixels.max(axis=-1)]
        return colors


@njit(nogil=True)
def _as_he(pixels: Any, amounts: Any, nuclear: Any, hematoxylin: Any, ground: Any, result: Any) -> None:
    zero, one, half, white = np.float32(0), np.float32(1), np.float32(0.5), np.float32(256)
    for i in range(len(pixels)):
        blue = brown = zero
        for c in range(3):
            blue += amounts[0, c, pixels[i, c]]
            brown += amounts[1, c, pixels[i, c]]
        dye = max(blue, zero) + nuclear * max(brown, zero)
        for c in range(3):
            value = white * np.exp(-(dye * hematoxylin[c] + ground[c])) - one + half
            result[i, c] = np.uint8(min(max(value, zero), np.float32(255)))
