"""TransUNet (Chen et al. 2021): ResNet-50 to 1/16, a vision transformer (ViT-B/16) over its cells, a U-Net's way up.

Ours: neither transformers nor MONAI has it, and their vision transformers take images, not another network's
features. The backbone is ResNet-50 in its V2 form of "Big Transfer" as the paper uses it: standardized weights, group
norm (Kolesnikov et al. 2020). The authors start from weights of ImageNet-21k; these are not reachable here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import conv_norm_relu
from hemalum.networks.contract import Network


class TransUNet(Network):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of 16.

    `width` are the channels of the backbone's first convolution, `blocks` its bottleneck blocks at 1/4, 1/8 and
    1/16; `hidden`, `depth`, `heads` and `mlp` are the transformer's channels, layers, heads and inner channels;
    `decoder` the channels at 1/8, 1/4, 1/2 and 1. Position embeddings are learned for a grid of `grid` × `grid` cells
    (14: 224 px) and interpolated for any other. `dropout` is the transformer's.
    Raises ValueError when `hidden` is no multiple of `heads`, `width` of 8, or the numbers of levels are others.
    """

    stride = 16
    global_context = True
    late_modules = ("decoder", "head")

    def __init__(  # noqa: PLR0913 (the network's options)
        self,
        outputs: int = 1,
        inputs: int = 3,
        width: int = 64,
        blocks: Sequence[int] = (3, 4, 9),
        hidden: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp: int = 3072,
        decoder: Sequence[int] = (256, 128, 64, 16),
        grid: int = 14,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if hidden % heads or width % 8:
            raise ValueError(
                f"transunet's hidden must be a multiple of its heads and its width of 8, not {hidden} of {heads} "
                f"and {width}"
            )
        if len(blocks) != 3 or len(decoder) != 4:
            raise ValueError(
                f"transunet takes 3 numbers of blocks and 4 widths of its decoder, "
                f"not {len(blocks)} and {len(decoder)}"
            )
        self.backbone = _Backbone(inputs, width, blocks)
        self.patches = nn.Conv2d(16 * width, hidden, 1)
        self.positions = nn.Parameter(torch.zeros(1, hidden, grid, grid))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(hidden, heads, mlp, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden, eps=1e-6)
        # half of the backbone's deepest channels: the published 512
        self.bridge = conv_norm_relu(hidden, 8 * width)
        skips = (8 * width, 4 * width, width, 0)
        before = (8 * width, *decoder[:-1])
        self.decoder = nn.ModuleList(
            nn.Sequential(conv_norm_relu(deep + skip, after), conv_norm_relu(after, after))
            for deep, skip, after in zip(before, skips, decoder, strict=True)
        )
        self.head = nn.Conv2d(decoder[-1], outputs, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x, skips = self.backbone(x_BCHW)
        x = self.patches(x)
        size = x.shape[2], x.shape[3]
        x = x + F.interpolate(self.positions, size=size, mode="bilinear")
        x = self.dropout(x.flatten(2).transpose(1, 2))
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x).transpose(1, 2).unflatten(2, size)
        x = self.bridge(x)
        for block, skip in zip(self.decoder, (*skips[::-1], None), strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = block(x if skip is None else torch.cat([x, skip], dim=1))
        return self.head(x)  # type: ignore[no-any-return]


class Layer(nn.Module):
    """A layer of the vision transformer, norms first (Dosovitskiy et al. 2021)."""

    def __init__(self, hidden: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(hidden, eps=1e-6)
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(
            nn.LayerNorm(hidden, eps=1e-6), nn.Linear(hidden, mlp), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(mlp, hidden), nn.Dropout(dropout),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x_BNC: Tensor) -> Tensor:
        batch, tokens, hidden = x_BNC.shape
        x = self.query_key_value(self.norm(x_BNC)).reshape(batch, tokens, 3, self.heads, hidden // self.heads)
        query, key, value = x.permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, tokens, hidden)
        x = x_BNC + self.output(x)
        return x + self.mlp(x)  # type: ignore[no-any-return]


class _Backbone(nn.Module):
    """Features at 1/16, and the skips at 1/2, 1/4 and 1/8."""

    def __init__(self, inputs: int, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.root = nn.Sequential(
            StandardizedConv(inputs, width, 7, 2, 3, bias=False), _group_norm(width), nn.ReLU(inplace=True)
        )
        stages, before = [], width
        for level, count in enumerate(blocks):
            inner = width * 2**level
            stages.append(
                nn.Sequential(
                    _Bottleneck(before, inner, stride=1 if level == 0 else 2),
                    *(_Bottleneck(4 * inner, inner) for _ in range(count - 1)),
                )
            )
            before = 4 * inner
        self.stages = nn.ModuleList(stages)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.root(x_BCHW)
        skips = [x]
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return x, skips[:-1]


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, inner: int, stride: int = 1) -> None:
        super().__init__()
        outputs = 4 * inner
        self.body = nn.Sequential(
            StandardizedConv(inputs, inner, 1, bias=False), _group_norm(inner), nn.ReLU(inplace=True),
            StandardizedConv(inner, inner, 3, stride, 1, bias=False), _group_norm(inner), nn.ReLU(inplace=True),
            StandardizedConv(inner, outputs, 1, bias=False), _group_norm(outputs),
        )  # fmt: skip
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else nn.Sequential(
            StandardizedConv(inputs, outputs, 1, stride, bias=False), nn.GroupNorm(outputs, outputs)
        )  # fmt: skip

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.relu(self.shortcut(x_BCHW) + self.body(x_BCHW))


class StandardizedConv(nn.Conv2d):
    """A convolution whose weights have mean 0 and variance 1 per output channel (Qiao et al. 2019)."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
        weight = (self.weight - mean) * torch.rsqrt(variance + 1e-5)
        return F.conv2d(x_BCHW, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 2), channels, eps=1e-6)
