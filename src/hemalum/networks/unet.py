"""U-Net (Ronneberger, Fischer, Brox 2015), padded, as the five papers' tables use it."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import biased_convolutions
from hemalum.networks.contract import Network


class UShape(Network):
    """The way through a U-Net; a subclass makes its modules, and may change what skips pass.

    `encoder` has the finest level first, `up` and `decoder` the coarsest.
    """

    encoder: nn.ModuleList
    up: nn.ModuleList
    decoder: nn.ModuleList
    head: nn.Module
    late_modules: tuple[str, ...] = ("decoder", "head", "up")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x, skips = x_BCHW, []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for step, (up, block, skip) in enumerate(zip(self.up, self.decoder, skips[-2::-1], strict=True)):
            x = up(x)
            x = block(torch.cat([self.pass_skip(step, skip, x), x], dim=1))
        return self.head(x)  # type: ignore[no-any-return]

    def pass_skip(self, step: int, skip_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """What the decoder gets of an encoder's map at its `step`, 0 the coarsest; x is its own, of the same size."""
        return skip_BCHW


class UNet(UShape):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`.

    Two 3×3 convolutions with bias per level, 2×2 max-pooling, transposed 2×2 convolutions, a 1×1 head.
    `norm` adds batch norm after each 3×3 convolution (off in the sizes that the digests check).
    """

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
            biased_convolutions((before, after, after), norm) for before, after in pairwise((inputs, *widths))
        )
        pairs = list(pairwise(widths))[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for narrow, wide in pairs)
        self.decoder = nn.ModuleList(biased_convolutions((2 * narrow, narrow, narrow), norm) for narrow, _ in pairs)
        self.head = nn.Conv2d(widths[0], outputs, 1)
