"""The scale of an image that does not say it, from its nuclei.

Crops with much hematoxylin are segmented at several assumed scales. At the right one the network is most
at home and the nuclei have the size that the model was trained on; from the best assumption on, the size of
the nuclei found corrects the scale until it no longer moves.
"""

import logging
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.inference.engine import Engine
from hemalum.inference.image import ImageSource
from hemalum.inference.model import Model
from hemalum.inference.resample import Resampler
from hemalum.instances.morphology import hematoxylin
from hemalum.instances.nuclei import measure
from hemalum.instances.representations import REPRESENTATIONS

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

ASSUMED = tuple(0.125 * 2 ** (step / 2) for step in range(8))  # 0.125 … 1.41 µm per px
LARGEST = 512  # px of a crop's side at the model's scale
REGION = 1024  # px of a region's side in the image
REGIONS = 2
FEWEST = 8  # nuclei from which a median size says something
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class ScaleEstimate:
    """`mpp` µm per px; `confidence` in [0, 1]; `nuclei` that it rests on; `tried` scale → score."""

    mpp: float
    confidence: float
    nuclei: int
    tried: dict[float, float]


@dataclass(frozen=True, slots=True)
class _Trial:
    """What segmenting at an assumed scale gives: `diameter` is the median in µm under that assumption."""

    mpp: float
    count: int
    diameter: float
    probability: float
    score: float


def estimate_mpp(source: ImageSource, model: Model, engine: Engine) -> ScaleEstimate:
    """Estimate µm per px of an image from the size of its nuclei.

    Raises HemalumError when too few nuclei are found at any scale.
    """
    regions = _regions(source)
    trials = [_try(regions, mpp, model, engine) for mpp in ASSUMED]
    best = max(trials, key=lambda trial: trial.score)
    if best.count < FEWEST:
        raise HemalumError(
            f"{source.name}: too few nuclei are found to tell the scale from them: "
            "give it with --mpp (0.25 is usual for 40x, 0.5 for 20x)"
        )
    target = model.card.nucleus_diameter_um
    for _ in range(ROUNDS):
        mpp = min(max(best.mpp * target / best.diameter, ASSUMED[0] / 2), ASSUMED[-1] * 2)
        if abs(math.log2(mpp / best.mpp)) < 0.05:
            break
        trial = _try(regions, mpp, model, engine)
        if trial.count < FEWEST:
            break
        trials.append(trial)
        best = trial
    tried = {trial.mpp: trial.score for trial in trials}
    return ScaleEstimate(best.mpp, best.probability, best.count, tried)


def _try(regions: list[Pixels], mpp: float, model: Model, engine: Engine) -> _Trial:
    card = model.card
    factor = mpp / card.mpp
    areas, probabilities = [], []
    pixels = 0
    for region in regions:
        crop = _middle(region, LARGEST / factor)
        shape = tuple(max(card.stride, round(size * factor / card.stride) * card.stride) for size in crop.shape[:2])
        resampled = Resampler((crop.shape[0], crop.shape[1]), (shape[0], shape[1])).rows(crop, 0, shape[0])
        maps = engine.maps(resampled[None])[0]
        representation = REPRESENTATIONS[card.representation]
        part = measure(representation.separate(maps, card.separation), None, representation.foreground(maps))
        # a nucleus cut by the border says nothing of its size, but few are
        areas.append(part.raw["area"] * (card.mpp / card.enlarge) ** 2)
        probabilities.append(part.raw["probability"])
        pixels += shape[0] * shape[1]
    area, probability = np.concatenate(areas), np.concatenate(probabilities)
    if not len(area):
        return _Trial(mpp, 0, math.nan, 0.0, 0.0)
    diameter = 2 * math.sqrt(float(np.median(area)) / math.pi)
    off = math.log2(diameter / card.nucleus_diameter_um)
    covered = float((area * (2 * probability - 1)).sum()) / (pixels * card.mpp**2)
    score = max(covered, 0.0) * math.exp(-0.5 * (off / 0.5) ** 2)
    return _Trial(mpp, len(area), diameter, float(probability.mean()), score)


def _middle(region: Pixels, side: float) -> Pixels:
    size = max(16, math.ceil(side))
    top, left = (max((length - size) // 2, 0) for length in region.shape[:2])
    return region[top : top + size, left : left + size]


def _regions(source: ImageSource) -> list[Pixels]:
    """The parts of the image with the most hematoxylin contrast, each at most REGION px wide and high."""
    height, width = source.shape
    tops = np.unique(np.linspace(0, max(height - REGION, 0), min(5, -(-height // REGION))).astype(int))
    lefts = np.unique(np.linspace(0, max(width - REGION, 0), min(5, -(-width // REGION))).astype(int))
    found: list[tuple[float, Pixels]] = []
    for top in tops:
        rows = source.read(int(top), int(top) + REGION)
        for left in lefts:
            region = rows[:, left : left + REGION]
            contrast = float(hematoxylin(region[::4, ::4]).std())
            found.append((contrast, region.copy()))
        found = sorted(found, key=lambda pair: -pair[0])[:REGIONS]
    return [region for _, region in found]
