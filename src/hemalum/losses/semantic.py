"""Cross-entropy, with Dice, for one softmax head: semantic segmentation."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from hemalum.losses.loss import Loss, LossInputs
from hemalum.losses.maps import masked_cross_entropy, soft_dice, with_background


class CrossEntropy(Loss):
    """Mean cross-entropy over pixels, plus `dice` times 1 - Dice of the classes without background.

    What a crop shows beyond its image is mirrored; with `beyond` ignore it counts in neither.
    """

    needs: ClassVar[tuple[str, ...]] = ("inside",)
    only: ClassVar[frozenset[str] | None] = frozenset({"softmax"})

    name: Literal["cross_entropy"] = "cross_entropy"
    dice: float = Field(1.0, ge=0, description="weight of the Dice term; the paper of CSRA-Net has none")
    beyond: Literal["ignore", "count"] = Field("ignore", description="pixels of a crop that lie beyond its image")

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """See `Loss`."""
        logits, targets = inputs.outputs.logits, inputs.targets
        inside = inputs.extra["inside"] if self.beyond == "ignore" else torch.ones_like(targets[:, :1])
        parts = {
            "cross_entropy": masked_cross_entropy(
                logits, with_background(targets), inside[:, 0], inputs.all_reduce_sum
            )
        }
        if self.dice:
            shares = logits.softmax(1)[:, 1:] * inside
            parts["dice"] = self.dice * soft_dice(shares, targets * inside, inputs.all_reduce_sum)
        return parts
