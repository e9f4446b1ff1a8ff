"""U-Net (Ronneberger, Fischer, Brox 2015), padded, as the five papers' tables use it."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.contract import Network


class UNet(Network):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`.

    Two 3×3 convolutions with bias per level, 2×2 max-pooling, transposed 2×2 convolutions, a 1×1 head.
    `norm` adds batch norm after each 3×3 convolution (off in the sizes that the digests check).
    """

    late_modules: tuple[str, ...] = ("decoder", "head", "up")

    def __init__(
        self,
        outputs: int = 1,
        inputs: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.stride = 2 ** (len(widths) - 1)
        self.encoder = nn.ModuleList(
            _double(before, after, norm) for before, after in zip((inputs, *widths), widths, strict=False)
        )
        pairs = list(pairwise(widths))[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for narrow, wide in pairs)
        self.decoder = nn.ModuleList(_double(2 * narrow, narrow, norm) for narrow, _ in pairs)
        self.head = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x, skips = x_BCHW, []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for up, block, skip in zip(self.up, self.decoder, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, up(x)], dim=1))
        return self.head(x)  # type: ignore[no-any-return]


def _double(inputs: int, outputs: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (inputs, outputs):
        layers.append(nn.Conv2d(before, outputs, 3, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
