"""DeepLabV3 (Chen et al. 2017) and DeepLabV3+ (Chen et al. 2018) on a dilated ResNet."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import conv_norm_relu
from hemalum.networks.contract import Network, Outputs
from hemalum.networks.resnet import ResNet, load_pretrained

RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}  # of the atrous pyramid, by output stride
LOW_LEVEL = 48  # channels that the decoder takes of an encoder scale (Chen et al. 2018, table 1)


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: 1×1, three dilated 3×3 and the image's mean, joined by a 1×1 convolution."""

    def __init__(self, inputs: int, outputs: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_norm_relu(inputs, outputs, kernel=1)])
        self.branches.extend(conv_norm_relu(inputs, outputs, dilation=rate) for rate in rates)
        self.image = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.image_norm = nn.BatchNorm2d(outputs)
        self.join = conv_norm_relu(outputs * (len(rates) + 2), outputs, kernel=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        pooled = F.relu(self._norm_of_means(self.image(x_BCHW.mean((2, 3), keepdim=True))))
        parts = [branch(x_BCHW) for branch in self.branches]
        return self.join(torch.cat([*parts, pooled.expand_as(parts[0])], dim=1))  # type: ignore[no-any-return]

    def _norm_of_means(self, x_BC11: Tensor) -> Tensor:
        norm = self.image_norm
        # one image alone has one value per channel, no spread to divide by: the running statistics serve
        if self.training and len(x_BC11) == 1 and type(norm) is nn.BatchNorm2d:
            return F.batch_norm(x_BC11, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return norm(x_BC11)  # type: ignore[no-any-return]


class DeepLab(Network):
    """What the networks share: a dilated ResNet and the atrous pyramid over its last scale. It has no decoder.

    `channels` are those after the pyramid, `rates` its dilations (None: those of the output stride). `pretrained` is
    what transformers loads a ResNet from: a folder, or a name on its hub whose files are on this machine. The other
    options are ResNet's.
    Raises ValueError for what ResNet refuses, and weights that cannot be had or do not fit.
    """

    global_context = True
    late_modules = ("decoder", "head")
    option_takers = (ResNet,)

    def __init__(
        self,
        *,
        channels: int = 256,
        rates: Sequence[int] | None = None,
        pretrained: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.encoder = ResNet(**options)
        if pretrained is not None:
            self.pretrained_digest = load_pretrained(self.encoder, pretrained)
        self.stride = self.encoder.output_stride
        self.pyramid = AtrousPyramid(self.encoder.widths[3], channels, rates or RATES[self.stride])


class DeepLabV3(DeepLab):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`. `options` are `DeepLab`'s.

    The encoder's last scale, the atrous pyramid, a 3×3 convolution and the head, enlarged bilinearly.
    """

    def __init__(self, outputs: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.decoder = conv_norm_relu(self.channels, self.channels)
        self.head = nn.Conv2d(self.channels, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        deep = self.encoder(x_BCHW)[3]
        return _to_size(self.head(self.decoder(self.pyramid(deep))), x_BCHW)


class DeepLabV3Plus(DeepLab):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`. `options` are `DeepLab`'s.

    The pyramid's features at a quarter of the size, beside `low_level` channels of each encoder scale in `skips` (1,
    2, 3; the paper takes the first alone), two 3×3 convolutions, the head, enlarged bilinearly. Without `skips` it is
    DeepLabV3: one 3×3 convolution and the head, at the pyramid's own size.

    In training `dropped=n` asks for a second pass of the decoder over the last n images with half of the encoder's
    channels left out (UniMatch, Yang et al. 2023): `extras["dropped"]` are its logits (n, outputs, H, W). The decoder
    sees both at once, so that batch norm does. `features=True` gives the head's input and weights as well:
    `extras["features"]` (B, channels, H/4, W/4), without skips at the pyramid's size, and `extras["prototypes"]`
    (outputs, channels).
    """

    feature_outputs = True

    def __init__(
        self,
        outputs: int = 1,
        *,
        backbone: str = "resnet101",
        skips: Sequence[int] = (1,),
        low_level: int = LOW_LEVEL,
        **options: Any,
    ) -> None:
        if sorted(set(skips)) != list(skips) or not set(skips) <= {1, 2, 3}:
            raise ValueError(f"skips {list(skips)}: want some of 1, 2, 3, in order, or none, which is DeepLabV3")
        super().__init__(backbone=backbone, **options)
        self.skips = tuple(skips)
        self.laterals = nn.ModuleList(
            conv_norm_relu(self.encoder.widths[skip - 1], low_level, kernel=1) for skip in skips
        )
        joined = conv_norm_relu(self.channels + low_level * len(skips), self.channels)
        self.decoder = nn.Sequential(joined, conv_norm_relu(self.channels, self.channels)) if skips else joined
        self.head = nn.Conv2d(self.channels, outputs, 1)

    def forward(self, x_BCHW: Tensor, dropped: int = 0, features: bool = False) -> Tensor | Outputs:
        scales = self.encode(x_BCHW)
        if dropped:
            scales = [torch.cat([scale, F.dropout2d(scale[-dropped:], 0.5)]) for scale in scales]
        before_head = self.decode(scales)
        logits = _to_size(self.head(before_head), x_BCHW)
        if not self.training:
            return logits
        batch = len(x_BCHW)
        extras = {"dropped": logits[batch:]} if dropped else {}
        if features:
            extras |= {"features": before_head[:batch], "prototypes": self.head.weight.flatten(1)}
        return Outputs(logits[:batch], extras=extras) if extras else logits

    def encode(self, x_BCHW: Tensor) -> list[Tensor]:
        """The four scales that the decoder takes."""
        return self.encoder(x_BCHW)  # type: ignore[no-any-return]

    def decode(self, scales: list[Tensor]) -> Tensor:
        """What the head takes, (B, channels, H/4, W/4), or at the pyramid's size without skips."""
        if not self.skips:
            return self.decoder(self.pyramid(scales[3]))  # type: ignore[no-any-return]
        finest = scales[0]
        parts = [_to_size(self.pyramid(scales[3]), finest)]
        for skip, lateral in zip(self.skips, self.laterals, strict=True):
            parts.append(_to_size(lateral(scales[skip - 1]), finest))
        return self.decoder(torch.cat(parts, dim=1))  # type: ignore[no-any-return]


def _to_size(x_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    return F.interpolate(x_BCHW, size=like_BCHW.shape[2:], mode="bilinear")
