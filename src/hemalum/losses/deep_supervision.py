"""Losses of networks with more than their logits: auxiliary logits, and whether an image holds a nucleus."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hemalum.losses.loss import LossInputs

Parts = dict[str, Tensor]


def at_all_depths(inputs: LossInputs, parts_of: Callable[[Tensor], Parts], weight: float) -> Parts:
    """The parts of the logits, and under "aux_logits" the sum of those of all auxiliary logits, times `weight`."""
    parts = parts_of(inputs.outputs.logits)
    if inputs.outputs.aux_logits and weight:
        sums = [torch.stack(list(parts_of(logits).values())).sum() for logits in inputs.outputs.aux_logits]
        parts["aux_logits"] = weight * torch.stack(sums).sum()
    return parts


def presence_part(inputs: LossInputs, weight: float) -> Parts:
    """Cross-entropy of extras["presence"] (B, 2) against whether the image has a nucleus; nothing without it."""
    if "presence" not in inputs.outputs.extras:
        return {}
    present = (inputs.targets.amax((1, 2, 3)) > 0).long()
    return {"presence": weight * F.cross_entropy(inputs.outputs.extras["presence"], present)}
