"""Tversky loss, and the loss of ClinSegNet that weighs it with binary cross-entropy and an edge term."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hemalum.losses.loss import AllReduceSum, Loss, LossInputs, identity, masked_mean

EDGE = "edge"  # the channel with a term of its own
_SOFT = 1e-6


def tversky(
    probability_BCHW: Tensor, target_BCHW: Tensor, alpha: float, beta: float, all_reduce_sum: AllReduceSum = identity,
    valid_B1HW: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """1 − TP / (TP + α FP + β FN) of soft maps, pooled over the batch and averaged over channels.

    Counted are the pixels that are `valid`.
    Salehi, Erdogmus, Gholipour 2017: α weighs false positives, β false negatives; both at ½ it is the Dice loss.
    """
    hits, false_alarms = probability_BCHW * target_BCHW, probability_BCHW * (1 - target_BCHW)
    maps = torch.stack([hits, false_alarms, (1 - probability_BCHW) * target_BCHW])
    if valid_B1HW is not None:
        maps = maps * valid_B1HW
    tp, fp, fn = all_reduce_sum(maps.sum((1, 3, 4)))
    index: Tensor = (tp + _SOFT) / (tp + alpha * fp + beta * fn + _SOFT)
    return (1 - index).mean()


class Tversky(Loss):
    """The Tversky loss of every map."""

    only = frozenset({"sigmoid"})

    name: Literal["tversky"] = "tversky"
    alpha: float = Field(0.3, ge=0, description="weight of false positives")
    beta: float = Field(0.7, ge=0, description="weight of false negatives")

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """See `Loss`."""
        probability = inputs.outputs.logits.sigmoid()
        part = tversky(probability, inputs.targets, self.alpha, self.beta, inputs.all_reduce_sum, inputs.valid)
        return {"tversky": part}


class Histo(Loss):
    """HistoLoss of ClinSegNet: w₁ BCE + w₂ Tversky of the maps, and λ BCE of the edge map where there is one.

    The paper prints w₁ : w₂ (0.3 : 0.7 is its best row); α, β and λ are read (docs/systems/clin_seg_net.md).
    """

    only = frozenset({"sigmoid"})

    name: Literal["histo"] = "histo"
    bce: float = Field(0.3, ge=0, description="weight of binary cross-entropy, w₁")
    tversky: float = Field(0.7, ge=0, description="weight of the Tversky term, w₂")
    edge: float = Field(0.2, ge=0, description="weight of the edge map's binary cross-entropy, λ")
    alpha: float = Field(0.3, ge=0, description="weight of false positives in the Tversky term")
    beta: float = Field(0.7, ge=0, description="weight of false negatives in the Tversky term")

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """See `Loss`."""
        regions = [index for index, channel in enumerate(inputs.channels) if channel != EDGE]
        logits, targets = inputs.outputs.logits[:, regions], inputs.targets[:, regions]
        parts = {
            "bce": self.bce * _cross_entropy(logits, targets, inputs),
            "tversky": self.tversky
            * tversky(logits.sigmoid(), targets, self.alpha, self.beta, inputs.all_reduce_sum, inputs.valid),
        }
        if EDGE in inputs.channels:
            edge = [inputs.channels.index(EDGE)]
            edge_bce = _cross_entropy(inputs.outputs.logits[:, edge], inputs.targets[:, edge], inputs)
            parts["edge"] = self.edge * edge_bce
        return parts


def _cross_entropy(logits: Tensor, targets: Tensor, inputs: LossInputs) -> Tensor:
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return masked_mean(losses, inputs.valid, inputs.all_reduce_sum)
