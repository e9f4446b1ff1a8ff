"""What a network gives while it trains, where that is more than its logits."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class Outputs(NamedTuple):
    """Logits (B, outputs, H, W); `sides` are further ones of the same shape, the finest first (deep supervision).

    `extras` are tensors by name that a loss of the same system looks at, such as the logits of an inner network.
    In eval mode every network gives its logits alone, as a plain tensor.
    """

    logits: Tensor
    sides: tuple[Tensor, ...] = ()
    extras: Mapping[str, Tensor] = NOTHING

    @classmethod
    def of(cls, given: "Tensor | Outputs") -> "Outputs":
        """Wrap plain logits; all in float32, whatever precision the network ran in."""
        if isinstance(given, Tensor):
            return cls(given.float())
        return cls(
            given.logits.float(),
            tuple(side.float() for side in given.sides),
            {name: value.float() for name, value in given.extras.items()},
        )
