"""How sure a model is: of each pixel, each nucleus, and a field as a whole. Pure functions of maps and label maps.

Entropies are in nats, of the probability of nucleus at the temperature of the model's card; log 2 = 0.693 is even
odds. What is compared with a threshold is the map as the network gives it. See docs/concepts/uncertainty.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.experiments import pixel_entropy
from hemalum.metrics import at_temperature, match, measure_overlap
from hemalum.models import Card

OUTLIER = 3.5  # robust standard deviations; Iglewicz and Hoaglin, "How to detect and handle outliers", 1993
FEWEST = 10  # nuclei of a stratum: of fewer nobody knows what is usual

Floats = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class NucleusUncertainty:
    """The N nuclei of a field, (N,) float64 each; nan for one that has no pixel of its own in the label map.

    `entropy` is the mean over its pixels, nats. `distance` is that of its mean probability to the threshold, in
    [0, 1]. `disagreement` is 1 minus the IoU with the nucleus that lies best on it when the image is seen otherwise,
    the mean over those looks; nan without any.
    """

    entropy: Floats
    distance: Floats
    disagreement: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A field to look at: an image, or a `window` x, y, width, height (px) of one, with what is known of it.

    `stratum` is what it is compared within: its organ, folder or slide. `entropy` is the mean over its pixels, nats;
    with `of_nuclei`, where the maps are not at hand, the mean over its nuclei of the entropy of each one's mean
    probability. `disagreement` is 1 minus the PQ of its nuclei against those of other looks. Either is nan where
    nobody knows. `area` (µm², or px without scale) and `solidity` are (N,), of its nuclei.
    """

    name: str
    stratum: str
    entropy: float
    disagreement: float
    area: Floats
    solidity: Floats
    window: tuple[int, int, int, int] | None = None
    of_nuclei: bool = False


def temperature_of(card: Card) -> float:
    """The temperature that a model's probabilities were fitted to (`hemalum calibrate`); 1 where they were not."""
    return 1.0 if card.calibration is None else card.calibration.temperature


def pixel_uncertainty(probability: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float32]:
    """Entropy of each pixel's probability of nucleus at a temperature, nats, in [0, log 2]; any shape."""
    return pixel_entropy(at_temperature(probability, temperature))


def measure_nuclei(
    labels: Labels,
    ids: Sequence[int] | NDArray[np.integer[Any]],
    probability: NDArray[np.floating[Any]],
    threshold: float,
    looks: Sequence[Labels] = (),
    *,
    temperature: float = 1.0,
) -> NucleusUncertainty:
    """The nuclei with these ids (N,) in a label map (H, W), from the probability (H, W) that they were separated on.

    `looks` are label maps of the same image, seen otherwise and turned back; their ids are their own. Raises
    HemalumError when the shapes do not fit.
    """
    if probability.shape != labels.shape:
        raise HemalumError(f"probability map is {probability.shape}, label map {labels.shape}")
    wanted = np.asarray(ids, np.int64)
    largest = int(max(labels.max(initial=0), wanted.max(initial=0)))
    index = labels.ravel().astype(np.int64)
    area = np.bincount(index, minlength=largest + 1)[wanted]
    entropies = pixel_uncertainty(probability, temperature)
    with np.errstate(invalid="ignore", divide="ignore"):
        entropy, mean = (
            np.bincount(index, weights=values.ravel(), minlength=largest + 1)[wanted] / area
            for values in (entropies, probability)
        )
    best = np.zeros((len(looks), largest + 1))
    for k, look in enumerate(looks):
        overlap = measure_overlap(labels, look)
        np.maximum.at(best[k], overlap.truth_ids[overlap.pair_truth], overlap.iou)
    unlike = 1 - best[:, wanted].mean(axis=0) if len(looks) else np.full(wanted.size, math.nan)
    unlike[area == 0] = math.nan
    return NucleusUncertainty(entropy, np.abs(mean - threshold), unlike)


def field_disagreement(labels: Labels, looks: Sequence[Labels]) -> float:
    """1 minus the mean PQ of a label map against the other looks; nan without any.

    So also a nucleus counts that other looks alone have. A look that has no nucleus either agrees.
    """
    if not looks:
        return math.nan
    agreement = [match(measure_overlap(labels, look)).pq for look in looks]
    return 1 - float(np.mean([1.0 if math.isnan(pq) else pq for pq in agreement]))


def robust_z(values: Floats) -> Floats:
    """By how many standard deviations values (N,) lie off, with median and MAD in the place of mean and sd.

    0.6745 (x − median) / MAD; where more than half are equal and the MAD is 0, (x − median) / (1.2533 × mean absolute
    deviation); 0 where all are equal. nan stays, and does not count. Source: Iglewicz and Hoaglin, 1993.
    """
    known = values[~np.isnan(values)]
    if not known.size:
        return np.full(values.shape, math.nan)
    off = values - np.median(known)
    deviations = np.abs(known - np.median(known))
    spread = np.median(deviations) / 0.6745 or deviations.mean() * 1.2533
    return np.asarray(off / spread if spread else off, np.float64)


def outlier_scores(area: Floats, solidity: Floats) -> tuple[Floats, Floats]:
    """Robust z of log area and of solidity of the nuclei (N,) of a stratum; 0 where they are fewer than `FEWEST`."""
    if area.size < FEWEST:
        return np.zeros(area.size), np.zeros(area.size)
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.where(area > 0, np.log(area), math.nan)
    return robust_z(logarithm), robust_z(solidity)
