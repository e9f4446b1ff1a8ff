"""Losses of networks that give more than their logits: side outputs, and whether an image holds a nucleus at all."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hemalum.losses.loss import Given

Parts = dict[str, Tensor]


def at_all_depths(given: Given, parts_of: Callable[[Tensor], Parts], weight: float) -> Parts:
    """The parts of the logits, and under "sides" the sum of all parts of each side output, times `weight`."""
    parts = parts_of(given.outputs.logits)
    if given.outputs.sides and weight:
        sides = [torch.stack(list(parts_of(side).values())).sum() for side in given.outputs.sides]
        parts["sides"] = weight * torch.stack(sides).sum()
    return parts


def presence_part(given: Given, weight: float) -> Parts:
    """Cross-entropy of extras["presence"] (B, 2) against whether the image has a nucleus; nothing without it."""
    if "presence" not in given.outputs.extras:
        return {}
    present = (given.targets.amax((1, 2, 3)) > 0).long()
    return {"presence": weight * F.cross_entropy(given.outputs.extras["presence"], present)}
