"""AL-Net's loss: Dice, and beside it two terms that look at the contour, which fade in.

    L = (1 - r) L_Dice + (s λ_b + r) L_bd + s λ_g L_grad,    r = 0 unless weight is moved (`rebalance`)

L_bd weighs every probability with its signed distance to the true contour (Kervadec et al. 2019); L_grad compares the
gradients of the predicted and of the true map near it, by size and by direction. The paper names the terms and prints
no equation: docs/systems/al_net.md says what was read into it.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from hemalum.errors import HemalumError
from hemalum.losses.loss import AllReduceSum, Loss, LossInputs, identity, masked_mean
from hemalum.losses.maps import soft_dice

_FLAT = 1e-6  # a gradient this small has no direction
_LEAST_DICE = 0.1  # what rebalancing leaves of Dice at least


def boundary_loss(
    probability_B1HW: Tensor,
    signed_distance_B1HW: Tensor,
    valid_B1HW: Tensor | None = None,
    all_reduce_sum: AllReduceSum = identity,
) -> Tensor:
    """Mean of probability · signed distance (Kervadec et al. 2019, eq. 5); distances in px, positive outside.

    Negative where the prediction is good: the least possible value is that of the true mask itself.
    """
    return masked_mean(probability_B1HW * signed_distance_B1HW, valid_B1HW, all_reduce_sum)


def gradient_loss(
    probability_B1HW: Tensor,
    target_B1HW: Tensor,
    band: int = 3,
    direction_from: float = 0.5,
    all_reduce_sum: AllReduceSum = identity,
    valid_B1HW: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Difference of the maps' Sobel gradients over the pixels within `band` px of the true contour: size, direction.

    Size is ‖∇p - ∇y‖₁, direction min(1, ‖∇p‖ / τ) (1 - cos of the angle between them), a distance on the circle of
    normals. It counts in full from a gradient τ = `direction_from` on: the direction of a nearly flat map is chance,
    and its derivative grows as 1/‖∇p‖. Where the true map is flat (the band is wider than its edge) there is no
    direction to have, and none is counted. 0 for both where no contour is in sight. A pixel counts where its whole
    gradient is over `valid` pixels.
    """
    near = contour_band(target_B1HW, band, valid_B1HW)
    if valid_B1HW is not None:
        near = near * -F.max_pool2d(-valid_B1HW, 3, 1, 1)
    predicted, true = sobel(probability_B1HW), sobel(target_B1HW)
    size = (predicted - true).abs().sum(1, keepdim=True)
    steepness = true.square().sum(1, keepdim=True).sqrt()
    # under the root, so that a flat prediction has a gradient of its own to go along
    length = (predicted.square().sum(1, keepdim=True) + _FLAT**2).sqrt()
    cosine = (predicted * true).sum(1, keepdim=True) / (length * steepness + _FLAT)
    direction = (length / direction_from).clamp(max=1) * (1 - cosine) * (steepness > _FLAT)
    sums = all_reduce_sum(torch.stack([(size * near).sum(), (direction * near).sum(), near.sum()]))
    means = sums[:2] / sums[2].clamp_min(1)
    return means[0], means[1]


def sobel(maps_B1HW: Tensor) -> Tensor:
    """Gradients along x and y, (B, 2, H, W), scaled so that a step from 0 to 1 has 1; the map's edge is no step."""
    along = maps_B1HW.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    kernels = torch.stack([along, along.T])[:, None]
    return F.conv2d(F.pad(maps_B1HW, (1, 1, 1, 1), mode="replicate"), kernels)


def contour_band(target_B1HW: Tensor, band: int, valid_B1HW: Tensor | None = None) -> Tensor:
    """1 where a pixel on the other side of the contour lies within `band` px along rows, columns or diagonals.

    One that is not `valid` is on no side, and 0.
    """
    inside = (target_B1HW >= 0.5).to(target_B1HW.dtype)
    valid = torch.ones_like(inside) if valid_B1HW is None else valid_B1HW
    window = 2 * band + 1
    grown = F.max_pool2d(inside * valid, window, 1, band)
    shrunk = 1 - F.max_pool2d((1 - inside) * valid, window, 1, band)
    return (grown - shrunk) * valid


class Dice(Loss):
    """1 - Dice of the probabilities, over the whole batch, mean over maps."""

    only = frozenset({"sigmoid"})

    name: Literal["dice"] = "dice"

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """See `Loss`. Raises HemalumError for graded maps."""
        return {"dice": _dice(_probability(self.name, inputs), inputs)}


class ALNetLoss(Loss):
    """Dice and, fading in as the phase begins, the two terms at the contour."""

    needs = ("signed_distance",)
    only = frozenset({"sigmoid"})

    name: Literal["al_net"] = "al_net"
    boundary: float = Field(0.1, ge=0, description="λ_b, weight of the signed distance term")
    gradient: float = Field(0.5, ge=0, description="λ_g, weight of the gradient term")
    direction: bool = Field(True, description="compare the gradients' directions besides their sizes")
    direction_from: float = Field(
        0.5,
        gt=0,
        description="τ, gradient of the predicted map from which its direction counts in full; a step has 1",
    )
    band: int = Field(3, ge=1, description="px to each side of the true contour where gradients are compared")
    # a share, so that it stands in short trainings too: ten of the hundred epochs that docs/systems/al_net.md reads
    ramp: float = Field(0.1, ge=0, le=1, description="R, in shares of the run's steps, over which both terms fade in")
    rebalance: float | None = Field(
        None, gt=0, description="with each hundredth of the run, so much weight goes from Dice to the boundary term"
    )

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """See `Loss`. Raises HemalumError for graded maps, and maps without a foreground."""
        probability = _probability(self.name, inputs)
        channels = inputs.channels
        if "foreground" not in channels:
            raise HemalumError(f"loss '{self.name}' needs a map 'foreground'; there are {', '.join(channels)}")
        index = channels.index("foreground")
        nucleus, truth = probability[:, index : index + 1], inputs.targets[:, index : index + 1]
        size, direction = gradient_loss(
            nucleus, truth, self.band, self.direction_from, inputs.all_reduce_sum, inputs.valid
        )
        distance = inputs.extra["signed_distance"]
        dice_weight, boundary_weight, gradient_weight = self.weights(inputs)
        return {
            "dice": dice_weight * _dice(probability, inputs),
            "boundary": boundary_weight * boundary_loss(nucleus, distance, inputs.valid, inputs.all_reduce_sum),
            "gradient": gradient_weight * (size + direction if self.direction else size),
        }

    def ramp_factor(self, inputs: LossInputs) -> float:
        """How much of the two terms is there: s in [0, 1], and all where nothing is trained."""
        steps = self.ramp * inputs.run_steps
        return min(1.0, inputs.phase_step / steps) if steps else 1.0

    def weights(self, inputs: LossInputs) -> tuple[float, float, float]:
        """Weights of the three terms: 1 - r, s λ_b + r, s λ_g; r is what `rebalance` has moved, 0.9 at most."""
        hundredths = math.floor(100 * inputs.phase_step / inputs.run_steps) if inputs.run_steps else 0
        moved, ramp = min(1 - _LEAST_DICE, (self.rebalance or 0.0) * hundredths), self.ramp_factor(inputs)
        return 1 - moved, ramp * self.boundary + moved, ramp * self.gradient

    def factors(self, inputs: LossInputs) -> dict[str, float]:
        """See `Loss`."""
        dice_weight, boundary_weight, gradient_weight = self.weights(inputs)
        row = {
            "ramp": self.ramp_factor(inputs),
            "boundary_weight": boundary_weight,
            "gradient_weight": gradient_weight,
        }
        return row if self.rebalance is None else row | {"dice_weight": dice_weight}


def _dice(probability: Tensor, inputs: LossInputs) -> Tensor:
    return soft_dice(probability, inputs.targets, inputs.all_reduce_sum, valid_B1HW=inputs.valid)


def _probability(loss: str, inputs: LossInputs) -> Tensor:
    if "distance" in inputs.channels:
        raise HemalumError(f"loss '{loss}' is for maps of 0 and 1; 'distance' is graded: take loss 'maps'")
    return inputs.outputs.logits.sigmoid()
