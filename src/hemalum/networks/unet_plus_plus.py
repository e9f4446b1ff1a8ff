"""U-Net++ (Zhou et al. 2018): a U-Net whose skips are filled with convolutions, densely connected."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import biased_convolutions
from hemalum.networks.contract import Network, Outputs

Inference = Literal["last", "average"]


class UNetPlusPlus(Network):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`.

    Node x(i, j) at level i (0 is full resolution) joins x(i, 0) … x(i, j - 1) with x(i + 1, j - 1), enlarged by a
    transposed 2×2 convolution, and has two 3×3 convolutions with bias. `norm` adds batch norm after each, `dropout`
    drops single activations after each ReLU (the public code has 0.5 there).

    With `deep_supervision` each of x(0, 1) … x(0, n) has a 1×1 head of its own. In training the others'
    are the `aux_logits`; in eval mode `inference` says whether the last head speaks or the mean of all heads'
    probabilities (sigmoid), as logits. Raises ValueError for values that it does not know.
    """

    late_modules = ("nested", "up", "head", "aux_heads")

    def __init__(
        self,
        outputs: int = 1,
        inputs: int = 3,
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        norm: bool = False,
        dropout: float = 0.0,
        deep_supervision: bool = True,
        inference: Inference = "last",
    ) -> None:
        super().__init__()
        if inference not in get_args(Inference):
            raise ValueError(f"unet_plus_plus: inference '{inference}', want one of {', '.join(get_args(Inference))}")
        if inference == "average" and not deep_supervision:
            raise ValueError("unet_plus_plus: inference 'average' needs deep_supervision, else there is one head")
        if len(widths) < 2:
            raise ValueError(f"unet_plus_plus: widths {list(widths)}, want at least two levels")
        self.stride = 2 ** (len(widths) - 1)
        self.inference = inference
        self.encoder = nn.ModuleList(
            biased_convolutions((before, after, after), norm, dropout)
            for before, after in pairwise((inputs, *widths))
        )
        # column j, level i: nested[j - 1][i] is the node x(i, j), up[j - 1][i] enlarges x(i + 1, j - 1) for it
        columns = range(1, len(widths))
        pairs = list(pairwise(widths))
        self.up = nn.ModuleList(
            nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for narrow, wide in pairs[: len(widths) - j])
            for j in columns
        )
        self.nested = nn.ModuleList(
            nn.ModuleList(
                biased_convolutions(((j + 1) * width, width, width), norm, dropout)
                for width in widths[: len(widths) - j]
            )
            for j in columns
        )
        others = len(widths) - 2 if deep_supervision else 0
        self.aux_heads = nn.ModuleList(nn.Conv2d(widths[0], outputs, 1) for _ in range(others))  # x(0, n - 1) first
        self.head = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor | Outputs:
        rows: list[list[Tensor]] = []  # rows[i] is x(i, 0), x(i, 1) … as far as they are made
        for level, block in enumerate(self.encoder):
            rows.append([block(F.max_pool2d(rows[-1][0], 2) if level else x_BCHW)])
        for ups, nodes in zip(self.up, self.nested, strict=True):
            for level, (up, node) in enumerate(zip(ups, nodes, strict=True)):  # type: ignore[call-overload]
                rows[level].append(node(torch.cat([*rows[level], up(rows[level + 1][-1])], dim=1)))
        *others, last = rows[0][1:]
        logits: Tensor = self.head(last)
        if not len(self.aux_heads) or (not self.training and self.inference == "last"):
            return logits
        aux_logits = tuple(head(x) for head, x in zip(self.aux_heads, reversed(others), strict=True))
        if self.training:
            return Outputs(logits, aux_logits)
        mean = torch.stack([logits, *aux_logits]).float().sigmoid().mean(0)
        return torch.logit(mean, eps=1e-6).to(logits.dtype)
