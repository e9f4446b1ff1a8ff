"""Which images are drawn how often where classes and tissues are rare: category-adaptive sampling.

CSRA-Net 2025, eq. 1-6, which are those of CellViT's sampling (Hörst et al. 2024, eq. 10-12) with a strength that
falls. Eq. 1-2, the imbalance of a category and its inverse, are what eq. 3 comes to at full strength: N / N_t, the
inverse frequency. docs/systems/csra_net.md says which readings were taken.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hemalum.settings import Strict

Weights = NDArray[np.float64]


class FixedShares(Strict):
    """Each batch holds as many images of each dataset as its weight says, evenly mixed; within it all alike."""

    name: Literal["fixed_shares"] = "fixed_shares"


def share_batch(weights: Sequence[float], batch: int) -> NDArray[np.int64]:
    """Which set (batch,) stands at each place of a batch, so that its shares are those of the `weights`.

    Of K sets each gets the whole number that is nearest by running sums, in every batch the same; the sets take
    turns, so that any stretch of the batch has about these shares as well.
    """
    edges = np.cumsum(weights) / np.sum(weights)
    of_place = np.searchsorted(edges, (np.arange(batch) + 0.5) / batch, side="right").clip(max=len(weights) - 1)
    turns = [((i + 0.5) / count, k) for k, count in enumerate(np.bincount(of_place)) for i in range(count)]
    return np.array([k for _, k in sorted(turns)], np.int64)


class CategoryAdaptive(Strict):
    """Images of rare tissues and with rare classes are drawn more often, less so as training goes on."""

    name: Literal["category_adaptive"] = "category_adaptive"
    gamma: float = Field(0.85, ge=0, le=1, description="strength at the start: 0 all alike, 1 inverse frequency")
    period: int = Field(10, ge=1, description="passes over the labeled images between two changes of the strength")


def tissue_weights(tissues: Sequence[str | None], gamma: float) -> Weights:
    """w_T of each image (eq. 3): N / (γ N_t + (1 - γ) N), N_t the number of images of its tissue."""
    counts = Counter(tissues)
    tissue_counts = np.array([counts[tissue] for tissue in tissues], float)
    weights: Weights = len(tissues) / (gamma * tissue_counts + (1 - gamma) * len(tissues))
    return weights


def class_weights(present: NDArray[np.bool_], gamma: float) -> Weights:
    """w_C of each image (eq. 4) from which classes it holds, (images, classes).

    (1 - γ) max_j c_ij + γ Σ_j c_ij N_C / (γ Σ_k c_kj + (1 - γ) N_C), N_C the sum of c over images and classes. Images
    without nuclei get the smallest weight of the others.
    """
    held = present.sum(axis=0)
    total = int(held.sum())
    if total == 0:
        return np.ones(len(present))
    rarity = total / (gamma * held + (1 - gamma) * total) if gamma < 1 else total / np.maximum(held, 1)
    weights: Weights = (1 - gamma) * present.any(axis=1) + gamma * (present * rarity).sum(axis=1)
    empty = ~present.any(axis=1)
    weights[empty] = weights[~empty].min()
    return weights


def image_weights(tissues: Sequence[str | None], present: NDArray[np.bool_], gamma: float) -> Weights:
    """w of each image (eq. 5): the sum of both, each over its largest."""
    tissue, classes = tissue_weights(tissues, gamma), class_weights(present, gamma)
    weights: Weights = tissue / tissue.max() + classes / classes.max()
    return weights


def strength(settings: CategoryAdaptive, epoch: int, epochs: int) -> float:
    """γ in `epoch` (from 0) of `epochs` (eq. 6): a staircase that falls every `period` epochs."""
    return settings.gamma * max(0.0, 1 - (epoch - epoch % settings.period) / max(1, epochs))
