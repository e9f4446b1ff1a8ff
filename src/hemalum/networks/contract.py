"""The contract of a network: what it may declare of itself, and what it gives while it trains.

Whatever builds, trains, runs, refines or measures a network asks these attributes and nothing else.
"""

import inspect
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

NO_EXTRAS: Mapping[str, Tensor] = MappingProxyType({})


class Network(nn.Module):
    """The base of every registered network: (B, inputs, H, W) → (B, outputs, H, W) logits, or `Outputs` in training.

    Its options are the parameters of `__init__`, `outputs` and `inputs` among them; those that make no network raise
    ValueError. What follows from options is set in `__init__`, the rest stands in the class.

    A base class and not a `typing.Protocol`: the defaults stand here once, where a Protocol would have every network
    declare all that most of them lack, and mypy checks a network where it is written and not only where it is used.
    """

    stride: int = 1  # height and width of an input are multiples of it
    # side of every input in px, where the network is built for one size alone; a card's `window` is this, or the side
    # of a training tile where a pixel depends on the whole input
    fixed_window: int | None = None
    global_context: bool = False  # whether a pixel of the logits depends on the whole input
    # what forward takes by keyword beside pixels: "organ" (B,) int64, -1 for unknown, and "embedding"
    # (B, embedding_channels, h, w) of a SAM encoder
    conditions: tuple[str, ...] = ()
    embedding_channels: int | None = None
    # whether in training forward takes `dropped` and `features` and gives the extras "dropped", "features" and
    # "prototypes", from which unlabeled images are learned
    feature_outputs: bool = False
    stage_toggles: tuple[str, ...] = ()  # attributes, True or False, that turn a stage on or off
    late_modules: tuple[str, ...] = ()  # those behind the encoder: what a refinement trains by default
    pretrained_digest: str | None = None  # sha256 of weights of elsewhere that it was given (option `pretrained`)
    final_layer: str = "head"  # dotted name of the module that makes the logits: an activation map shows its input

    # modules whose `__init__` takes what neither the class nor its bases take of `**options`
    option_takers: tuple[type[nn.Module], ...] = ()

    @classmethod
    def option_defaults(cls) -> dict[str, Any]:
        """Options and their defaults, with those of what a class passes its `**options` on to."""
        defaults: dict[str, Any] = {}
        for taker in (*cls.__mro__[: cls.__mro__.index(Network)], *cls.option_takers):
            parameters = inspect.signature(taker).parameters
            defaults = {name: one.default for name, one in parameters.items() if name != "options"} | defaults
            if "options" not in parameters:
                break
        return defaults


class Outputs(NamedTuple):
    """Logits (B, outputs, H, W) and `aux_logits` of the same shape, the finest first (deep supervision).

    `extras` are tensors by name that a loss of the same system looks at, such as the logits of an inner network.
    In eval mode every network gives its logits alone, as a plain tensor.
    """

    logits: Tensor
    aux_logits: tuple[Tensor, ...] = ()
    extras: Mapping[str, Tensor] = NO_EXTRAS

    @classmethod
    def of(cls, outputs: "Tensor | Outputs") -> "Outputs":
        """Wrap plain logits; all in float32, whatever precision the network ran in."""
        if isinstance(outputs, Tensor):
            return cls(outputs.float())
        return cls(
            outputs.logits.float(),
            tuple(logits.float() for logits in outputs.aux_logits),
            {name: value.float() for name, value in outputs.extras.items()},
        )


def nearest(name: str, known: Collection[str]) -> str:
    """The end of an error line, as that of `hemalum.errors`, which networks do not import."""
    known = sorted(known)
    matches = get_close_matches(name, known, n=1)
    return f", did you mean '{matches[0]}'?" if matches else f"; known: {', '.join(known)}"


def check_choice(option: str, value: str, choices: Collection[str]) -> None:
    """Raise ValueError, which names the nearest, unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{option} '{value}'{nearest(value, choices)}: it can be {', '.join(choices)}")
