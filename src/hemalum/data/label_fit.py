"""Whether labels lie on the nuclei of their image, and which turn, shift or other image's labels would.

Nuclei hold hematoxylin, are darker than what is around them, or in fluorescence brighter. The area under the ROC
curve of that, inside the labels against outside, is 0.74 or more on each of 1,182 images of five public sets with its
own labels (`benchmarks/plausibility.py`); labels that lie anywhere have 0.5.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemalum.data.stain.normalization import sample_image
from hemalum.data.stain.recognition import recognize_stain
from hemalum.nuclei.morphology import hematoxylin

Signal = NDArray[np.float32]
Mask = NDArray[np.bool_]

UNFIT = 0.6  # area under the ROC curve below which labels do not lie on nuclei
SEARCHED = 0.8  # below it something that fits better is looked for
BETTER, LEAST = 0.08, 0.68  # by how much more it has to fit, and how well
FITS = 0.75  # area from which the labels of another image are named: of two hundred, some reach 0.7 by chance
FEWEST = 3  # nuclei by which a fit is told
SIDE = 512  # px of the longer side at which images are compared
SHIFT = 16  # px of that size that labels may be shifted by
LEVELS = 1024  # steps of the signal
OTHERS = 200  # label maps that are tried on an image

TURNS: dict[str, Callable[[Mask], Mask]] = {
    "turned by 90° clockwise": lambda mask: np.rot90(mask, -1),
    "turned by 90° counterclockwise": lambda mask: np.rot90(mask),
    "turned by 180°": lambda mask: np.rot90(mask, 2),
    "mirrored left to right": np.fliplr,
    "mirrored top to bottom": np.flipud,
    "with rows and columns exchanged": np.transpose,
    "with rows and columns exchanged and turned by 180°": lambda mask: np.rot90(mask.T, 2),
}


@dataclass(frozen=True, slots=True)
class Misfit:
    """Labels that do not lie on nuclei as they are: their `area` under the ROC curve, and what fits better.

    `better` is what has to be done with the labels, or "" where nothing helps; `better_area` is what they reach then.
    """

    area: float
    better: str = ""
    better_area: float = 0.0

    @property
    def message(self) -> str:
        """What is wrong, and what fits, in words."""
        fits = f"; {self.better} they fit ({self.better_area:.2f})" if self.better else ""
        return f"labels do not lie on the nuclei (area under the ROC curve {self.area:.2f}){fits}"


def nuclear_signal(image: NDArray[np.uint8]) -> Signal:
    """What nuclei have more of than their surroundings, (H, W) float32, of an image (H, W, 3) uint8.

    Hematoxylin in H&E, darkness in H-DAB and gray images, brightness in fluorescence.
    """
    seen = recognize_stain(sample_image(image))
    if seen.stain == "he" and not seen.gray:
        return hematoxylin(image)
    brightness: Signal = image.mean(axis=2, dtype=np.float32)
    return brightness if seen.stain == "fluorescence" else np.negative(brightness)


def area_under_roc(signal: Signal, inside: Mask) -> float:
    """Probability that a pixel inside has more signal than one outside, in [0, 1]; ties count half.

    0.5 where all pixels, or none, are inside.
    """
    low, high = np.percentile(signal, (0.1, 99.9))
    steps = np.clip((signal - low) * ((LEVELS - 1) / max(float(high - low), 1e-6)), 0, LEVELS - 1).astype(np.int32)
    positive = np.bincount(steps[inside], minlength=LEVELS).astype(np.float64)
    negative = np.bincount(steps[~inside], minlength=LEVELS).astype(np.float64)
    pairs = positive.sum() * negative.sum()
    if not pairs:
        return 0.5
    below = np.cumsum(negative) - negative
    return float(((below + negative / 2) * positive).sum() / pairs)


def find_misfit(image: NDArray[np.uint8], labels: NDArray[np.int32]) -> Misfit | None:
    """What is wrong with labels (H, W) on an image (H, W, 3) uint8; None where they fit, or are too few to tell.

    Labels that fit badly, or much better otherwise, are a misfit: turned, mirrored or shifted by a few px.
    """
    if labels.shape != image.shape[:2] or len(np.unique(labels)) - bool((labels == 0).any()) < FEWEST:
        return None
    image, inside, step = _reduced(image, labels)
    signal = nuclear_signal(image)
    area = area_under_roc(signal, inside)
    if area >= SEARCHED or signal.min() == signal.max():
        return None
    if area_under_roc(-image.mean(axis=2, dtype=np.float32), inside) >= FITS:
        return None  # nuclei of another stain than it looks like
    better, best = max(
        [*_turned(signal, inside), _shifted(signal, inside, step)], key=lambda fit: fit[1], default=("", 0.0)
    )
    if best >= max(area + BETTER, LEAST):
        return Misfit(area, better, best)
    return Misfit(area) if area < UNFIT else None


def best_turn(image: NDArray[np.uint8], labels: NDArray[np.int32]) -> str:
    """The turn by which labels of the size of the turned image fit it, or "" where none does."""
    image, inside, _ = _reduced(image, labels)
    turns = _turned(nuclear_signal(image), inside)
    better, best = max(turns, key=lambda fit: fit[1], default=("", 0.0))
    return better if best >= FITS else ""


def find_other(image: NDArray[np.uint8], masks: Iterable[tuple[str, Mask]]) -> tuple[str, float]:
    """The name of the labels that fit an image best and their area; ("", 0) where none do.

    `masks` are those of `labeled`; of label maps of another size than the image's none fits.
    """
    step = _step(image.shape)
    signal = nuclear_signal(np.ascontiguousarray(image[::step, ::step]))
    fit, best = "", FITS
    for name, inside in masks:
        area = area_under_roc(signal, inside) if inside.shape == signal.shape else 0.0
        if area >= best:
            fit, best = name, area
    return fit, best if fit else 0.0


def labeled(labels: NDArray[np.int32]) -> Mask:
    """The labeled px of labels (H, W), bool at the size at which they are compared: 512 px at most."""
    step = _step(labels.shape)
    return labels[::step, ::step] > 0


def _step(shape: tuple[int, ...]) -> int:
    return -(-max(shape[:2]) // SIDE)


def _reduced(image: NDArray[np.uint8], labels: NDArray[np.int32]) -> tuple[NDArray[np.uint8], Mask, int]:
    """Image and labeled px at a size at which they are compared, and how many px were made one."""
    step = _step(labels.shape)
    return np.ascontiguousarray(image[::step, ::step]), labeled(labels), step


def _turned(signal: Signal, inside: Mask) -> list[tuple[str, float]]:
    turned = ((name, turn(inside)) for name, turn in TURNS.items())
    return [(name, area_under_roc(signal, mask)) for name, mask in turned if mask.shape == signal.shape]


def _shifted(signal: Signal, inside: Mask, step: int) -> tuple[str, float]:
    """The shift of labels, in px of the image, at which the mean signal inside them is greatest, and its area."""
    spectrum = np.fft.rfft2(signal - signal.mean()) * np.conj(np.fft.rfft2(inside.astype(np.float32)))
    sums = np.fft.irfft2(spectrum, s=signal.shape)
    reach = min(SHIFT, min(signal.shape) // 4)
    offsets = np.arange(-reach, reach + 1)
    near = sums[np.ix_(offsets, offsets)]
    row, column = np.unravel_index(int(np.argmax(near)), near.shape)
    down, right = int(offsets[row]), int(offsets[column])
    height, width = signal.shape
    seen = signal[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    mask = inside[max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
    parts = [
        f"{abs(length) * step} px {names[length < 0]}"
        for length, names in ((right, ("right", "left")), (down, ("down", "up")))
        if length
    ]
    return f"shifted by {' and '.join(parts)}", area_under_roc(seen, mask) if parts else 0.0
