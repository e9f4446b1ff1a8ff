"""Attention U-Net (Oktay et al. 2018): U-Net whose skips pass an additive attention gate.

Ours, not MONAI's `AttentionUnet`: that one halves by strided convolutions, enlarges by 3×3 transposed ones and merges
by one convolution, which makes it another network of another size; the figure that the papers print
(31.39 M, one input channel) is U-Net with batch norm and these gates, to the digit.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.unet import UNet


class AttentionUNet(UNet):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`.

    As `UNet` with batch norm; the gate of a skip sees the decoder's features already enlarged to the skip's size, and
    works in half of its channels.
    """

    late_modules = ("up", "gates", "decoder", "head")

    def __init__(
        self,
        outputs: int = 1,
        inputs: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        norm: bool = True,
    ) -> None:
        super().__init__(outputs=outputs, inputs=inputs, widths=widths, norm=norm)
        self.gates = nn.ModuleList(AttentionGate(width) for width in widths[-2::-1])

    def pass_skip(self, step: int, skip_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
        return self.gates[step](skip_BCHW, x_BCHW)  # type: ignore[no-any-return]


class AttentionGate(nn.Module):
    """skip · σ(ψ(ReLU(W_x skip + W_g gating))), all 1×1 convolutions with batch norm (Oktay et al. 2018, eq. 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.from_skip = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.from_gating = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.attention = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1))

    def forward(self, skip_BCHW: Tensor, gating_BCHW: Tensor) -> Tensor:
        both = F.relu(self.from_skip(skip_BCHW) + self.from_gating(gating_BCHW))
        return skip_BCHW * self.attention(both).sigmoid()  # type: ignore[no-any-return]
