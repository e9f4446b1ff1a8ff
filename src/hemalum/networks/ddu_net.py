"""DDU-Net: the dual-decoder U-Net for nuclei of Mahbod et al. 2022 (Frontiers in Medicine 9, 978146).

One encoder, two decoders of the same form: one for the nuclei, one for their distance maps; a watershed merges the
two. The papers' tables write "DDU-Net" without saying more; this one is by the authors of CryoNuSeg and NuInsSeg, on
which they report it. Sizes are those of the authors' published model.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.contract import Network


class DDUNet(Network):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`.

    The first output is the segmentation decoder's, the others are the second decoder's: foreground and distance with
    representation `distance`. `bottom` are the channels of the deepest two convolutions, `dropout` is applied
    between the two convolutions of each level, the deepest last.
    Raises ValueError for fewer than two outputs or a number of dropouts that is not one per level.
    """

    late_modules = ("segmentation", "distance")
    final_layer = "distance.head"  # of the two decoders, the one whose maps part touching nuclei

    def __init__(
        self,
        outputs: int = 2,
        inputs: int = 3,
        widths: Sequence[int] = (16, 32, 64, 128),
        bottom: Sequence[int] = (256, 512),
        dropout: Sequence[float] = (0.1, 0.1, 0.2, 0.2, 0.1),
    ) -> None:
        super().__init__()
        if outputs < 2:
            raise ValueError(
                f"ddu_net has two decoders and gives at least 2 maps, not {outputs}: use representation 'distance'"
            )
        if len(bottom) != 2 or len(dropout) != len(widths) + 1:
            raise ValueError(
                f"ddu_net takes 2 widths as bottom and {len(widths) + 1} values as dropout, one per level, "
                f"not {len(bottom)} and {len(dropout)}"
            )
        self.stride = 2 ** len(widths)
        self.encoder = nn.ModuleList(
            _pair(before, after, after, drop)
            for (before, after), drop in zip(pairwise((inputs, *widths)), dropout[:-1], strict=True)
        )
        self.bottom = _pair(widths[-1], bottom[0], bottom[1], dropout[-1])
        self.segmentation = _Decoder(bottom[-1], widths, dropout, 1)
        self.distance = _Decoder(bottom[-1], widths, dropout, outputs - 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # nothing is normalized: the start matters
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x, skips = x_BCHW, []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        return torch.cat([self.segmentation(x, skips), self.distance(x, skips)], dim=1)


class _Decoder(nn.Module):
    def __init__(self, deepest: int, widths: Sequence[int], dropout: Sequence[float], outputs: int) -> None:
        super().__init__()
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(wide, narrow, 2, 2) for wide, narrow in pairwise((deepest, *widths[::-1]))
        )
        self.blocks = nn.ModuleList(
            _pair(2 * width, width, width, drop) for width, drop in zip(widths[::-1], dropout[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, x_BCHW: Tensor, skips: list[Tensor]) -> Tensor:
        x = x_BCHW
        for up, block, skip in zip(self.up, self.blocks, skips[::-1], strict=True):
            x = block(torch.cat([up(x), skip], dim=1))
        return self.head(x)  # type: ignore[no-any-return]


def _pair(inputs: int, middle: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, middle, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(dropout),
        nn.Conv2d(middle, outputs, 3, padding=1), nn.ReLU(inplace=True),
    )  # fmt: skip
