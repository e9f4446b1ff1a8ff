"""The losses of U-Net3+ (Huang et al. 2020) and eU-Net3+ (Swain, Cheoi, Ko 2024), at every depth."""

from collections.abc import Callable
from functools import cache, partial
from typing import Literal

import kornia
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hemalum.losses.loss import AllReduceSum, Loss, LossInputs, identity, masked_mean
from hemalum.losses.maps import soft_dice

_SOFT = 1e-6


def focal(
    logits_BCHW: Tensor,
    target_BCHW: Tensor,
    gamma: float = 2.0,
    valid_B1HW: Tensor | None = None,
    all_reduce_sum: AllReduceSum = identity,
) -> Tensor:
    """Mean of -(1 - p_t)^gamma log(p_t), p_t the probability of what is so (Lin et al. 2017); two-class maps."""
    surprise = F.binary_cross_entropy_with_logits(logits_BCHW, target_BCHW, reduction="none")
    probability = logits_BCHW.sigmoid()
    wrong = probability * (1 - target_BCHW) + (1 - probability) * target_BCHW
    return masked_mean(wrong**gamma * surprise, valid_B1HW, all_reduce_sum)


def soft_iou(probability_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor | None = None) -> Tensor:
    """1 - IoU of soft maps, image by image and map by map, averaged; over the pixels that are `valid`."""
    if valid_B1HW is not None:
        probability_BCHW, target_BCHW = probability_BCHW * valid_B1HW, target_BCHW * valid_B1HW
    overlap = (probability_BCHW * target_BCHW).sum((2, 3))
    union = probability_BCHW.sum((2, 3)) + target_BCHW.sum((2, 3)) - overlap
    return (1 - (overlap + _SOFT) / (union + _SOFT)).mean()


def ms_ssim(
    probability_BCHW: Tensor,
    target_BCHW: Tensor,
    valid_B1HW: Tensor | None = None,
    all_reduce_sum: AllReduceSum = identity,
) -> Tensor:
    """1 - MS-SSIM (Wang et al. 2003), averaged over maps and pixels.

    The scales are five Gaussians (sigma 0.5 to 8 px) at full resolution, as kornia has them, in place of a pyramid:
    it takes images of any size. To a window about a pixel those that are not `valid` are 0 in both maps, as those
    beyond the crop are.
    """
    if valid_B1HW is not None:
        probability_BCHW, target_BCHW = probability_BCHW * valid_B1HW, target_BCHW * valid_B1HW
    flat = (x.reshape(-1, 1, *x.shape[2:]) for x in (probability_BCHW, target_BCHW))
    losses = _similarity(probability_BCHW.device)(*flat).reshape(probability_BCHW.shape)
    return masked_mean(losses, valid_B1HW, all_reduce_sum)


@cache
def _similarity(device: torch.device) -> torch.nn.Module:
    return kornia.losses.MS_SSIMLoss(alpha=1.0, compensation=1.0, reduction="none").to(device)


def at_all_depths(
    inputs: LossInputs, parts_of: Callable[[Tensor], dict[str, Tensor]], aux_weight: float, presence: float
) -> dict[str, Tensor]:
    """The parts of the logits, and what a network gives besides, where it does.

    "aux_logits" is `aux_weight` times the sum of the parts of all auxiliary logits, "presence" `presence` times the
    cross-entropy of extras["presence"] (B, 2) against whether the image has a nucleus on its valid pixels, over the
    images that have any.
    """
    parts, outputs = parts_of(inputs.outputs.logits), inputs.outputs
    if outputs.aux_logits and aux_weight:
        sums = [torch.stack(list(parts_of(logits).values())).sum() for logits in outputs.aux_logits]
        parts["aux_logits"] = aux_weight * torch.stack(sums).sum()
    if "presence" in outputs.extras:
        valid = torch.ones_like(inputs.targets[:, :1]) if inputs.valid is None else inputs.valid
        present = ((inputs.targets * valid).amax((1, 2, 3)) > 0).long()
        losses = F.cross_entropy(outputs.extras["presence"], present, reduction="none")
        known = None if inputs.valid is None else valid.amax((1, 2, 3))
        parts["presence"] = presence * masked_mean(losses, known, inputs.all_reduce_sum)
    return parts


class UNet3PlusLoss(Loss):
    """Focal + MS-SSIM + IoU of the logits and of each auxiliary output; besides, presence of nuclei by image."""

    only = frozenset({"sigmoid"})

    name: Literal["unet3plus"] = "unet3plus"
    focal: float = Field(1.0, ge=0, description="weight of the focal loss")
    ms_ssim: float = Field(1.0, ge=0, description="weight of 1 - MS-SSIM; 0 does not compute it")
    iou: float = Field(1.0, ge=0, description="weight of 1 - IoU")
    gamma: float = Field(2.0, ge=0, description="exponent of the focal loss")
    aux_weight: float = Field(1.0, ge=0, description="weight of each auxiliary output, where there are any")
    presence: float = Field(1.0, ge=0, description="weight of presence by image, where the network has it")

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """See `Loss`."""
        mask = inputs.valid, inputs.all_reduce_sum

        def parts_of(logits: Tensor) -> dict[str, Tensor]:
            probability = logits.sigmoid()
            parts = {
                "focal": self.focal * focal(logits, inputs.targets, self.gamma, *mask),
                "iou": self.iou * soft_iou(probability, inputs.targets, inputs.valid),
            }
            if self.ms_ssim:
                parts["ms_ssim"] = self.ms_ssim * ms_ssim(probability, inputs.targets, *mask)
            return parts

        return at_all_depths(inputs, parts_of, self.aux_weight, self.presence)


class FocalDice(Loss):
    """`focal` times the focal loss plus `dice` times 1 - Dice, each over all maps of 0 and 1.

    The paper's code has Jaccard's union in the Dice term; `union` takes that form. It has two sigmoid maps, nucleus
    and background; `background` averages the Dice of the background, 1 - p, into that of each map (the focal loss of
    both is the same). `aux_weight` weighs auxiliary logits, `presence` those of the classification-guided module. A
    graded map, `distance`, has binary cross-entropy against its target, as in loss `maps`.
    """

    only = frozenset({"sigmoid"})

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
        term = partial(
            soft_dice, all_reduce_sum=inputs.all_reduce_sum, over_union=self.union, valid_B1HW=inputs.valid
        )

        graded = [index for index, channel in enumerate(inputs.channels) if channel == "distance"]
        plain = [index for index in range(len(inputs.channels)) if index not in graded]

        def parts_of(all_logits: Tensor) -> dict[str, Tensor]:
            logits, truth = all_logits[:, plain], inputs.targets[:, plain]
            probability = logits.sigmoid()
            dice = term(probability, truth)
            if self.background:
                dice = (dice + term(1 - probability, 1 - truth)) / 2
            mean = focal(logits, truth, self.gamma, inputs.valid, inputs.all_reduce_sum)
            parts = {"focal": self.focal * mean, "dice": self.dice * dice}
            if graded:
                misses = F.binary_cross_entropy_with_logits(
                    all_logits[:, graded], inputs.targets[:, graded], reduction="none"
                )
                parts["distance"] = masked_mean(misses, inputs.valid, inputs.all_reduce_sum)
            return parts

        return at_all_depths(inputs, parts_of, self.aux_weight, self.presence)
