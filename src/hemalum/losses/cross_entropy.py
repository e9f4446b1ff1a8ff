"""Cross-entropy of sigmoid maps, of all that a network gives, and of one softmax head, with Dice."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hemalum.losses.loss import Loss, LossInputs, masked_mean
from hemalum.losses.maps import soft_dice, with_background

AuxLogits = Literal["mean", "by_epoch", "none"]


class BinaryCrossEntropy(Loss):
    """Mean binary cross-entropy over the pixels that count, and maps."""

    only = frozenset({"sigmoid"})

    name: Literal["bce"] = "bce"
    aux_logits: AuxLogits = Field(
        "mean",
        description="further heads: mean of all heads (U-Net++), the last head + 1/epoch times the sum of the "
        "others (Micro-Net), or none of them",
    )
    stage1_weight: float = Field(
        0.0, ge=0, description="weight of the loss of what a second stage is given (two_stage)"
    )

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """See `Loss`."""
        outputs = inputs.outputs
        parts = {"bce": self._cross_entropy(outputs.logits, inputs)}
        if outputs.aux_logits and self.aux_logits != "none":
            others = torch.stack([self._cross_entropy(logits, inputs) for logits in outputs.aux_logits]).sum()
            if self.aux_logits == "mean":
                heads = 1 + len(outputs.aux_logits)
                parts = {"bce": parts["bce"] / heads, "bce_aux": others / heads}
            else:
                parts["bce_aux"] = others / inputs.epoch
        if self.stage1_weight and "stage1_logits" in outputs.extras:
            parts["bce_stage1"] = self.stage1_weight * self._cross_entropy(outputs.extras["stage1_logits"], inputs)
        return parts

    def factors(self, inputs: LossInputs) -> dict[str, float]:
        """See `Loss`."""
        fading = self.aux_logits == "by_epoch" and inputs.outputs.aux_logits
        return {"aux_logits_weight": 1 / inputs.epoch} if fading else {}

    def _cross_entropy(self, logits_BCHW: Tensor, inputs: LossInputs) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(logits_BCHW, inputs.targets, reduction="none")
        return masked_mean(losses, inputs.valid, inputs.all_reduce_sum)


class BorderCrossEntropy(BinaryCrossEntropy):
    """Binary cross-entropy whose pixels weigh more where background is narrow (Ronneberger et al. 2015).

    The mean of weight times cross-entropy over all pixels, as U-Net and Micro-Net have it.
    """

    needs = ("border_weight",)

    name: Literal["border_bce"] = "border_bce"  # type: ignore[assignment]

    def _cross_entropy(self, logits_BCHW: Tensor, inputs: LossInputs) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(logits_BCHW, inputs.targets, reduction="none")
        return masked_mean(losses * inputs.extra["border_weight"], inputs.valid, inputs.all_reduce_sum)


class CrossEntropy(Loss):
    """Mean cross-entropy over pixels, plus `dice` times 1 - Dice of the classes without background."""

    only = frozenset({"softmax"})

    name: Literal["cross_entropy"] = "cross_entropy"
    dice: float = Field(1.0, ge=0, description="weight of the Dice term; the paper of CSRA-Net has none")

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """See `Loss`."""
        logits, targets = inputs.outputs.logits, inputs.targets
        losses = F.cross_entropy(logits, with_background(targets), reduction="none")[:, None]
        parts = {"cross_entropy": masked_mean(losses, inputs.valid, inputs.all_reduce_sum)}
        if self.dice:
            shares = logits.softmax(1)[:, 1:]
            dice = soft_dice(shares, targets, inputs.all_reduce_sum, valid_B1HW=inputs.valid)
            parts["dice"] = self.dice * dice
        return parts
