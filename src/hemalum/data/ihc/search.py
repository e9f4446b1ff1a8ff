"""The rough position of one section on another: all rotations, all shifts, nothing assumed."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.fft import irfft2, next_fast_len, rfft2

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIDE = 112  # px of the longer side: enough to see the pattern of nuclei and glands, small enough to try all angles
STEP = 4.0  # degrees; 2° beside the truth moves the corner of such an image by less than 3 px
POSITIONS = 6  # that are refined
MIN_OVERLAP = 0.3  # of the smaller section; less than that fits by chance


class Field(NamedTuple):
    """A section as registration sees it: `signal` (h, w) float32, `tissue` (h, w) bool, spacing in µm (x, y)."""

    signal: Float
    tissue: Mask
    spacing: tuple[float, float]

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height in µm."""
        return self.signal.shape[1] * self.spacing[0], self.signal.shape[0] * self.spacing[1]


class Position(NamedTuple):
    """A rigid guess: a point p of the fixed section (µm) lies at R(angle)(p - center) + target on the other."""

    angle: float
    center: tuple[float, float]
    target: tuple[float, float]
    score: float


def search(fixed: Field, moving: Field) -> list[Position]:
    """The best rigid positions of `moving` under `fixed`, best first, none for a section without tissue.

    Of neighboring angles only the best is one.

    Score: correlation of the signals over the tissue that both have, for every shift at once by FFT (masked
    normalized correlation: Padfield, IEEE Trans. Image Process. 21, 2706, 2012), for every 4° of rotation.
    """
    spacing = max(*fixed.extent, *moving.extent) / SIDE
    still, still_tissue = _coarse(fixed, spacing)
    turning, turning_tissue = _coarse(moving, spacing)
    if not (still_tissue.any() and turning_tissue.any()):
        return []
    need = MIN_OVERLAP * min(still_tissue.sum(), turning_tissue.sum())
    side = math.ceil(math.hypot(*turning.shape))
    frame = _Frame(still, still_tissue, side)
    positions = []
    for angle in np.deg2rad(np.arange(0, 360, STEP)):
        scores = frame.correlate(*_turn(turning, turning_tissue, float(angle), side), need)
        row, column = np.unravel_index(int(scores.argmax()), scores.shape)
        shift = (float(column) - (side - 1), float(row) - (side - 1))
        center = ((shift[0] + side / 2) * spacing, (shift[1] + side / 2) * spacing)
        target = (moving.extent[0] / 2, moving.extent[1] / 2)
        positions.append(Position(float(angle), center, target, float(scores[row, column])))
    peaks = [
        here
        for before, here, after in zip(
            positions[-1:] + positions[:-1], positions, positions[1:] + positions[:1], strict=True
        )
        if here.score > 0 and here.score >= max(before.score, after.score)
    ]
    return sorted(peaks, key=lambda position: -position.score)[:POSITIONS]


class _Frame:
    """The still image's transforms, made once for all angles."""

    def __init__(self, image: Float, mask: Mask, side: int) -> None:
        self.full = (image.shape[0] + side - 1, image.shape[1] + side - 1)
        self.shape = (next_fast_len(self.full[0], real=True), next_fast_len(self.full[1], real=True))
        masked = image * mask
        self.mask = rfft2(mask.astype(np.float64), self.shape)
        self.image = rfft2(masked.astype(np.float64), self.shape)
        self.square = rfft2((masked * masked).astype(np.float64), self.shape)

    def correlate(self, image: Float, mask: Mask, need: float) -> NDArray[np.float64]:
        def over(a: Any, b: Any) -> NDArray[np.float64]:
            product: NDArray[np.float64] = irfft2(a * b, self.shape)
            return product[: self.full[0], : self.full[1]]

        masked = (image * mask)[::-1, ::-1].astype(np.float64)  # reversed: a convolution becomes a correlation
        weight = rfft2(mask[::-1, ::-1].astype(np.float64), self.shape)
        moved, squared = rfft2(masked, self.shape), rfft2(masked * masked, self.shape)
        n = np.maximum(np.rint(over(self.mask, weight)), 1)
        sum_a, sum_b = over(self.image, weight), over(self.mask, moved)
        covariance = over(self.image, moved) - sum_a * sum_b / n
        variance_a = np.maximum(over(self.square, weight) - sum_a**2 / n, 0)
        variance_b = np.maximum(over(self.mask, squared) - sum_b**2 / n, 0)
        spread = np.sqrt(variance_a * variance_b)
        enough = (n >= need) & (spread > 1e-3 * spread.max())
        # a small overlap correlates well by chance: weigh by how sure a correlation over so many pixels is
        certain = np.sqrt(n / n.max())
        return np.where(enough, covariance / np.where(enough, spread, 1) * certain, -1.0)


def _coarse(field: Field, spacing: float) -> tuple[Float, Mask]:
    """Signal and tissue on square pixels of `spacing` µm."""
    from skimage.transform import resize

    shape = (max(round(field.extent[1] / spacing), 4), max(round(field.extent[0] / spacing), 4))
    weight = resize(field.tissue.astype(np.float32), shape, order=1, anti_aliasing=True)
    signal = resize(field.signal * field.tissue, shape, order=1, anti_aliasing=True) / np.maximum(weight, 1e-3)
    signal = ndimage.gaussian_filter(signal.astype(np.float32), 1.0)
    return signal, weight > 0.5


def _turn(image: Float, mask: Mask, angle: float, side: int) -> tuple[Float, Mask]:
    """The image about its center on a square of `side`: turned(u) = image(R(angle)(u - c) + center)."""
    cosine, sine = math.cos(angle), math.sin(angle)
    matrix = np.array([[cosine, sine], [-sine, cosine]])  # rows are y, x
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - matrix @ np.array([(side - 1) / 2, (side - 1) / 2])
    signal = ndimage.affine_transform(image, matrix, offset, (side, side), order=1)
    tissue = ndimage.affine_transform(mask.astype(np.float32), matrix, offset, (side, side), order=1) > 0.5
    return signal, tissue
