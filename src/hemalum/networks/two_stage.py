"""Two-stage enhancement (2025): a small network at full resolution mends the logits of any other network."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hemalum.networks.blocks import biased_convolutions
from hemalum.networks.contract import Network, Outputs, check_choice


class TwoStage(Network):
    """(B, inputs, H, W) → (B, outputs, H, W) logits p2 of `enhance`, which sees the image and `base`'s p1 = sigmoid.

    `base` is {name, options} of any registered network of as many outputs. `enhance` is three 3×3 convolutions of
    `width` channels with ReLU and a 1×1, nothing made smaller: it looks 3 px around (7 × 7). `batch_norm` follows
    each 3×3 convolution. `binarize` gives it p1 ≥ 0.5 as 0 or 1; the gradient then passes as if it had not.
    `heads`, where the base's logits are not all of sigmoids, are [activation, logits] of each part of them in order,
    the activation being sigmoid, tanh or softmax. p1 is float32 whatever the network runs in: in half precision the
    sigmoid of 7 is 1, and no gradient reaches the base.

    Stride, window, conditions and whether a pixel depends on the whole input are the base's; it gets `organs` and
    `embedding` where it takes them, and weights of elsewhere where its options name them. In training the base's
    logits come as the extra "stage1_logits", and its `aux_logits` where it trains. While `enhanced` is toggled off,
    the base's logits alone come out, as its own training needs and as a model of the base gives them. Raises
    ValueError for a base that is not one.
    """

    stage_toggles = ("enhanced",)
    late_modules = ("enhance",)

    def __init__(
        self,
        outputs: int = 1,
        inputs: int = 3,
        base: Mapping[str, Any] = {"name": "unet"},
        width: int = 64,
        batch_norm: bool = False,
        binarize: bool = False,
        heads: Sequence[tuple[str, int]] | None = None,
        enhanced: bool = True,
        organs: int | None = None,
        embedding: int | None = None,
    ) -> None:
        super().__init__()
        self.base = _build_base(base, outputs, inputs, {"organs": organs, "embedding": embedding})
        self.heads = _check_heads(heads, outputs)
        self.enhanced = enhanced
        self.binarize = binarize
        self.stride, self.fixed_window = self.base.stride, self.base.fixed_window
        self.conditions, self.embedding_channels = self.base.conditions, self.base.embedding_channels
        self.global_context = self.base.global_context
        self.pretrained_digest = self.base.pretrained_digest
        layers = biased_convolutions((inputs + outputs, width, width, width), batch_norm)
        self.final_layer = f"enhance.{len(layers)}"
        self.enhance = layers.append(nn.Conv2d(width, outputs, 1))

    def forward(self, x_BCHW: Tensor, **conditions: Tensor) -> Tensor | Outputs:
        stage1: Tensor | Outputs = self.base(x_BCHW, **conditions)
        if not self.enhanced:
            return stage1
        stage1_logits = stage1.logits if isinstance(stage1, Outputs) else stage1
        probability = self.activate(stage1_logits)
        if self.binarize:
            hard = (probability >= 0.5).to(probability.dtype)
            probability = probability + (hard - probability).detach() if self.training else hard
        logits: Tensor = self.enhance(torch.cat([x_BCHW, probability.to(x_BCHW.dtype)], dim=1))
        if not self.training:
            return logits
        aux_logits, extras = (stage1.aux_logits, stage1.extras) if isinstance(stage1, Outputs) else ((), {})
        return Outputs(logits, aux_logits, {**extras, "stage1_logits": stage1_logits})

    def activate(self, stage1_logits: Tensor) -> Tensor:
        """Give p1 (B, outputs, H, W) float32 of the base's logits."""
        parts = torch.split(stage1_logits.float(), [logits for _, logits in self.heads], dim=1)
        return torch.cat([_ACTIVATIONS[kind](part) for (kind, _), part in zip(self.heads, parts, strict=True)], dim=1)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": partial(torch.softmax, dim=1),
}


def _check_heads(heads: Sequence[tuple[str, int]] | None, outputs: int) -> list[tuple[str, int]]:
    """Heads as pairs; without any, all logits are of sigmoids."""
    if heads is None:
        return [("sigmoid", outputs)]
    pairs: list[tuple[str, int]] = []
    for head in heads:
        if not isinstance(head, list | tuple) or len(head) != 2 or type(head[1]) is not int:
            raise ValueError("two_stage: 'heads' is a list of [activation, logits]")
        check_choice("two_stage: activation", str(head[0]), _ACTIVATIONS)
        pairs.append((str(head[0]), head[1]))
    if sum(logits for _, logits in pairs) != outputs:
        raise ValueError(f"two_stage: 'heads' have {sum(n for _, n in pairs)} logits, the network {outputs}")
    return pairs


def base_of(
    base: Mapping[str, Any], inputs: int = 3, further: Mapping[str, int | None] = {}
) -> tuple[str, dict[str, Any]]:
    """Give the name and options of the base network, with those of the `further` options that it takes.

    Raises ValueError for a base that is none.
    """
    from hemalum.networks import find_network  # the table holds this module's class, too

    name = base.get("name") if isinstance(base, Mapping) else None
    if not isinstance(name, str) or not set(base) <= {"name", "options"}:
        raise ValueError("two_stage: 'base' is a mapping with the 'name' of a network and its 'options'")
    if name == "two_stage":
        raise ValueError("two_stage: its base cannot be two_stage again; name the network that it is to mend")
    options = base.get("options") or {}
    if not isinstance(options, Mapping):
        raise ValueError(f"two_stage: 'options' of base '{name}' is a mapping of option and value")
    if "outputs" in options:
        raise ValueError(f"two_stage: base '{name}' gets its outputs from the representation, not from options")
    taken = find_network(name).option_defaults().keys()
    added = {key: value for key, value in further.items() if value is not None and key in taken}
    if inputs != 3:
        added["inputs"] = inputs
    return name, {**options, **added}


def _build_base(base: Mapping[str, Any], outputs: int, inputs: int, further: Mapping[str, int | None]) -> Network:
    from hemalum.networks import create_network

    name, options = base_of(base, inputs, further)
    return create_network(name, outputs, options)
