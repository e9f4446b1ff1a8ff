"""Whether stated probabilities hold: the reliability curve, its error, and the temperature that mends them.

All of it is of pixels counted by probability (`ProbabilityCounts`): a pixel stands for the center of its fine bin, so
a probability is off by at most 1 / (2 BINS), and none is 0 or 1, whose logarithm or logit would be infinite.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from hemalum.errors import HemalumError
from hemalum.metrics.curves import BINS, ProbabilityCounts

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ECE_BINS = 15
COLDEST, HOTTEST = 0.05, 20.0  # temperatures that are looked at; beyond, all is sure or nothing is


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """How often pixels of a stated probability are nucleus: one entry per bin, (B,) each.

    `predicted` is the mean probability and `observed` the share that is nucleus (float64, nan in an empty
    bin); `count` is the number of pixels (int64).
    """

    predicted: Floats
    observed: Floats
    count: Ints


def reliability(counts: ProbabilityCounts, bins: int = ECE_BINS, *, temperature: float = 1.0) -> Reliability:
    """The reliability curve in `bins` bins of equal width, of the probabilities at a temperature (`at_temperature`).

    Raises HemalumError unless 1 <= bins <= BINS.
    """
    if not 1 <= bins <= BINS:
        raise HemalumError(f"reliability: bins must be between 1 and {BINS}, not {bins}")
    stated = _centers(temperature)
    index = np.minimum((stated * bins).astype(np.int64), bins - 1)
    pixels = counts.positive + counts.negative
    count = np.bincount(index, weights=pixels, minlength=bins)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(index, weights=pixels * stated, minlength=bins) / count
        observed = np.bincount(index, weights=counts.positive, minlength=bins) / count
    return Reliability(predicted, observed, count.astype(np.int64))


def calibration_error(counts: ProbabilityCounts, bins: int = ECE_BINS, *, temperature: float = 1.0) -> float:
    """Expected calibration error (ECE): the gap between observed and predicted, averaged over pixels.

    Of the probability of nucleus in bins of equal width (not of the surer class). nan without pixels.
    Source: Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.
    """
    curve = reliability(counts, bins, temperature=temperature)
    if curve.count.sum() == 0:
        return math.nan
    filled = curve.count > 0
    gaps = np.abs(curve.observed[filled] - curve.predicted[filled])
    return float((gaps * curve.count[filled]).sum() / curve.count.sum())


def at_temperature(probability: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.floating[Any]]:
    """Probabilities p, any shape, whose log odds are divided by the temperature: p^(1/T) / (p^(1/T) + (1-p)^(1/T)).

    The dtype stays. Above 1 all become less sure, below 1 surer; 0, 0.5 and 1 stay, and so does every order. Raises
    HemalumError for a temperature that is not above 0.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise HemalumError(f"temperature is {temperature}: want a number above 0")
    if temperature == 1:
        return probability
    p = np.clip(probability.astype(np.float64), 0, 1)
    with np.errstate(divide="ignore"):
        odds = (np.log(p) - np.log1p(-p)) / temperature
    scaled: NDArray[np.floating[Any]] = (0.5 * (1 + np.tanh(odds / 2))).astype(probability.dtype)
    return scaled


def negative_log_likelihood(counts: ProbabilityCounts, temperature: float = 1.0) -> float:
    """Mean over the pixels of −log of the probability given to what they are, nats; nan without pixels."""
    total = counts.positive.sum() + counts.negative.sum()
    if not total:
        return math.nan
    odds = _log_odds() / temperature
    # −log σ(x) = log(1 + exp(−x)), without overflow
    losses = counts.positive * np.logaddexp(0, -odds) + counts.negative * np.logaddexp(0, odds)
    return float(losses.sum() / total)


def fit_temperature(counts: ProbabilityCounts) -> float:
    """The temperature in [`COLDEST`, `HOTTEST`] at which what the pixels are is likeliest.

    Source: Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017, temperature scaling,
    here with the sigmoid of one class. Raises HemalumError without pixels of nuclei and of background.
    """
    if not counts.positive.any() or not counts.negative.any():
        raise HemalumError(
            "a temperature is fitted on pixels of nuclei and of background, and one of them is missing"
        )
    # in the inverse of the temperature the function is convex, so that it has one minimum
    minimum = minimize_scalar(
        lambda inverse: negative_log_likelihood(counts, 1 / inverse),
        bounds=(1 / HOTTEST, 1 / COLDEST), method="bounded", options={"xatol": 1e-6},
    )  # fmt: skip
    return float(1 / minimum.x)


def _centers(temperature: float) -> Floats:
    """Probability that the pixels of each fine bin state, (BINS,)."""
    return np.asarray(at_temperature((np.arange(BINS) + 0.5) / BINS, temperature), np.float64)


def _log_odds() -> Floats:
    centers = (np.arange(BINS) + 0.5) / BINS
    return np.asarray(np.log(centers) - np.log1p(-centers), np.float64)
