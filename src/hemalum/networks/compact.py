"""compact: the network of the shipped models, made for speed on a CPU.

The full-resolution work of a U-Net is most of its time and little of its accuracy. Here pixels are folded into
channels first (space-to-depth by 2), so the finest convolutions run at half resolution; the head unfolds them
again (sub-pixel convolution, Shi et al. 2016), so maps come out at full resolution. Skips are added, not
concatenated. Every convolution is a plain dense 3×3 or 1×1, which CPUs run near their peak; nothing looks at the
whole image (no global pooling), so a tile with enough halo gives exactly what the whole image gives.

With `antialias` what is found hangs less on where the image begins (Zhang 2019, "Making Convolutional Networks
Shift-Invariant Again"): features are blurred before every stride, and go up by bilinear weights and not by repeating.
The paper blurs what a convolution without stride gives; here the blur comes first, so that the convolution keeps its
stride and its cost.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import conv_norm, conv_norm_relu
from hemalum.networks.contract import Network


class Compact(Network):
    """(B, 3, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`.

    `widths` are the channels at 1/2, 1/4, 1/8 … resolution, `depths` the residual blocks of the encoder at each;
    the decoder has one convolution at each finer level. Weights fit with `antialias` and without.
    """

    late_modules = ("lateral", "decoder", "head")

    def __init__(
        self,
        outputs: int,
        widths: Sequence[int] = (32, 64, 128),
        depths: Sequence[int] = (0, 1, 3),
        antialias: bool = False,
    ) -> None:
        super().__init__()
        self.blur = Blur() if antialias else nn.Identity()
        self.upsampling = {"mode": "bilinear", "align_corners": False} if antialias else {"mode": "nearest"}
        self.stride = 2 ** len(widths)
        # the fold has halved the first stage's pixels already
        self.encoder = nn.ModuleList(
            nn.Sequential(
                conv_norm_relu(before, after, stride=1 if level == 0 else 2), *(Residual(after) for _ in range(depth))
            )
            for level, ((before, after), depth) in enumerate(zip(pairwise((12, *widths)), depths, strict=False))
        )
        pairs = list(pairwise(widths))[::-1]
        self.lateral = nn.ModuleList(conv_norm_relu(wide, narrow, kernel=1) for narrow, wide in pairs)
        self.decoder = nn.ModuleList(conv_norm_relu(narrow, narrow) for narrow, _ in pairs)
        self.head = nn.Conv2d(widths[0], outputs * 4, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x_BCHW, 2)
        skips = []
        for level, stage in enumerate(self.encoder):
            x = stage(self.blur(x) if level else x)
            skips.append(x)
        for lateral, block, skip in zip(self.lateral, self.decoder, skips[-2::-1], strict=True):
            x = block(skip + F.interpolate(lateral(x), scale_factor=2.0, **self.upsampling))
        return F.pixel_shuffle(self.head(x), 2)


class Residual(nn.Module):
    """Two 3×3 convolutions with a shortcut (He et al. 2016, the basic block)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm_relu(channels, channels)
        self.second = conv_norm(channels, channels)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.activation(x_BCHW + self.second(self.first(x_BCHW)))  # type: ignore[no-any-return]


class Blur(nn.Module):
    """1 2 1 along rows and columns of each channel, borders repeated."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        channels = x_BCHW.shape[1]
        line = torch.tensor([0.25, 0.5, 0.25], dtype=x_BCHW.dtype, device=x_BCHW.device)
        kernel = (line[:, None] * line).expand(channels, 1, 3, 3)
        return F.conv2d(F.pad(x_BCHW, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)
