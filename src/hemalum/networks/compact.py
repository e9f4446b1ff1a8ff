"""compact: the network of the shipped models, made for speed on a CPU.

The full-resolution work of a U-Net is most of its time and little of its accuracy. Here pixels are folded into
channels first (space-to-depth by 2), so the finest convolutions run at half resolution; the head unfolds them
again (sub-pixel convolution, Shi et al. 2016), so maps come out at full resolution. Skips are added, not
concatenated. Every convolution is a plain dense 3×3 or 1×1, which CPUs run near their peak; nothing looks at the
whole image (no global pooling), so a tile with enough halo gives exactly what the whole image gives.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import Residual, conv_norm_relu
from hemalum.networks.contract import Network


class Compact(Network):
    """(B, 3, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`.

    `widths` are the channels at 1/2, 1/4, 1/8 … resolution, `depths` the residual blocks of the encoder at each;
    the decoder has one convolution at each finer level.
    """

    late_modules = ("lateral", "decoder", "head")

    def __init__(
        self, outputs: int, widths: Sequence[int] = (32, 64, 128), depths: Sequence[int] = (0, 1, 3)
    ) -> None:
        super().__init__()
        self.stride = 2 ** len(widths)
        stages = [nn.Sequential(conv_norm_relu(12, widths[0]), *(Residual(widths[0]) for _ in range(depths[0])))]
        for narrow, wide, depth in zip(widths, widths[1:], depths[1:], strict=False):
            stages.append(
                nn.Sequential(conv_norm_relu(narrow, wide, stride=2), *(Residual(wide) for _ in range(depth)))
            )
        self.encoder = nn.ModuleList(stages)
        pairs = list(pairwise(widths))[::-1]
        self.lateral = nn.ModuleList(conv_norm_relu(wide, narrow, kernel=1) for narrow, wide in pairs)
        self.decoder = nn.ModuleList(conv_norm_relu(narrow, narrow) for narrow, _ in pairs)
        self.head = nn.Conv2d(widths[0], outputs * 4, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x_BCHW, 2)
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        for lateral, block, skip in zip(self.lateral, self.decoder, skips[-2::-1], strict=True):
            x = block(skip + F.interpolate(lateral(x), scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.head(x), 2)
