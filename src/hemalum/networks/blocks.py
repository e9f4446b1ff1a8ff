"""Blocks that several networks share."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1, norm: bool = True
) -> nn.Sequential:
    """Convolution (same padding) and batch norm; without `norm` a convolution with bias."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=not norm)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs)) if norm else nn.Sequential(convolution)


def conv_norm_relu(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1, norm: bool = True
) -> nn.Sequential:
    """`conv_norm`, then ReLU."""
    return nn.Sequential(*conv_norm(inputs, outputs, kernel, stride, dilation, norm), nn.ReLU(inplace=True))


def biased_convolutions(channels: Sequence[int], norm: bool, dropout: float = 0.0) -> nn.Sequential:
    """A 3×3 convolution with bias from each number of channels to the next, with ReLU after it.

    `norm` puts batch norm between the two; `dropout` drops single activations after ReLU.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers.append(nn.Conv2d(before, after, 3, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(after))
        layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


class Excitation(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018): x · σ(W₂ ReLU(W₁ m)), m the means of x's channels.

    With `others` the means of so many channels of another network's features stand behind those of x. `kind` "glu"
    makes the last layer twice as wide and lets it gate itself, so that factors may have any size and sign. The hidden
    layer is `reduction` times narrower, with `fewest` units at least.
    """

    def __init__(
        self, channels: int, reduction: int, others: int = 0, kind: str = "sigmoid", fewest: int = 1
    ) -> None:
        super().__init__()
        hidden = max(fewest, (channels + others) // reduction)
        self.squeeze = nn.Linear(channels + others, hidden)
        self.excite = nn.Linear(hidden, 2 * channels if kind == "glu" else channels)
        self.kind = kind

    def forward(self, x_BCHW: Tensor, *others_BCHW: Tensor) -> Tensor:
        means = torch.cat([features.mean((2, 3)) for features in (x_BCHW, *others_BCHW)], dim=1)
        raw = self.excite(F.relu(self.squeeze(means)))
        factor = F.glu(raw, dim=1) if self.kind == "glu" else raw.sigmoid()
        return x_BCHW * factor[:, :, None, None]
