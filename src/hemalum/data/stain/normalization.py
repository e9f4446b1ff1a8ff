"""Stain normalization: the colors of an image brought to those of a target.

The statistics of an image come from a regular sample of its own pixels, never from a tile of it; what is then done to
a pixel depends on that pixel alone. So cutting an image in tiles or bands changes nothing.

Macenko et al. (2009) and Vahadane et al. (2016) separate two stains in optical density, scale each one's amount and
mix them again in the target's colors; what neither stain explains is lost. Reinhard et al. (2001) shift and scale
the three channels of lαβ. docs/concepts/stain.md says when which helps.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hemalum.compiled import njit
from hemalum.data.stain.separation import (
    PALE,
    amounts,
    angle_between,
    density_table,
    macenko_stains,
    solve_pair,
    vahadane_stains,
    white_of,
)
from hemalum.data.stain.statistics import Method, StainStatistics, StainTarget
from hemalum.errors import HemalumError
from hemalum.settings import Strict

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

SAMPLED = 1 << 16  # px: of an image of 512 x 512, every second row and column
LEAST_TISSUE = 0.01  # share of the sampled pixels
FEWEST_TISSUE = 100  # px
# degrees between two stains: real H&E has at least 9.9 and 6.1 (`benchmarks/stain.py`), noise on one stain less
CLOSEST = {"macenko": 7.0, "vahadane": 5.0}
WEAKEST = 0.1  # optical density of a stain's 99th percentile; of real H&E 0.4 at least
FLATTEST = 2e-4  # standard deviation of a channel of lαβ; of a gray image it is 0
DARK = 40  # of 255: an image whose median pixel is darker is no bright-field image
STRONGEST = 99.0  # percentile of amounts that is matched

# RGB to the responses of the three cones, and their logarithms to lαβ (Reinhard et al. 2001, eqs. 4 and 6)
_CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
_OPPONENT = np.diag(1 / np.sqrt([3.0, 6.0, 2.0])) @ np.array([[1.0, 1, 1], [1, 1, -2], [1, -1, 0]])


class StainNormalization(Strict):
    """What a recipe says of it."""

    method: Method
    target: str = Field(
        "train",
        description='"train": the median of all training images; else the id of one of them, or an image file',
    )
    unfit: Literal["pass", "refuse"] = Field(
        "pass", description="an image with too little stain is left as it is, or refused"
    )


class UnfitImage(HemalumError):
    """An image that the method can say nothing about; the message is why."""


@dataclass(frozen=True, slots=True, eq=False)
class StainMap:
    """What is done to every pixel of an image: `apply` takes and gives (..., 3) uint8, anew.

    `white` is that of the image and of the target.
    """

    method: Method
    first: NDArray[np.float32]
    second: NDArray[np.float32]
    white: tuple[float, float]
    cosine: float = 0.0

    def apply(self, pixels: Pixels) -> Pixels:
        """The same pixels in the target's colors."""
        flat = np.ascontiguousarray(pixels).reshape(-1, 3)
        result = np.empty_like(flat)
        if self.method == "reinhard":
            _shift(flat, self.first, self.second, _CONES32, _RGB32, result)
        else:
            table, scale = density_table(self.white[0]).astype(np.float32), np.float32(self.white[1] + 1)
            cosine, nonnegative = np.float32(self.cosine), self.method == "vahadane"
            _restain(flat, table, self.first, self.second, cosine, nonnegative, scale, result)
        return result.reshape(pixels.shape)


def sample_pixels(read: Callable[[int, int], Pixels], shape: tuple[int, int]) -> Pixels:
    """A regular sample of at most `SAMPLED` pixels of an image of (H, W) px, (N, 3) uint8.

    `read(start, stop)` gives rows (stop - start, W, 3); only the rows that are sampled are asked for.
    """
    step = 1
    while -(-shape[0] // step) * -(-shape[1] // step) > SAMPLED:
        step += 1
    if step == 1:
        return read(0, shape[0]).reshape(-1, 3)
    rows = [read(y, y + 1)[0, step // 2 :: step] for y in range(step // 2, shape[0], step)]
    return np.concatenate(rows)


def sample_image(image: Pixels) -> Pixels:
    """`sample_pixels` of an image (H, W, 3) uint8 in memory."""
    return sample_pixels(lambda start, stop: image[start:stop], (image.shape[0], image.shape[1]))


def measure_stain(pixels: Pixels, method: Method) -> StainStatistics:
    """Statistics of pixels (N, 3) uint8, of those with tissue: a mean optical density of `PALE` at least.

    Raises UnfitImage where there is too little tissue, where its stains cannot be told apart, or where the image
    is not of bright field (the limits are the constants above).
    """
    white = white_of(pixels)
    density = density_table(white)[pixels]
    tissue = density.mean(axis=1) >= PALE
    tissue_pixels = int(tissue.sum())
    if tissue_pixels < max(FEWEST_TISSUE, LEAST_TISSUE * len(pixels)):
        raise UnfitImage(f"too little tissue: {tissue_pixels} of {len(pixels)} sampled pixels")
    if np.median(pixels.mean(axis=1)) < DARK:
        raise UnfitImage("dark ground: not a bright-field image")
    if method == "reinhard":
        return _measure_lab(pixels[tissue], white)
    return _measure_directions(density[tissue], white, method)


def _measure_lab(pixels: Pixels, white: float) -> StainStatistics:
    channels = np.log10((pixels.astype(np.float64) + 1) / 256 @ _CONES.T) @ _OPPONENT.T
    sd = channels.std(axis=0)
    if sd.min() < FLATTEST:
        raise UnfitImage("no colors: it is gray or of one tone")
    return StainStatistics(method="reinhard", white=white, mean=_plain(channels.mean(axis=0)), sd=_plain(sd))


def _measure_directions(density: Floats, white: float, method: Method) -> StainStatistics:
    stains = macenko_stains(density) if method == "macenko" else vahadane_stains(density)
    angle = angle_between(stains)
    if angle < CLOSEST[method]:
        raise UnfitImage(f"one stain: two directions {angle:.1f}° apart, {CLOSEST[method]:g}° are needed")
    strongest = np.percentile(amounts(density, stains, nonnegative=method == "vahadane"), STRONGEST, axis=0)
    if strongest.min() < WEAKEST:
        raise UnfitImage(f"one stain: of the other there is {max(strongest.min(), 0):.2f}, {WEAKEST:g} is needed")
    return StainStatistics(
        method=method, white=white, stains=(_plain(stains[0]), _plain(stains[1])), strongest=_plain(strongest)
    )


def median_stain(statistics: Sequence[StainStatistics]) -> StainStatistics:
    """The median of the statistics of several images, number by number; directions are made unit length again."""

    def median(name: str) -> Any:
        return np.median([getattr(one, name) for one in statistics], axis=0)

    method, white = statistics[0].method, float(median("white"))
    if method == "reinhard":
        return StainStatistics(method=method, white=white, mean=_plain(median("mean")), sd=_plain(median("sd")))
    stains = median("stains")
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    rows = _plain(stains[0]), _plain(stains[1])
    return StainStatistics(method=method, white=white, stains=rows, strongest=_plain(median("strongest")))


def _plain(values: Floats) -> Any:
    """Numbers for the card; seven digits say all there is to say."""
    return tuple(float(f"{value:.7g}") for value in values)


def match_stain(source: StainStatistics, target: StainStatistics) -> StainMap:
    """What brings an image with the statistics `source` to those of `target`.

    Raises HemalumError when they are of different methods.
    """
    if source.method != target.method:
        raise HemalumError(f"stain statistics of {source.method} cannot be matched to those of {target.method}")
    white = source.white, target.white
    if target.mean is not None:
        mean, sd = np.array(source.mean), np.array(source.sd)
        scale = np.array(target.sd) / sd
        back = np.linalg.inv(_OPPONENT)
        linear = back @ np.diag(scale) @ _OPPONENT
        offset = back @ (np.array(target.mean) - scale * mean) * np.log(10)
        return StainMap(target.method, linear.astype(np.float32), offset.astype(np.float32), white)
    stains = np.array(source.stains)
    # rows of unit length were rounded for the card
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    scale = np.array(target.strongest) / np.array(source.strongest)
    mixed = scale[:, None] * np.array(target.stains)
    cosine = float(stains[0] @ stains[1])
    return StainMap(target.method, stains.astype(np.float32), mixed.astype(np.float32), white, cosine)


class StainNormalizer:
    """Brings images to a target. `unfit` names those that were left as they are, with the reason."""

    def __init__(self, target: StainTarget) -> None:
        self.target = target
        self.unfit: list[str] = []

    def match(self, pixels: Pixels, name: str) -> StainMap | None:
        """What to do to the image `name` with these sampled pixels (N, 3); None where it passes unchanged.

        Raises HemalumError for an unfit image where the target says `unfit: refuse`.
        """
        try:
            return match_stain(measure_stain(pixels, self.target.method), self.target)
        except UnfitImage as error:
            if self.target.unfit == "refuse":
                raise HemalumError(
                    f"{name}: {self.target.method} stain normalization is impossible, {error}; "
                    "leave the image out, or say `unfit: pass` in the recipe"
                ) from error
            self.unfit.append(f"{name}: {error}")
            return None

    def warn(self) -> None:
        """Say in one line how many images were left as they are."""
        if not self.unfit:
            return
        others = f", and {len(self.unfit) - 1} more" if len(self.unfit) > 1 else ""
        log.warning("no %s stain normalization of %s%s", self.target.method, self.unfit[0], others)


_CONES32, _RGB32 = _CONES.astype(np.float32), np.linalg.inv(_CONES).astype(np.float32)


@njit(nogil=True)
def _restain(
    pixels: Any, table: Any, stains: Any, mixed: Any, cosine: Any, nonnegative: bool, scale: Any, result: Any
) -> None:
    one = np.float32(1)
    for i in range(len(pixels)):
        r, g, b = table[pixels[i, 0]], table[pixels[i, 1]], table[pixels[i, 2]]
        first = r * stains[0, 0] + g * stains[0, 1] + b * stains[0, 2]
        second = r * stains[1, 0] + g * stains[1, 1] + b * stains[1, 2]
        a, c = solve_pair(first, second, cosine, nonnegative)
        for k in range(3):
            result[i, k] = _byte(scale * np.exp(-(a * mixed[0, k] + c * mixed[1, k])) - one)


@njit(nogil=True)
def _shift(pixels: Any, linear: Any, offset: Any, cones: Any, rgb: Any, result: Any) -> None:
    scale, one = np.float32(256), np.float32(1)
    for i in range(len(pixels)):
        r, g, b = (pixels[i, 0] + one) / scale, (pixels[i, 1] + one) / scale, (pixels[i, 2] + one) / scale
        x = np.log(cones[0, 0] * r + cones[0, 1] * g + cones[0, 2] * b)
        y = np.log(cones[1, 0] * r + cones[1, 1] * g + cones[1, 2] * b)
        z = np.log(cones[2, 0] * r + cones[2, 1] * g + cones[2, 2] * b)
        u = np.exp(linear[0, 0] * x + linear[0, 1] * y + linear[0, 2] * z + offset[0])
        v = np.exp(linear[1, 0] * x + linear[1, 1] * y + linear[1, 2] * z + offset[1])
        w = np.exp(linear[2, 0] * x + linear[2, 1] * y + linear[2, 2] * z + offset[2])
        for k in range(3):
            result[i, k] = _byte(scale * (rgb[k, 0] * u + rgb[k, 1] * v + rgb[k, 2] * w) - one)


@njit(nogil=True, inline="always")
def _byte(value: Any) -> Any:
    return np.uint8(min(max(value + np.float32(0.5), np.float32(0)), np.float32(255)))
