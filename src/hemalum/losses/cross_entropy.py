"""Binary cross-entropy, alone or with what a network gives beside its logits: further heads, and an inner network."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hemalum.losses.loss import Given, Loss

Sides = Literal["mean", "by_epoch", "none"]


class BinaryCrossEntropy(Loss):
    """Mean binary cross-entropy over all pixels and maps."""

    only: ClassVar[frozenset[str] | None] = frozenset({"sigmoid"})

    name: Literal["bce"] = "bce"
    sides: Sides = Field(
        "mean",
        description="further heads: mean of all heads (U-Net++), the last head + 1/epoch times the sum of the "
        "others (Micro-Net), or none of them",
    )
    first: float = Field(0.0, ge=0, description="weight of the loss of what a second stage is given (two_stage)")

    def __call__(self, given: Given) -> dict[str, Tensor]:
        """See `Loss`."""
        outputs = given.outputs
        parts = {"bce": self._of(outputs.logits, given)}
        if outputs.sides and self.sides != "none":
            others = torch.stack([self._of(side, given) for side in outputs.sides]).sum()
            if self.sides == "mean":
                heads = 1 + len(outputs.sides)
                parts = {"bce": parts["bce"] / heads, "bce_sides": others / heads}
            else:
                parts["bce_sides"] = others / given.epoch
        if self.first and "first" in outputs.extras:
            parts["bce_first"] = self.first * self._of(outputs.extras["first"], given)
        return parts

    def factors(self, given: Given) -> dict[str, float]:
        """See `Loss`."""
        return {"sides_weight": 1 / given.epoch} if self.sides == "by_epoch" and given.outputs.sides else {}

    def _of(self, logits_BCHW: Tensor, given: Given) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits_BCHW, given.targets)


class BorderCrossEntropy(BinaryCrossEntropy):
    """Binary cross-entropy whose pixels weigh more where background is narrow (Ronneberger et al. 2015).

    The mean of weight times cross-entropy over all pixels, as U-Net and Micro-Net have it.
    """

    needs: ClassVar[tuple[str, ...]] = ("border_weight",)

    name: Literal["border_bce"] = "border_bce"  # type: ignore[assignment]

    def _of(self, logits_BCHW: Tensor, given: Given) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits_BCHW, given.targets, given.extra["border_weight"])
