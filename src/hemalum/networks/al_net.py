"""AL-Net (Electronics 2025, 14(17), 3507), as docs/systems/al_net.md reads it: the paper prints no equation.

A U-Net whose encoder looks at several distances at once, and whose skips pass only what the decoder asks for:

    block   B(x) = ReLU(W x + V [‖ over rates r of ReLU(BN(3×3 convolution of dilation r, x))])
    gate    α = σ(ψ ReLU(W_x x + W_g g + b))          Attention U-Net, Oktay et al. 2018, g: the decoder's, enlarged
    skip    s = α · x · SE(x)                         squeeze and excitation, Hu et al. 2018
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import conv_norm_relu
from hemalum.networks.unet import UShape

_SQUEEZE = 16  # Hu et al.: channels in each hidden unit of the excitation
_FEWEST = 4  # hidden units, however narrow the level


class ALNet(UShape):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`.

    `widths` are the channels of each level, `rates` the dilations of every block of the encoder but the deepest,
    which has `bottleneck_rates`. `attention` and `se` are the two factors of the skips; without both they are a
    U-Net's. `norm` puts batch norm after every 3×3 convolution. Raises ValueError for values that make no network.
    """

    def __init__(
        self,
        outputs: int = 1,
        inputs: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        rates: Sequence[int] = (1, 2, 4),
        bottleneck_rates: Sequence[int] = (1, 2, 4, 8),
        attention: bool = True,
        se: bool = True,
        norm: bool = True,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"al_net: widths must be at least two numbers from 1 on, not {list(widths)}")
        for option, dilations in (("rates", rates), ("bottleneck_rates", bottleneck_rates)):
            if not dilations or min(dilations) < 1 or len(set(dilations)) < len(dilations):
                raise ValueError(f"al_net: {option} must be different dilations from 1 on, not {list(dilations)}")
        self.global_context = se  # squeeze and excitation average over the whole input
        self.stride = 2 ** (len(widths) - 1)
        levels = list(pairwise((inputs, *widths)))
        self.encoder = nn.ModuleList(
            DilatedBlock(before, after, bottleneck_rates if level == len(widths) else rates, norm)
            for level, (before, after) in enumerate(levels, start=1)
        )
        pairs = list(pairwise(widths))[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for narrow, wide in pairs)
        self.skips = nn.ModuleList(GuidedSkip(narrow, attention, se) for narrow, _ in pairs)
        self.decoder = nn.ModuleList(
            nn.Sequential(*conv_norm_relu(2 * narrow, narrow, norm=norm), *conv_norm_relu(narrow, narrow, norm=norm))
            for narrow, _ in pairs
        )
        self.head = nn.Conv2d(widths[0], outputs, 1)

    def pass_skip(self, step: int, skip_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        return self.skips[step](skip_BCHW, x_BCHW)  # type: ignore[no-any-return]


class DilatedBlock(nn.Module):
    """3×3 convolutions of several dilations side by side, each `outputs` wide, mixed, with a projected shortcut."""

    def __init__(self, inputs: int, outputs: int, rates: Sequence[int], norm: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(conv_norm_relu(inputs, outputs, dilation=rate, norm=norm) for rate in rates)
        self.mix = nn.Conv2d(len(rates) * outputs, outputs, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)  # the mix has a bias, and they are added

    def forward(self, x_BCHW: Tensor) -> Tensor:
        responses = torch.cat([branch(x_BCHW) for branch in self.branches], dim=1)
        return F.relu(self.shortcut(x_BCHW) + self.mix(responses))


class AdditiveGate(nn.Module):
    """How much of each pixel of x to pass, (B, 1, H, W) in (0, 1), asked by g of the same size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)  # as in Oktay et al.
        self.of_x = nn.Conv2d(channels, inner, 1, bias=False)
        self.of_g = nn.Conv2d(channels, inner, 1)
        self.psi = nn.Conv2d(inner, 1, 1)

    def forward(self, x_BCHW: Tensor, g_BCHW: Tensor) -> Tensor:
        return self.psi(F.relu(self.of_x(x_BCHW) + self.of_g(g_BCHW))).sigmoid()  # type: ignore[no-any-return]


class GuidedSkip(nn.Module):
    """An encoder's map weighed by pixel (additive attention, asked by the decoder) and by channel (excitation)."""

    def __init__(self, channels: int, attention: bool, se: bool) -> None:
        super().__init__()
        self.gate = AdditiveGate(channels) if attention else None
        hidden = max(_FEWEST, channels // _SQUEEZE)
        self.excite = (
            nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1), nn.Sigmoid())
            if se
            else None
        )

    def forward(self, x_BCHW: Tensor, g_BCHW: Tensor) -> Tensor:
        passed = x_BCHW
        if self.gate is not None:
            passed = passed * self.gate(x_BCHW, g_BCHW)
        if self.excite is not None:
            passed = passed * self.excite(x_BCHW.mean((2, 3), keepdim=True))
        return passed
