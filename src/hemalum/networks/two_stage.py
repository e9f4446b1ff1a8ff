"""Two-stage enhancement (2025): a small network at full resolution mends what any other network has found."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hemalum.errors import HemalumError
from hemalum.networks.outputs import Outputs


class TwoStage(nn.Module):
    """(B, inputs, H, W) → (B, outputs, H, W) logits p2 of `enhance`, which sees the image and `base`'s p1 = sigmoid.

    `base` is {name, options} of any registered network of as many outputs. `enhance` is three 3×3 convolutions of
    `width` channels with ReLU and a 1×1, nothing made smaller: it looks 3 px around (7 × 7). `batch_norm` follows
    each 3×3 convolution. `binarise` gives it p1 ≥ 0.5 as 0 or 1; the gradient then passes as if it had not.

    Stride, size, conditions and whether a pixel depends on the whole input are the base's; it gets `organs` and
    `embedding` where it takes them. In training the base's
    logits come as the extra "first", and its `sides` where it trains. While the switch `enhanced` is off, the base's
    logits alone are given, as its own training needs. Raises HemalumError for a base that is not one.
    """

    switches = ("enhanced",)

    def __init__(
        self,
        outputs: int = 1,
        inputs: int = 3,
        base: Mapping[str, Any] = {"name": "unet"},
        width: int = 64,
        batch_norm: bool = False,
        binarise: bool = False,
        organs: int | None = None,
        embedding: int | None = None,
    ) -> None:
        from hemalum.networks import build_network, takes  # the registry holds this class, too

        super().__init__()
        name, options = _named(base)
        if inputs != 3:
            options["inputs"] = inputs
        told = {"organs": organs, "embedding": embedding}
        options |= {key: value for key, value in told.items() if value is not None and takes(name, key)}
        self.base = build_network(name, outputs, options)
        self.enhanced = True
        self.binarise = binarise
        self.stride = int(getattr(self.base, "stride", 1))
        self.conditions: tuple[str, ...] = tuple(getattr(self.base, "conditions", ()))
        self.global_context = bool(getattr(self.base, "global_context", False))
        if hasattr(self.base, "size"):
            self.size = self.base.size
        self.probability = nn.Sigmoid()
        layers: list[nn.Module] = []
        for before in (inputs + outputs, width, width):
            layers.append(nn.Conv2d(before, width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
        self.enhance = nn.Sequential(*layers, nn.Conv2d(width, outputs, 1))

    def forward(self, x_BCHW: Tensor, **conditions: Tensor) -> Tensor | Outputs:
        given = self.base(x_BCHW, **conditions)
        if not self.enhanced:
            return given  # type: ignore[no-any-return]
        first: Tensor = given.logits if isinstance(given, Outputs) else given
        probability = self.probability(first)
        if self.binarise:
            hard = (probability >= 0.5).to(probability.dtype)
            probability = probability + (hard - probability).detach() if self.training else hard
        logits: Tensor = self.enhance(torch.cat([x_BCHW, probability.to(x_BCHW.dtype)], dim=1))
        if not self.training:
            return logits
        sides, extras = (given.sides, given.extras) if isinstance(given, Outputs) else ((), {})
        return Outputs(logits, sides, {**extras, "first": first})


def _named(base: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of the base network."""
    name = base.get("name") if isinstance(base, Mapping) else None
    if not isinstance(name, str) or not set(base) <= {"name", "options"}:
        raise HemalumError("two_stage: 'base' is a mapping with the 'name' of a network and its 'options'")
    if name == "two_stage":
        raise HemalumError("two_stage: its base cannot be two_stage again; name the network that it is to mend")
    options = base.get("options") or {}
    if not isinstance(options, Mapping):
        raise HemalumError(f"two_stage: 'options' of base '{name}' is a mapping of option and value")
    if "outputs" in options:
        raise HemalumError(f"two_stage: base '{name}' gets its outputs from the representation, not from options")
    return name, dict(options)
