"""Which images a model is least sure of, organ by organ, and as many drawn at random beside them."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Row
from hemalum.errors import HemalumError, counted, one_line
from hemalum.files import write_text


def mean_entropy(probability: NDArray[np.floating[Any]]) -> float:
    """U(x): mean over the pixels of −[p log p + (1 − p) log(1 − p)], in nats (at most log 2); nan without pixels.

    Source: ClinSegNet (Bioengineering 2025, 12, 1156), its uncertainty of an image.
    """
    if probability.size == 0:
        return math.nan
    return float(pixel_entropy(probability).mean(dtype=np.float64))


def pixel_entropy(probability: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Entropy in nats of each pixel's probability of nucleus, float32."""
    p = np.clip(probability.astype(np.float32), 0, 1)
    entropy = np.zeros_like(p)
    for share in (p, 1 - p):
        known = share > 0  # 0 log 0 is 0
        entropy[known] -= share[known] * np.log(share[known])
    return entropy


@dataclass(frozen=True)
class Top:
    """How many images of each organ: `count` of them, or a share `percent` of its images, rounded up."""

    count: int | None = None
    percent: float | None = None

    @classmethod
    def of(cls, value: "int | str | Top") -> "Top":
        """A number of images, or a share as `10%`. Raises HemalumError for anything else."""
        if isinstance(value, Top):
            return value
        text = str(value).strip()
        try:
            if text.endswith("%"):
                percent = float(text[:-1])
                if 0 < percent < 100:
                    return cls(percent=percent)
            elif int(text) >= 1:
                return cls(count=int(text))
        except ValueError:
            pass
        raise HemalumError(f"top '{value}': want a number of images per organ like 5, or a share like 10%")

    def within(self, images: int) -> int:
        """How many of so many images; at least one, at most all."""
        wanted = self.count if self.count is not None else math.ceil((self.percent or 0) / 100 * images - 1e-9)
        return min(max(wanted, 1), images)

    def __str__(self) -> str:
        return f"{self.percent:g}%" if self.percent is not None else str(self.count)


@dataclass(frozen=True)
class ImageUncertainty:
    """An image of the training part with its uncertainty (nats per pixel); `organ` None where there is none."""

    id: str
    organ: str | None
    entropy: float


Image = TypeVar("Image", Row, ImageUncertainty)


def require_choice(rows: Sequence[Row], top: Top) -> None:
    """Raise HemalumError where every image of these would be chosen, so that nothing is selected."""
    if all(top.within(len(part)) == len(part) for part in _by_organ(rows)):
        raise HemalumError(
            f"--top {top} chooses all {counted(len(rows), 'training image')}: nothing is selected; choose fewer"
        )


def choose_uncertain(images: Sequence[ImageUncertainty], top: Top) -> list[ImageUncertainty]:
    """The images of the highest entropy of each organ, organs in order of their names; ties go by id."""
    return [image for part in _by_organ(images) for image in sorted(part, key=_least_sure)[: top.within(len(part))]]


def _least_sure(image: ImageUncertainty) -> tuple[bool, float, str]:
    """What images sort by; one without a pixel that counts has no entropy, and comes last."""
    unknown = math.isnan(image.entropy)
    return unknown, 0.0 if unknown else -image.entropy, image.id


def choose_random(
    images: Sequence[ImageUncertainty], top: Top, seed: int, draws: int
) -> list[list[ImageUncertainty]]:
    """Subsets of as many of each organ as `choose_uncertain` gives, drawn without regard to entropy.

    They differ as long as there are enough to draw: one that was there before is drawn again. The first of them are
    the same whatever `draws` is.
    """
    parts = [sorted(part, key=lambda image: image.id) for part in _by_organ(images)]
    possible = math.prod(math.comb(len(part), top.within(len(part))) for part in parts)
    subsets: list[list[ImageUncertainty]] = []
    for draw in range(1, draws + 1):
        subset = _draw(parts, top, [seed, draw])
        repeats = 0
        while subset in subsets and len(subsets) < possible:
            repeats += 1
            subset = _draw(parts, top, [seed, draw, repeats])
        subsets.append(subset)
    return subsets


def _draw(parts: Sequence[Sequence[ImageUncertainty]], top: Top, seed: Sequence[int]) -> list[ImageUncertainty]:
    rng = np.random.default_rng(seed)
    chosen = []
    for part in parts:
        indices = sorted(rng.choice(len(part), top.within(len(part)), replace=False).tolist())
        chosen += [part[index] for index in indices]
    return chosen


def count_different(subsets: Sequence[Sequence[ImageUncertainty]]) -> int:
    """How many of the subsets are not the same images as one before."""
    return len({frozenset(image.id for image in subset) for subset in subsets})


def exhausted(images: Sequence[ImageUncertainty], top: Top) -> list[str]:
    """Organs of which every image is chosen, so that there is nothing to choose from."""
    return [part[0].organ or "no organ" for part in _by_organ(images) if top.within(len(part)) == len(part)]


def write_uncertainty(
    path: Path, images: Sequence[ImageUncertainty], chosen: Mapping[str, Sequence[ImageUncertainty]]
) -> None:
    """Write every image with its entropy, and a column of 0 and 1 for each subset."""
    subsets = {name: {image.id for image in subset} for name, subset in chosen.items()}
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["id", "organ", "entropy", *subsets])
    for image in images:
        marks = [int(image.id in ids) for ids in subsets.values()]
        writer.writerow([image.id, image.organ or "", repr(image.entropy), *marks])
    write_text(path, stream.getvalue())


def read_uncertainty(path: Path, rows: Sequence[Row]) -> list[ImageUncertainty]:
    """Read the entropies again. Raises HemalumError when the file does not list these images."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            images = [
                ImageUncertainty(row["id"], row["organ"] or None, float(row["entropy"]))
                for row in csv.DictReader(stream)
            ]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:  # TypeError: of a row that is cut off
        raise HemalumError(f"{path}: cannot be read ({one_line(error)}); remove it and run again") from error
    if [image.id for image in images] != [row.id for row in rows]:
        raise HemalumError(f"{path}: does not list the training images; remove it and run again")
    return images


def _by_organ(images: Sequence[Image]) -> list[list[Image]]:
    parts: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        parts[image.organ or ""].append(image)
    return [part for _, part in sorted(parts.items())]
