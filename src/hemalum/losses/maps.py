"""Losses between logits and target maps, head by head.

Where a batch is shared by several processes, each has a part of it. Means over pixels need nothing, since parts are
of one size: the mean of the parts' losses is the loss. Ratios of sums do, and so do means over the pixels that are
`valid`: `all_reduce_sum` gives the sums over all parts.
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hemalum.losses.loss import AllReduceSum, Loss, LossInputs, identity, masked_mean, weighted_mean
from hemalum.targets.representations import Head

_SOFT = 1e-6


def soft_dice(
    probability_BCHW: Tensor,
    target_BCHW: Tensor,
    all_reduce_sum: AllReduceSum = identity,
    over_union: bool = False,
    valid_B1HW: Tensor | None = None,
) -> Tensor:
    """1 - Dice of soft maps, pooled over the batch and averaged over channels (Milletari et al. 2016).

    1 - 2I/(P + Y); with `over_union` 1 - 2I/(P + Y - I), which is -1 where prediction and truth are the same. Sums
    are over the pixels that are `valid`.
    """
    if valid_B1HW is not None:
        probability_BCHW, target_BCHW = probability_BCHW * valid_B1HW, target_BCHW * valid_B1HW
    axes = (0, 2, 3)
    overlap = (probability_BCHW * target_BCHW).sum(axes)
    total = probability_BCHW.sum(axes) + target_BCHW.sum(axes)
    sums = all_reduce_sum(torch.stack([overlap, total]))
    area = sums[1] - sums[0] if over_union else sums[1]
    return (1 - (2 * sums[0] + _SOFT) / (area + _SOFT)).mean()


def gradient_error(
    prediction_B2HW: Tensor,
    target_B2HW: Tensor,
    weight_BHW: Tensor,
    all_reduce_sum: AllReduceSum = identity,
    valid_B1HW: Tensor | None = None,
) -> Tensor:
    """Mean squared error of the maps' own gradients inside nuclei (HoVer-Net, Graham et al. 2019).

    Channel 0 is differenced along x, channel 1 along y; both pixels of a difference have to be `valid`.
    """
    dx = torch.diff(prediction_B2HW[:, 0] - target_B2HW[:, 0], dim=2)
    dy = torch.diff(prediction_B2HW[:, 1] - target_B2HW[:, 1], dim=1)
    wx, wy = weight_BHW[:, :, 1:], weight_BHW[:, 1:]
    if valid_B1HW is not None:
        valid = valid_B1HW[:, 0]
        wx, wy = wx * valid[:, :, 1:] * valid[:, :, :-1], wy * valid[:, 1:] * valid[:, :-1]
    sums = all_reduce_sum(torch.stack([(dx.square() * wx).sum(), (dy.square() * wy).sum(), wx.sum(), wy.sum()]))
    return (sums[:2] / sums[2:].clamp_min(1)).sum()


def with_background(targets_BCHW: Tensor) -> Tensor:
    """Shares of the classes (B, C, H, W) with that of the background in front (B, C + 1, H, W)."""
    return torch.cat([1 - targets_BCHW.sum(1, keepdim=True), targets_BCHW], dim=1)


def masked_cross_entropy(
    logits_BCHW: Tensor, targets: Tensor, weight_BHW: Tensor, all_reduce_sum: AllReduceSum = identity
) -> Tensor:
    """Cross-entropy, the weighted mean over pixels; 0 where no pixel has weight.

    `targets` are shares (B, C, H, W) float32 or classes (B, H, W) int64.
    """
    losses = F.cross_entropy(logits_BCHW, targets, reduction="none") * weight_BHW
    return weighted_mean(losses, weight_BHW, all_reduce_sum)


def partial_loss(
    logits_BCHW: Tensor,
    target_BCHW: Tensor,
    all_reduce_sum: AllReduceSum = identity,
    valid_B1HW: Tensor | None = None,
) -> Tensor:
    """Cross-entropy + Dice of a softmax head over the valid pixels whose `target` is not NaN; 0 where there are none.

    The mean is over the pixels that count, of all parts of a shared batch, however they lie in the parts.
    """
    known = (~target_BCHW.isnan().any(1, keepdim=True)).float()
    if valid_B1HW is not None:
        known = known * valid_B1HW
    # NaN times 0 is NaN, in the gradient as well: it has to go before anything is computed
    target = target_BCHW.nan_to_num(0.0) * known
    entropy = masked_cross_entropy(logits_BCHW, with_background(target), known[:, 0], all_reduce_sum)
    return entropy + soft_dice(logits_BCHW.softmax(1)[:, 1:] * known, target, all_reduce_sum)


class Maps(Loss):
    """The sum of the heads' losses, each by what its maps are.

    softmax: cross-entropy + Dice, of a `partial` head over the pixels whose targets are known; sigmoid on a 0/1 map:
    binary cross-entropy + Dice; sigmoid on a graded map (`distance`): binary cross-entropy against the graded target;
    tanh: squared error inside nuclei + its gradient's.
    """

    name: Literal["maps"] = "maps"

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """See `Loss`."""
        return map_loss(inputs.outputs.logits, inputs.targets, inputs.heads, inputs.all_reduce_sum, inputs.valid)


def map_loss(
    logits_BCHW: Tensor,
    targets_BCHW: Tensor,
    heads: tuple[Head, ...],
    all_reduce_sum: AllReduceSum = identity,
    valid_B1HW: Tensor | None = None,
) -> dict[str, Tensor]:
    """Each head's loss over the pixels that are `valid`, by the names of its channels; see `Maps`.

    `targets` are (B, channels, H, W) float32 in the order of the heads' channels.
    """
    parts: dict[str, Tensor] = {}
    dice = partial(soft_dice, all_reduce_sum=all_reduce_sum, valid_B1HW=valid_B1HW)
    mean = partial(masked_mean, valid_B1HW=valid_B1HW, all_reduce_sum=all_reduce_sum)
    logits_of = torch.split(logits_BCHW, [head.logits for head in heads], dim=1)
    targets_of = torch.split(targets_BCHW, [len(head.channels) for head in heads], dim=1)
    for head, logits, target in zip(heads, logits_of, targets_of, strict=True):
        name = "_".join(head.channels)
        match head.kind:
            case "softmax" if head.partial:
                parts[name] = partial_loss(logits, target, all_reduce_sum, valid_B1HW)
            case "softmax":
                entropy = F.cross_entropy(logits, with_background(target), reduction="none")
                parts[name] = mean(entropy[:, None]) + dice(logits.softmax(1)[:, 1:], target)
            case "sigmoid":
                for index, channel in enumerate(head.channels):
                    one, truth = logits[:, index : index + 1], target[:, index : index + 1]
                    parts[channel] = mean(F.binary_cross_entropy_with_logits(one, truth, reduction="none"))
                    if channel != "distance":
                        parts[channel] = parts[channel] + dice(one.sigmoid(), truth)
            case "tanh":
                inside = (target.abs().sum(1) > 0).float()
                inside = inside if valid_B1HW is None else inside * valid_B1HW[:, 0]
                position = logits.tanh()
                error = (position - target).square() * inside[:, None]
                slope_error = gradient_error(position, target, inside, all_reduce_sum, valid_B1HW)
                parts[name] = weighted_mean(error, 2 * inside, all_reduce_sum) + slope_error
    return parts
