"""Cross-entropy, with Dice, for one softmax head: semantic segmentation."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hemalum.losses.loss import AddUp, Given, Loss, whole
from hemalum.losses.maps import soft_dice


class CrossEntropy(Loss):
    """Mean cross-entropy over pixels, plus `dice` times 1 - Dice of the classes without background.

    What a crop shows beyond its image is mirrored; with `beyond` ignore it counts in neither.
    """

    needs: ClassVar[tuple[str, ...]] = ("inside",)
    only: ClassVar[frozenset[str] | None] = frozenset({"softmax"})

    name: Literal["cross_entropy"] = "cross_entropy"
    dice: float = Field(1.0, ge=0, description="weight of the Dice term; the paper of CSRA-Net has none")
    beyond: Literal["ignore", "count"] = Field("ignore", description="pixels of a crop that lie beyond its image")

    def __call__(self, given: Given) -> dict[str, Tensor]:
        """See `Loss`."""
        logits, targets = given.outputs.logits, given.targets
        inside = given.extra["inside"] if self.beyond == "ignore" else torch.ones_like(targets[:, :1])
        parts = {"cross_entropy": masked_cross_entropy(logits, with_background(targets), inside[:, 0], given.add_up)}
        if self.dice:
            shares = logits.softmax(1)[:, 1:] * inside
            parts["dice"] = self.dice * soft_dice(shares, targets * inside, given.add_up)
        return parts


def with_background(targets_BCHW: Tensor) -> Tensor:
    """Shares of the classes (B, C, H, W) with that of the background in front (B, C + 1, H, W)."""
    return torch.cat([1 - targets_BCHW.sum(1, keepdim=True), targets_BCHW], dim=1)


def masked_cross_entropy(logits_BCHW: Tensor, targets: Tensor, weight_BHW: Tensor, add_up: AddUp = whole) -> Tensor:
    """Cross-entropy, the weighted mean over pixels; 0 where no pixel has weight.

    `targets` are shares (B, C, H, W) float32 or classes (B, H, W) int64.
    """
    losses = F.cross_entropy(logits_BCHW, targets, reduction="none") * weight_BHW
    sums = add_up(torch.stack([losses.sum(), weight_BHW.sum()]))
    return sums[0] / sums[1].clamp_min(1)
