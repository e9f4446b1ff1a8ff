"""The loss of U-Net3+ (Huang et al. 2020): focal, multi-scale structural similarity and IoU, at every depth."""

from functools import cache
from typing import ClassVar, Literal

import kornia
import torch
from pydantic import Field
from torch import Tensor

from hemalum.losses.deep_supervision import at_all_depths, presence_part
from hemalum.losses.focal_dice import focal
from hemalum.losses.loss import Loss, LossInputs

_SOFT = 1e-6


def soft_iou(probability_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """1 - IoU of soft maps, image by image and map by map, averaged."""
    overlap = (probability_BCHW * target_BCHW).sum((2, 3))
    union = probability_BCHW.sum((2, 3)) + target_BCHW.sum((2, 3)) - overlap
    return (1 - (overlap + _SOFT) / (union + _SOFT)).mean()


def ms_ssim(probability_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
    """1 - MS-SSIM (Wang et al. 2003), averaged over maps and pixels.

    The scales are five Gaussians (sigma 0.5 to 8 px) at full resolution, as kornia has them, in place of a pyramid:
    it takes images of any size.
    """
    flat = (x.reshape(-1, 1, *x.shape[2:]) for x in (probability_BCHW, target_BCHW))
    result: Tensor = _similarity(probability_BCHW.device)(*flat)
    return result


@cache
def _similarity(device: torch.device) -> torch.nn.Module:
    return kornia.losses.MS_SSIMLoss(alpha=1.0, compensation=1.0).to(device)


class UNet3PlusLoss(Loss):
    """Focal + MS-SSIM + IoU of the logits and of each auxiliary output; besides, presence of nuclei by image."""

    only: ClassVar[frozenset[str] | None] = frozenset({"sigmoid"})

    name: Literal["unet3plus"] = "unet3plus"
    focal: float = Field(1.0, ge=0, description="weight of the focal loss")
    ms_ssim: float = Field(1.0, ge=0, description="weight of 1 - MS-SSIM; 0 does not compute it")
    iou: float = Field(1.0, ge=0, description="weight of 1 - IoU")
    gamma: float = Field(2.0, ge=0, description="exponent of the focal loss")
    aux_weight: float = Field(1.0, ge=0, description="weight of each auxiliary output, where there are any")
    presence: float = Field(1.0, ge=0, description="weight of presence by image, where the network has it")

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """See `Loss`."""

        def parts_of(logits: Tensor) -> dict[str, Tensor]:
            probability = logits.sigmoid()
            parts = {
                "focal": self.focal * focal(logits, inputs.targets, self.gamma),
                "iou": self.iou * soft_iou(probability, inputs.targets),
            }
            if self.ms_ssim:
                parts["ms_ssim"] = self.ms_ssim * ms_ssim(probability, inputs.targets)
            return parts

        return at_all_depths(inputs, parts_of, self.aux_weight) | presence_part(inputs, self.presence)
