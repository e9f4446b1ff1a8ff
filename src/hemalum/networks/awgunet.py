"""AWGUNET (Roy et al. 2024, ISBI): U-Net over DenseNet-121 whose skips pass wavelet-guided and channel attention.

Read after the paper (arXiv 2406.08425) and, where that gives no sizes, the authors' published model: the encoder ends
with DenseNet's third dense block, at 1/16. One departure, in docs/systems/baselines.md: the learned global average is
a mean over pixels, where their code sums, so that it does not grow with the image.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import conv_norm_relu
from hemalum.networks.contract import Network


class AWGUNet(Network):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of 32: wavelets halve what is at 1/16.

    `width` are the channels of DenseNet's first convolution, `growth` those that a dense layer adds, `blocks` the
    dense layers at 1/4, 1/8 and 1/16; `decoder` the channels at 1/8, 1/4, 1/2 and 1.
    Raises ValueError for other numbers of levels, or an odd width of the decoder.
    """

    stride = 32
    global_context = True
    late_modules = ("decoder", "head", "up")

    def __init__(
        self,
        outputs: int = 1,
        inputs: int = 3,
        width: int = 64,
        growth: int = 32,
        blocks: Sequence[int] = (6, 12, 24),
        decoder: Sequence[int] = (512, 256, 128, 64),
    ) -> None:
        super().__init__()
        if len(blocks) != 3 or len(decoder) != 4 or any(channels % 2 for channels in decoder):
            raise ValueError(
                f"awgunet takes 3 numbers of dense layers and 4 even widths of its decoder, "
                f"not {list(blocks)} and {list(decoder)}"
            )
        self.root = conv_norm_relu(inputs, width, 7, 2)
        stages, transitions, skips, channels = [], [], [inputs, width], width
        for level, count in enumerate(blocks):
            if level:
                transitions.append(nn.Conv2d(channels, channels // 2, 1, bias=False))
                channels //= 2
            layers = [_DenseLayer(channels + index * growth, growth) for index in range(count)]
            channels += count * growth
            stages.append(nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)))
            skips.append(channels)
        self.stages = nn.ModuleList(stages)
        self.transitions = nn.ModuleList(transitions)
        self.attention = nn.ModuleList(WaveletAttention(count) for count in skips[::-1])
        before = (channels, *decoder[:-1])
        self.up = nn.ModuleList(Up(count) for count in before)
        self.decoder = nn.ModuleList(
            _Kernels(2 * deep + skip, after) for deep, skip, after in zip(before, skips[-2::-1], decoder, strict=True)
        )
        self.head = nn.Conv2d(decoder[-1], outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.root(x_BCHW)
        skips = [x_BCHW, x]
        x = F.max_pool2d(x, 3, 2, 1)
        for level, stage in enumerate(self.stages):
            if level:
                # the pooling before the 1×1 convolution, which it commutes with: a quarter of the work
                x = self.transitions[level - 1](F.avg_pool2d(x, 2))
            x = stage(x)
            skips.append(x)
        x, *skips = (attention(skip) for attention, skip in zip(self.attention, skips[::-1], strict=True))
        for up, block, skip in zip(self.up, self.decoder, skips, strict=True):
            x = block(torch.cat([up(x), skip], dim=1))
        return self.head(x)  # type: ignore[no-any-return]


class WaveletAttention(nn.Module):
    """Wavelet-guided channel attention: a gate per pixel and channel times a gate per channel.

    The first from the Haar bands, brought back to full size by a transposed convolution, and the features; the second
    from their learned weighted average through two linear layers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(8, channels // 4)  # a quarter of three colors would be none
        self.upsample = nn.ConvTranspose2d(4 * channels, 4 * channels, 2, 2)
        self.from_bands = _Separable(4 * channels, channels)
        self.from_features = _Separable(channels, channels)
        self.gate = _Separable(channels, channels)
        self.weight = nn.Parameter(torch.ones(channels))
        self.channels = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.ReLU(inplace=True), nn.Conv2d(inner, channels, 1), nn.Sigmoid()
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        both = self.from_bands(self.upsample(haar(x_BCHW))) + self.from_features(x_BCHW)
        mean = x_BCHW.mean((2, 3), keepdim=True) * self.weight.view(1, -1, 1, 1)
        return x_BCHW * self.gate(both).sigmoid() * self.channels(mean)  # type: ignore[no-any-return]


def haar(x_BCHW: Tensor) -> Tensor:
    """One level of the Haar transform, orthonormal: (B, C, H, W) → (B, 4C, H/2, W/2), bands LL, LH, HL, HH."""
    top, bottom = x_BCHW[:, :, ::2], x_BCHW[:, :, 1::2]
    low, high = top + bottom, top - bottom
    bands = [band[..., ::2] + sign * band[..., 1::2] for band in (low, high) for sign in (1, -1)]
    return torch.cat(bands, dim=1) / 2


class _Separable(nn.Module):
    """A separable convolution with 1×1 kernels: a factor per channel, then a 1×1 convolution; done as one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(2 * torch.rand(inputs) - 1)
        self.mix = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.conv2d(x_BCHW, self.mix.weight * self.factor.view(1, -1, 1, 1), self.mix.bias)


class _DenseLayer(nn.Module):
    """Norm, ReLU, 1×1, norm, ReLU, 3×3; what comes in is kept beside it (Huang et al. 2017)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.Conv2d(inputs, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(inplace=True),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.cat([x_BCHW, self.body(x_BCHW)], dim=1)


class Up(nn.Module):
    """Twice the size and twice the channels: smoothly enlarged ones beside those of a transposed convolution.

    Enlarged by a Gaussian and by a Lanczos filter, averaged, then a 1×1 convolution, as published. Filters whose
    weights add up to 1 commute with the convolution, so that it runs before them, on a quarter of the pixels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, 2)
        self.smooth = DoubleSize((gaussian, lanczos), 5)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.cat([self.smooth(self.mix(x_BCHW)), self.upsample(x_BCHW)], dim=1)


def gaussian(x: float) -> float:
    """Standard deviation 1/2 px, cut off at three of them."""
    return math.exp(-2 * x * x) if abs(x) < 1.5 else 0.0


def lanczos(x: float) -> float:
    """Lanczos' windowed sinc over 5 px to either side."""
    if not 0 < abs(x) < 5:
        return float(x == 0)
    return 5 * math.sin(math.pi * x) * math.sin(math.pi * x / 5) / (math.pi * x) ** 2


class DoubleSize(nn.Module):
    """Enlarges by two with the mean of filters of up to `radius` px about pixel centers; edges go on beyond.

    As products with matrices: PyTorch's convolutions of single channels take many times as long on a CPU.
    """

    taps: Tensor

    def __init__(self, kernels: Sequence[Callable[[float], float]], radius: int) -> None:
        super().__init__()
        self.radius = radius
        # a fine pixel's center is a quarter of a coarse one before or behind the center of its coarse pixel
        taps = torch.tensor(
            [
                [[kernel(step - shift) for step in range(-radius, radius + 1)] for shift in (-0.25, 0.25)]
                for kernel in kernels
            ],
            dtype=torch.float64,
        )
        self.register_buffer("taps", (taps / taps.sum(2, keepdim=True)).float(), persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        rows, columns = self._matrices(x_BCHW.shape[2]), self._matrices(x_BCHW.shape[3])
        x = torch.stack([row.to(x_BCHW.dtype) @ x_BCHW @ column.T.to(x_BCHW.dtype)
                         for row, column in zip(rows, columns, strict=True)])  # fmt: skip
        return x.mean(0)

    def _matrices(self, length: int) -> Sequence[Tensor]:
        """(2 · length, length) for each filter: what it makes of each pixel of a row."""
        positions = torch.arange(length, device=self.taps.device)
        pixels = (positions[:, None] == positions).to(self.taps.dtype)[:, None]
        pixels = F.pad(pixels, (self.radius, self.radius), mode="replicate")
        responses = F.conv1d(pixels, self.taps.flatten(0, 1)[:, None])
        return responses.reshape(length, len(self.taps), 2, length).permute(1, 3, 2, 0).flatten(1, 2).unbind(0)


class _Kernels(nn.Module):
    """Convolutions of 5×5, 3×3 and 1×1 side by side, then one of 3×3; instance norm and ReLU after each."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wide = _conv_norm_relu(inputs, outputs // 2, 5)
        self.near = _conv_norm_relu(inputs, outputs // 2, 3)
        self.mix = nn.Conv2d(outputs, outputs, 1)
        self.point = _conv_norm_relu(inputs, outputs, 1)
        self.last = _conv_norm_relu(2 * outputs, outputs, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        both = self.mix(torch.cat([self.wide(x_BCHW), self.near(x_BCHW)], dim=1))
        return self.last(torch.cat([both, self.point(x_BCHW)], dim=1))  # type: ignore[no-any-return]


def _conv_norm_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    # instance norm takes out what a bias adds
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.InstanceNorm2d(outputs, affine=True),
        nn.ReLU(inplace=True),
    )
