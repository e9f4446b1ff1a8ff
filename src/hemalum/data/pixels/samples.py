"""What stored samples mean, and how they become 8-bit RGB: one rule for plain images, slides and arrays.

The file says what its samples are (`Stored`): gray, color, inks, which of them is transparency, how many bits. Where
it has more than 8 bits, or fractions, the range that becomes 0..255 is found once for the whole image (`Display`), so
that what is read band by band is what is read whole (docs/concepts/pixels.md).
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.remarks import remark

log = logging.getLogger(__name__)

Color = Literal["gray", "rgb", "ycbcr", "palette", "cmyk"]

LITTLE = 0.1  # of the whole range: where less is kept it is said
TAIL = 0.001  # share of the samples that are beyond the range of gray on either side
FULL_BITS = (8, 10, 12, 14, 16, 24, 32)  # bits that cameras give, whatever they are stored in
FLOAT_WHITE = 2.0  # fractions whose bright end is below it run from 0 to 1, with some overshoot
DARK = 45 / 255  # of the range: planes whose medians are all darker are fluorescence, as `recognize_stain` has it
HISTOGRAM = 65536
PART = 1 << 24  # samples that are counted at once

CMYK = "CMYK is turned into RGB without its color profile; colors may be off"
TRANSPARENT = "transparent pixels laid over white"

Name = Path | str


@dataclass(frozen=True, slots=True)
class Spread:
    """Order statistics of samples: the extremes, the values at `TAIL` from either end, the median; and how many
    are not finite."""

    least: float
    low: float
    median: float
    high: float
    greatest: float
    lost: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """What a file says of the samples of a pixel.

    `color` is what those at the indices `used` are, `alpha` the index of the transparency, where there is one.
    `bits` are those of a whole number, None for fractions and signed numbers. `undeclared`: three samples of which
    the file does not say whether they are colors or channels. `palette` is (N, 3) uint8; `luma` and `reference` are
    the TIFF tags YCbCrCoefficients and ReferenceBlackWhite.
    """

    color: Color = "gray"
    used: tuple[int, ...] = (0,)
    alpha: int | None = None
    premultiplied: bool = False
    inverted: bool = False
    bits: int | None = 8
    undeclared: bool = False
    palette: NDArray[np.uint8] | None = None
    luma: tuple[float, ...] = (0.299, 0.587, 0.114)
    reference: tuple[float, ...] = (0, 255, 128, 255, 128, 255)


Spreads = Callable[[tuple[int, ...]], Spread]  # order statistics of all pixels of the samples at some indices


class Display:
    """How the samples of an image become RGB. What depends on all of its pixels is found when it is first needed.

    `spreads` gives order statistics of the image. Raises HemalumError for pixels that no number on a scale can be.
    """

    def __init__(self, stored: Stored, dtype: np.dtype[Any], spreads: Spreads, name: Name) -> None:
        if dtype.kind not in "buif":
            raise HemalumError(f"{name}: {dtype} pixels are not supported; save the image with 8 bits per channel")
        self._stored = stored if dtype.kind in "bu" else replace(stored, bits=None)
        self._dtype, self._spreads, self._name = dtype, spreads, name
        self._lock = threading.Lock()
        self._ready = False
        self._all_clear: bool | None = None
        self._range = 0.0, 255.0
        self._table: NDArray[np.uint8] | None = None

    @property
    def is_color(self) -> bool:
        """Whether what is shown has colors, as bright-field images do."""
        return self._prepare().color != "gray"

    def rgb(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """(H, W, S) samples as stored to (H, W, 3) uint8 RGB, transparency laid over white."""
        stored = self._prepare()
        color = samples if len(stored.used) == samples.shape[2] else samples[..., list(stored.used)]
        if stored.palette is not None:
            shown = stored.palette[np.minimum(color[..., 0], len(stored.palette) - 1)]
        else:
            shown = self._bytes(color)
        if stored.color == "ycbcr":
            shown = _from_ycbcr(shown, stored)
        if stored.inverted:
            shown = 255 - shown
        if stored.color == "cmyk":
            shown = _from_cmyk(shown)
        if shown.shape[2] == 1:
            shown = np.repeat(shown, 3, axis=2)
        if stored.alpha is None:
            return np.ascontiguousarray(shown)
        alpha = self._opacity(samples[..., stored.alpha])
        if alpha.min() == 255 or (alpha.max() == 0 and self._is_all_clear(stored.alpha)):
            return np.ascontiguousarray(shown)
        remark(self._name, TRANSPARENT)
        return over_white(shown, alpha, premultiplied=stored.premultiplied)

    def _prepare(self) -> Stored:
        """What the samples are, after the range and the colors have been decided and said."""
        with self._lock:
            if not self._ready:
                if self._stored.undeclared:
                    self._stored = _colors_or_channels(self._stored, self._spreads, self._name)
                self._range = self._find_range()
                if self._dtype in (np.uint8, np.uint16) and self._range != (0, 255):
                    values = np.arange(256 if self._dtype == np.uint8 else HISTOGRAM)
                    self._table = to_bytes(values, *self._range)
                self._ready = True
            return self._stored

    def _find_range(self) -> tuple[float, float]:
        """What becomes 0..255."""
        stored, name = self._stored, self._name
        if stored.color == "palette":
            return 0, 255
        if stored.bits is not None and (stored.bits <= 8 or stored.color in ("cmyk", "ycbcr")):
            return 0, 2.0**stored.bits - 1
        spread = self._spreads(stored.used)
        kind = f"{stored.bits}-bit" if stored.bits is not None else str(self._dtype)
        if spread.lost:
            remark(name, f"{spread.lost:,} samples are NaN or infinite and taken as the lowest value")
        if spread.high - spread.low < LITTLE * (spread.greatest - spread.least):
            few = [value for value in (spread.least, spread.greatest) if not spread.low <= value <= spread.high]
            remark(
                name,
                f"nearly all pixels lie at {spread.low:.6g} to {spread.high:.6g}, a few reach "
                f"{' and '.join(f'{value:.6g}' for value in few)}: these are cut off, as faults of a camera are; if "
                "they are the nuclei, save the image with 8 bits",
            )
        if stored.color != "gray":
            white = _white(stored.bits, spread.high)
            log.info("%s: %s color 0..%.6g scaled to 0..255", name, kind, white)
            return 0, white
        # an image that is flat but for a few pixels shows those
        flat = spread.low == spread.high
        low, high = (spread.least, spread.greatest) if flat else (spread.low, spread.high)
        log.info("%s: %s gray %.6g..%.6g stretched to 0..255", name, kind, low, high)
        return low, high

    def _is_all_clear(self, alpha: int) -> bool:
        """Whether nothing of the image can be seen: a program that filled in 0 for want of a transparency."""
        with self._lock:
            if self._all_clear is None:
                self._all_clear = self._spreads((alpha,)).greatest == 0
        if self._all_clear:
            remark(self._name, "transparent all over: its transparency is left out")
        return self._all_clear

    def _bytes(self, color: NDArray[Any]) -> NDArray[np.uint8]:
        if color.dtype == np.uint8 and self._table is None:
            return color
        return to_bytes(color, *self._range) if self._table is None else self._table[color]

    def _opacity(self, alpha: NDArray[Any]) -> NDArray[np.uint8]:
        if alpha.dtype == np.uint8:
            return alpha
        return to_bytes(alpha, 0, 1.0 if self._stored.bits is None else 2.0**self._stored.bits - 1)


def spreads_of(count: Callable[[], NDArray[np.int64]]) -> Spreads:
    """`Spreads` from the (S, 65536) histograms of all samples, which are counted once, when they are needed."""
    counts: list[NDArray[np.int64]] = []

    def spread(indices: tuple[int, ...]) -> Spread:
        if not counts:
            counts.append(count())
        return spread_of_counts(counts[0][list(indices)].sum(axis=0))

    return spread


def spread_of(values: NDArray[Any]) -> Spread:
    """Order statistics of an array of any numeric dtype; what is not finite is left out and counted."""
    flat = values.ravel()
    if flat.dtype in (np.uint8, np.uint16):
        return spread_of_counts(histogram(flat))
    lost = 0
    if flat.dtype.kind == "f":
        finite = flat[np.isfinite(flat)]
        lost, flat = flat.size - finite.size, finite
    if not flat.size:
        return Spread(0, 0, 0, 0, 0, lost)
    ranks = _ranks(flat.size)
    least, low, median, high, greatest = (float(value) for value in np.partition(flat, ranks)[ranks])
    return Spread(least, low, median, high, greatest, lost)


def histogram(values: NDArray[Any]) -> NDArray[np.int64]:
    """(65536,) how often each value occurs among uint8 or uint16 of any shape."""
    counts = np.zeros(HISTOGRAM, np.int64)
    flat = values.ravel()
    for start in range(0, flat.size, PART):  # NumPy counts in numbers of 8 bytes
        counts += np.bincount(flat[start : start + PART], minlength=HISTOGRAM)
    return counts


def spread_of_counts(counts: NDArray[np.int64]) -> Spread:
    """Order statistics of whole numbers from how often each occurs."""
    upto = np.cumsum(counts)
    if not upto.size or not upto[-1]:
        return Spread(0, 0, 0, 0, 0)
    least, low, median, high, greatest = (
        float(np.searchsorted(upto, rank, side="right")) for rank in _ranks(int(upto[-1]))
    )
    return Spread(least, low, median, high, greatest)


def to_bytes(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Map low..high linearly to 0..255 and cut off what lies beyond; NaN, and all when low == high, become 0."""
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    scaled: NDArray[Any] = np.clip(values, low, high)
    scaled = scaled.astype(np.float32 if values.dtype in (np.float16, np.float32) else np.float64)
    scaled = (scaled - low) * (255 / (high - low))
    if values.dtype.kind == "f":
        scaled = np.nan_to_num(scaled, copy=False, nan=0.0)
    done: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return done


def over_white(
    color: NDArray[np.uint8], alpha: NDArray[np.uint8], *, premultiplied: bool = False
) -> NDArray[np.uint8]:
    """Lay (H, W, 3) RGB with (H, W) alpha over white: (H, W, 3) RGB. `premultiplied`: the color is, by its alpha."""
    if alpha.min() == 255:
        return np.ascontiguousarray(color)
    # white is the background of a bright-field image; what lies under full transparency is arbitrary
    if premultiplied:
        added: NDArray[np.uint8] = np.minimum(color.astype(np.uint16) + (255 - alpha[..., None]), 255).astype(
            np.uint8
        )
        return added
    weight = alpha[..., None].astype(np.float32) / 255
    blended: NDArray[np.uint8] = np.rint(color * weight + 255 * (1 - weight)).astype(np.uint8)
    return blended


def _colors_or_channels(stored: Stored, spreads: Spreads, name: Name) -> Stored:
    """Three samples that the file calls neither colors nor channels: colors where they are bright."""
    full = 2.0**stored.bits - 1 if stored.bits is not None and stored.bits <= 8 else None
    full = full or _white(stored.bits, spreads(stored.used).high)
    if all(spreads((index,)).median <= DARK * full for index in stored.used):
        remark(name, channel_words(3, 0, ""))
        return replace(stored, used=stored.used[:1], color="gray", undeclared=False)
    log.info("%s: three channels, bright ones: taken as red, green and blue, though the file does not say so", name)
    return replace(stored, color="rgb", undeclared=False)


def channel_words(count: int, taken: int, title: str) -> str:
    """What is said of an image of `count` channels, of which one is taken: its place, and its name where known."""
    which = f"channel {taken + 1}, {title!r}," if title else "the first" if taken == 0 else f"channel {taken + 1}"
    return f"{count} channels; {which} is taken; if the nuclei are in another, channel names it"


def _white(bits: int | None, high: float) -> float:
    """White of color samples of more than 8 bits, or of fractions: what a camera or program would have meant."""
    if bits is None and high <= FLOAT_WHITE:
        return 1.0
    if bits is not None and bits not in (16, 32, 64):
        return 2.0**bits - 1
    return next((2.0**one - 1 for one in FULL_BITS if high <= 2.0**one - 1), high)


def _ranks(count: int) -> list[int]:
    """Places of the five values of a `Spread` among `count` sorted ones."""
    last = count - 1
    return [0, int(TAIL * last), last // 2, -int(-(1 - TAIL) * last // 1), last]


def _from_ycbcr(pixels: NDArray[np.uint8], stored: Stored) -> NDArray[np.uint8]:
    red, green, blue = stored.luma
    black, white, *chroma = stored.reference
    y = (pixels[..., 0].astype(np.float32) - black) * (255 / (white - black))
    cb = (pixels[..., 1].astype(np.float32) - chroma[0]) * (127 / (chroma[1] - chroma[0]))
    cr = (pixels[..., 2].astype(np.float32) - chroma[2]) * (127 / (chroma[3] - chroma[2]))
    r, b = y + (2 - 2 * red) * cr, y + (2 - 2 * blue) * cb
    g = (y - red * r - blue * b) / green
    rgb: NDArray[np.uint8] = np.rint(np.clip(np.stack([r, g, b], axis=2), 0, 255)).astype(np.uint8)
    return rgb


def _from_cmyk(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Inks on white paper, without a color profile: each takes away its color, black all of them."""
    light = 255 - pixels[..., :4].astype(np.uint16)
    color: NDArray[np.uint8] = ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)
    return color
