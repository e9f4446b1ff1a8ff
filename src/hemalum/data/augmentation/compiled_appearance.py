"""How a training crop looks, applied on the CPU: what `appearance` does tensor by tensor, in two passes over a crop.

The first pass looks colors up: the optical density of a byte, what an optical density lets through, and the tone
curve are tables, whose steps are a sixteenth of a byte. The second one blurs, adds noise and normalizes, row by row.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.compiled import njit
from hemalum.data.stain.jitter import DARKEST

Floats = NDArray[np.float32]

BROWN = 0.01  # optical density of DAB that one step of its byte is
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
BYTE_DEVIATION = 73.9  # standard deviation of a uniform byte

_STEPS = 4096
_DENSEST = 8.0  # optical density that lets a tenth of a byte through
_FAINT = 1e-5  # share of a blur's pixel below which its kernel ends

_BYTES = np.linspace(0, 1, 256, dtype=np.float32)
_LEVELS = np.linspace(0, 1, _STEPS, dtype=np.float32)
_DENSITY = -np.log(np.maximum(_BYTES, np.float32(DARKEST)))
_PASSED = np.exp(-_DENSEST * _LEVELS)
_UNSTAINED = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
_NO_BROWN = np.zeros((0, 0), np.uint8), np.zeros(3, np.float32)
_NO_NOISE = np.zeros((0, 0, 3), np.uint8)
_SHARP = np.ones(1, np.float32)


def paint(pixels: NDArray[np.uint8], drawn: Mapping[str, Any], mean: Floats, std: Floats, out: Floats) -> None:
    """Fill `out` (H, W, 3) with the crop `pixels` (H, W, 3) as it was drawn to look, less `mean` (3,), by `std` (3,).

    `drawn` is the crop's part of what `appearance.draw_appearance` gives, as NumPy arrays and numbers; of it all but
    `jpeg` and `clahe` is applied.
    """
    if "matrix" in drawn or "saturation" in drawn:
        painted = np.empty(pixels.shape, np.float32)
        matrix, offset = (drawn["matrix"], drawn["offset"]) if "matrix" in drawn else _UNSTAINED
        is_brown = "brown" in drawn and drawn["direction"].any()
        brown, direction = (drawn["brown"][0], drawn["direction"]) if is_brown else _NO_BROWN
        _color(
            pixels, "matrix" in drawn, matrix, offset, brown, direction, np.float32(drawn.get("saturation", 1)),
            _tones(_LEVELS, drawn), painted,
        )  # fmt: skip
    else:
        painted = _tones(_BYTES, drawn)[pixels]
    kernel = drawn.get("kernel", _SHARP)
    if min(pixels.shape[:2]) <= len(kernel) // 2:  # nothing to mirror
        kernel = _SHARP
    kernel = kernel[kernel > _FAINT]
    noise = np.ascontiguousarray(drawn["noise"].transpose(1, 2, 0)) if "noise" in drawn else _NO_NOISE
    deviation = np.float32(drawn.get("deviation", 0) / BYTE_DEVIATION)
    _finish(painted, kernel, noise, deviation, mean, np.float32(1) / std, out)


def _tones(x: Floats, drawn: Mapping[str, Any]) -> Floats:
    """The tone curve at x in [0, 1]: contrast, brightness, intensity and gamma as drawn."""
    if "contrast" in drawn:
        x = np.clip(x * drawn["contrast"], 0, 1)
    if "brightness" in drawn:
        x = np.clip(x + drawn["brightness"], 0, 1)
    if "intensity" in drawn:
        x = x * drawn["intensity"]
    return x ** drawn["gamma"] if "gamma" in drawn else x


# Row by row and channel by channel, lookups apart from arithmetic, which so becomes vector instructions.
@njit(nogil=True, fastmath=True)
def _color(  # noqa: C901 (compiled: a call for each pixel would cost)
    pixels: Any, stained: bool, matrix: Any, offset: Any, brown: Any, direction: Any, saturation: Any, tones: Any,
    out: Any,
) -> None:  # fmt: skip
    """Stain in optical density, saturation and tone of each pixel; `brown` may be empty."""
    height, width = pixels.shape[:2]
    zero, one, half, last = np.float32(0), np.float32(1), np.float32(0.5), np.float32(_STEPS - 1)
    step = np.float32((_STEPS - 1) / _DENSEST)
    table = _DENSITY if stained else _BYTES
    colors, indices, dab = (
        np.empty((3, width), np.float32),
        np.empty((3, width), np.int32),
        np.zeros(width, np.float32),
    )
    red, green, blue, gray = colors[0], colors[1], colors[2], np.empty(width, np.float32)
    for i in range(height):
        row, painted = pixels[i], out[i]
        for c in range(3):
            values = colors[c]
            for j in range(width):
                values[j] = table[row[j, c]]
        if stained:
            if len(brown):
                for j in range(width):
                    dab[j] = np.float32(BROWN) * np.float32(brown[i, j])
            for c in range(3):
                index = indices[c]
                of_red, of_green, of_blue = step * matrix[0, c], step * matrix[1, c], step * matrix[2, c]
                of_dab, first = step * direction[c], step * offset[c] + half
                for j in range(width):
                    position = red[j] * of_red + green[j] * of_green + blue[j] * of_blue + dab[j] * of_dab + first
                    index[j] = np.int32(min(max(position, zero), last))
            for c in range(3):
                values, index = colors[c], indices[c]
                for j in range(width):
                    values[j] = _PASSED[np.uint32(index[j])]
        for j in range(width):
            luma = np.float32(LUMA[0]) * red[j] + np.float32(LUMA[1]) * green[j] + np.float32(LUMA[2]) * blue[j]
            gray[j] = luma * (one - saturation)
        for c in range(3):
            values, index = colors[c], indices[c]
            for j in range(width):
                value = min(max(gray[j] + values[j] * saturation, zero), one)
                index[j] = np.int32(value * last + half)
            for j in range(width):
                painted[j, c] = tones[np.uint32(index[j])]


@njit(nogil=True, fastmath=True)
def _finish(painted: Any, kernel: Any, noise: Any, deviation: Any, mean: Any, factor: Any, out: Any) -> None:
    """Blur with the separable `kernel`, mirrored without the border pixel, add noise, cut to [0, 1] and normalize."""
    height, width, channels = painted.shape
    radius, length = len(kernel) // 2, width * channels
    source, target, pixels = painted.reshape(height, length), out.reshape(height, length), noise.reshape(-1, length)
    row = np.empty(length + 2 * radius * channels, np.float32)
    middle = row[radius * channels : radius * channels + length]
    zero, one, center = np.float32(0), np.float32(1), np.float32(127.5)
    means, factors = np.empty(length, np.float32), np.empty(length, np.float32)
    for j in range(length):
        means[j], factors[j] = mean[j % channels], factor[j % channels]
    for i in range(height):
        blurred = target[i]
        if radius == 0:
            blurred[:] = source[i]
        else:
            middle[:] = 0
            for k in range(len(kernel)):
                v = abs(i + k - radius)
                neighbor, weight = source[min(v, 2 * height - 2 - v)], kernel[k]
                for j in range(length):
                    middle[j] += weight * neighbor[j]
            for j in range(radius):
                for c in range(channels):
                    row[(radius - 1 - j) * channels + c] = middle[(j + 1) * channels + c]
                    row[length + (radius + j) * channels + c] = middle[length - (j + 2) * channels + c]
            blurred[:] = 0
            for k in range(len(kernel)):
                neighbor, weight = row[k * channels : k * channels + length], kernel[k]
                for j in range(length):
                    blurred[j] += weight * neighbor[j]
        if len(pixels):
            for j in range(length):
                blurred[j] += (np.float32(pixels[i, j]) - center) * deviation
        for j in range(length):
            blurred[j] = (min(max(blurred[j], zero), one) - means[j]) * factors[j]
