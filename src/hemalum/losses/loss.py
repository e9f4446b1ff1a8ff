"""What a loss is: settings that a recipe writes, called with all that a loss may look at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from hemalum.networks.contract import Outputs
from hemalum.settings import Strict
from hemalum.targets.representations import Head

AllReduceSum = Callable[[Tensor], Tensor]


def identity(sums: Tensor) -> Tensor:
    """The sums over a batch that is not shared."""
    return sums


def weighted_mean(values: Tensor, weight: Tensor, all_reduce_sum: AllReduceSum) -> Tensor:
    """Sum of the values, each weighted already, over the sum of the weights, of all parts of a shared batch."""
    sums = all_reduce_sum(torch.stack([values.sum(), weight.sum()]))
    return sums[0] / sums[1].clamp_min(1)


def masked_mean(values_BCHW: Tensor, valid_B1HW: Tensor | None, all_reduce_sum: AllReduceSum = identity) -> Tensor:
    """Mean over maps and the pixels that are valid (1, not 0), of all parts of a shared batch; None: all are.

    0 where no pixel is.
    """
    if valid_B1HW is None:
        return values_BCHW.mean()
    return weighted_mean(values_BCHW * valid_B1HW, valid_B1HW.expand_as(values_BCHW), all_reduce_sum)


@dataclass(frozen=True, slots=True, eq=False)
class LossInputs:
    """All that a loss may look at.

    `targets` are (B, channels, H, W) float32 in the order of the heads' channels; `extra` holds the further target
    maps that the loss needs, each (B, 1, H, W) float32. `valid` (B, 1, H, W) float32 is 0 where no loss may look, at
    outputs or targets, and 1 elsewhere; None: it may look everywhere. `epoch` counts passes over the training images
    from 1. `phase_step` counts the steps that the phase has behind it, `run_steps` those that the whole run has at
    most, 0 where nothing is trained. `all_reduce_sum` gives sums over all parts of a shared batch. `teacher` are the
    logits of the weights that the training starts with, where the loss asks for them (`Distilled`), else None.
    """

    outputs: Outputs
    targets: Tensor
    heads: tuple[Head, ...]
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    valid: Tensor | None = None
    epoch: int = 1
    phase_step: int = 0
    run_steps: int = 0
    all_reduce_sum: AllReduceSum = identity
    teacher: Tensor | None = None

    @property
    def channels(self) -> list[str]:
        """The target maps' names, in order."""
        return [channel for head in self.heads for channel in head.channels]


class Loss(Strict):
    """Settings of a loss; called, it gives its weighted parts by name, and the loss is their sum.

    `needs` names further target maps (`targets.extra_targets.EXTRA_TARGETS`); `only` names the kinds of head that
    it fits, None for all.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    only: ClassVar[frozenset[str] | None] = None

    name: str

    def __call__(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Weighted parts by name."""
        raise NotImplementedError

    def factors(self, inputs: LossInputs) -> dict[str, float]:
        """What is scheduled in it, as it stands now: logged beside the learning rate."""
        return {}
