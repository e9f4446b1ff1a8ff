"""Micro-Net (Raza et al. 2019): at every level it also sees the input image, made smaller.

Layer by layer as its public PyTorch port has it (docs/systems/two_stage.md names the readings).
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.contract import Network, Outputs

Padding = Literal["valid", "same"]

LEVELS = 4
SIZE = 252  # px, of the unpadded form's input
BYPASS = (128, 64, 32, 16)  # px: the image beside each level of the unpadded form, so that both paths meet


class MicroNet(Network):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; in training with three `aux_logits`.

    `base` is the channels of the first level, 64 as published (184 million parameters), and halves in a narrow form.
    `padding` "valid" is as published and takes 252 × 252 px, no other size; "same" pads every convolution, so
    any multiple of 32 px fits: level k is 1/2^k of the input, and the step from 12 to 8 px at the bottom, which
    unpadded convolutions make, becomes a pooling. Both forms have the same parameters. `dropout` drops whole channels
    before each head. Raises ValueError for values or sizes that it does not take.
    """

    late_modules = ("head", "up")

    def __init__(
        self,
        outputs: int = 1,
        inputs: int = 3,
        base: int = 64,
        padding: Padding = "same",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if padding not in get_args(Padding):
            raise ValueError(f"micro_net: padding '{padding}', want one of {', '.join(get_args(Padding))}")
        if base < 1:
            raise ValueError(f"micro_net: base {base}, want at least one channel")
        self.padded = padding == "same"
        if self.padded:
            self.stride = 2 ** (LEVELS + 1)
        else:
            self.fixed_window = SIZE
        pad = int(self.padded)
        widths = [base * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(
            _double(before, width, pad, norm=True)
            for before, width in zip((inputs, *(2 * width for width in widths)), widths, strict=False)
        )
        self.bypass = nn.ModuleList(_double(inputs, width, pad, norm=True) for width in widths)
        self.bottom = _double(2 * widths[-1], 4 * widths[-1], pad)
        # a decoder's level has the width of its skip
        above = (4 * widths[-1], *(2 * width for width in widths[:0:-1]))
        self.up = nn.ModuleList(
            _Up(before, 2 * width, pad) for before, width in zip(above, reversed(widths), strict=True)
        )
        # finest first: from 1/2, 1/4 and 1/8 of the input's size
        self.full = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(2 * width, width, 2 ** (level + 1), 2 ** (level + 1)),
                nn.Conv2d(width, width, 3, padding=pad),
                nn.Tanh(),
            )
            for level, width in enumerate(widths[:3])
        )
        self.aux_heads = nn.ModuleList(_head(width, outputs, pad, dropout) for width in widths[:3])
        self.head = _head(sum(widths[:3]), outputs, pad, dropout)

    def forward(self, x_BCHW: Tensor) -> Tensor | Outputs:
        if not self.padded and tuple(x_BCHW.shape[2:]) != (SIZE, SIZE):
            height, width = x_BCHW.shape[2:]
            raise ValueError(
                f"micro_net: padding 'valid' takes {SIZE} × {SIZE} px, not {height} × {width}; "
                "padding 'same' takes any multiple of 32"
            )
        x, skips = x_BCHW, []
        for level, (down, bypass) in enumerate(zip(self.down, self.bypass, strict=True)):
            x = torch.cat([F.max_pool2d(down(x), 2), bypass(self._smaller(x_BCHW, level))], dim=1)
            skips.append(x)
        x = self.bottom(F.max_pool2d(x, 2) if self.padded else x)
        decoded = []
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(x, skip)
            decoded.append(x)
        full = [upsample(part) for upsample, part in zip(self.full, decoded[::-1], strict=False)]
        logits: Tensor = self.head(torch.cat(full, dim=1))
        if not self.training:
            return logits
        return Outputs(logits, aux_logits=tuple(head(part) for head, part in zip(self.aux_heads, full, strict=True)))

    def _smaller(self, x_BCHW: Tensor, level: int) -> Tensor:
        """The input image for the bypass of a level, bicubic."""
        if self.padded:  # a factor, not a size, so that an exported network takes any size
            return F.interpolate(x_BCHW, scale_factor=0.5 ** (level + 1), mode="bicubic")
        return F.interpolate(x_BCHW, size=(BYPASS[level], BYPASS[level]), mode="bicubic")


class _Up(nn.Module):
    """Enlarge by 2, two convolutions, and join with the skip, both brought to its size by 5×5 transposed ones."""

    def __init__(self, inputs: int, outputs: int, pad: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(inputs, outputs, 2, 2)
        self.block = _double(outputs, outputs, pad)
        self.main = nn.ConvTranspose2d(outputs, outputs, 5, padding=2 * pad)
        self.skip = nn.ConvTranspose2d(outputs, outputs, 5, padding=2 * pad)
        self.join = nn.Sequential(nn.Conv2d(2 * outputs, outputs, 1), nn.Tanh())

    def forward(self, x_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        x = self.main(self.block(self.upsample(x_BCHW)))
        return self.join(torch.cat([x, self.skip(skip_BCHW)], dim=1))  # type: ignore[no-any-return]


def _double(inputs: int, outputs: int, pad: int, norm: bool = False) -> nn.Sequential:
    first = [nn.Conv2d(inputs, outputs, 3, padding=pad), nn.Tanh(), *([nn.BatchNorm2d(outputs)] if norm else [])]
    return nn.Sequential(*first, nn.Conv2d(outputs, outputs, 3, padding=pad), nn.Tanh())


def _head(inputs: int, outputs: int, pad: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(inputs, outputs, 3, padding=pad))
