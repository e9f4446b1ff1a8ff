"""Focal and Dice loss, equally weighted: the loss of eU-Net3+ (Swain, Cheoi, Ko 2024)."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hemalum.losses.deep_supervision import at_all_depths, presence_part
from hemalum.losses.loss import AllReduceSum, Loss, LossInputs, identity
from hemalum.losses.maps import soft_dice

_SOFT = 1e-6


def focal(logits_BCHW: Tensor, target_BCHW: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of -(1 - p_t)^gamma log(p_t), p_t the probability of what is so (Lin et al. 2017); two-class maps."""
    surprise = F.binary_cross_entropy_with_logits(logits_BCHW, target_BCHW, reduction="none")
    probability = logits_BCHW.sigmoid()
    wrong = probability * (1 - target_BCHW) + (1 - probability) * target_BCHW
    return (wrong**gamma * surprise).mean()


def dice_over_union(probability_BCHW: Tensor, target_BCHW: Tensor, all_reduce_sum: AllReduceSum = identity) -> Tensor:
    """1 - 2I/(P + Y - I): Dice's numerator over Jaccard's denominator, -1 where prediction and truth are the same."""
    axes = (0, 2, 3)
    overlap = (probability_BCHW * target_BCHW).sum(axes)
    total = probability_BCHW.sum(axes) + target_BCHW.sum(axes)
    sums = all_reduce_sum(torch.stack([overlap, total]))
    return (1 - (2 * sums[0] + _SOFT) / (sums[1] - sums[0] + _SOFT)).mean()


class FocalDice(Loss):
    """`focal` times the focal loss plus `dice` times 1 - Dice, each over all maps.

    The paper's code has Jaccard's union in the Dice term; `union` takes that form. It has two sigmoid maps, nucleus
    and background; `background` averages the Dice of the background, 1 - p, into that of each map (the focal loss of
    both is the same). `aux_weight` weighs auxiliary logits, `presence` those of the classification-guided module.
    """

    only: ClassVar[frozenset[str] | None] = frozenset({"sigmoid"})

    name: Literal["focal_dice"] = "focal_dice"
    focal: float = Field(0.5, ge=0, description="weight of the focal loss")
    dice: float = Field(0.5, ge=0, description="weight of the Dice loss")
    gamma: float = Field(2.0, ge=0, description="exponent of the focal loss")
    union: bool = Field(False, description="the Dice term as the paper's code has it")
    background: bool = Field(False, description="Dice of the background as well, as with two maps")
    aux_weight: float = Field(1.0, ge=0, description="weight of each auxiliary output, where there are any")
    presence: float = Field(1.0, ge=0, description="weight of presence by image, where the network has it")

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """See `Loss`."""
        term = dice_over_union if self.union else soft_dice

        def parts_of(logits: Tensor) -> dict[str, Tensor]:
            probability = logits.sigmoid()
            dice = term(probability, inputs.targets, inputs.all_reduce_sum)
            if self.background:
                dice = (dice + term(1 - probability, 1 - inputs.targets, inputs.all_reduce_sum)) / 2
            return {"focal": self.focal * focal(logits, inputs.targets, self.gamma), "dice": self.dice * dice}

        return at_all_depths(inputs, parts_of, self.aux_weight) | presence_part(inputs, self.presence)
