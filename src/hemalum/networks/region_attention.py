"""Region-adaptive attention, and CSRA-Net's network: DeepLabV3+ with it on the encoder's four scales.

Channels of each scale attend to the channels of all scales, over regions as tokens (UCTransNet's channel
cross-attention, Wang et al. 2022), where the query's regions are weighted by how much their gradient varies (CSRA-Net
2025, eq. 12-16). The score matrix is channels x channels, so its cost grows linearly with the number of regions.
docs/systems/csra_net.md says what the paper leaves open.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import conv_norm_relu
from hemalum.networks.deeplab import DeepLabV3Plus

_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
ALL = frozenset(range(4))  # scales
_FLAT = 1e-12  # under the root, whose slope at 0 is infinite


def region_weights(features_BCHW: Tensor, region: int) -> Tensor:
    """Weight (B, 1, H/region, W/region) in (0, 1) of each region of region x region px; eq. 12 and 13.

    The variance of the Sobel gradient's length within a region, the mean over channels, brought to mean 0 and
    deviation 1 over the image's regions, through a sigmoid. A single pixel has no variance: for region 1 it is that
    of the 3 x 3 px around.
    """
    x = features_BCHW.float()  # squares of small differences vanish in float16
    channels = x.shape[1]
    kernel = torch.tensor(_SOBEL, device=x.device)
    kernels = torch.stack([kernel, kernel.T])[:, None].repeat(channels, 1, 1, 1)
    slopes = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernels, groups=channels)
    length = (slopes[:, 0::2].square() + slopes[:, 1::2].square() + _FLAT).sqrt()
    if region == 1:
        length = F.pad(length, (1, 1, 1, 1), mode="replicate")
    size, step = (3, 1) if region == 1 else (region, region)
    centered = length - length.mean((2, 3), keepdim=True)  # the variance stays, its rounding error does not
    mean = F.avg_pool2d(centered, size, step)
    variance = (F.avg_pool2d(centered.square(), size, step) - mean.square()).mean(1, keepdim=True)
    spread = variance.var((1, 2, 3), keepdim=True, correction=0)
    variance = variance - variance.mean((1, 2, 3), keepdim=True)
    return torch.sigmoid(variance / (spread + _FLAT).sqrt()).to(features_BCHW.dtype)


class ChannelCrossAttention(nn.Module):
    """Tokens of each scale [(B, N, C_i)] attend by channel to those of all scales; eq. 14 and 15.

    Every head has projections of full width and their mean is taken, as in UCTransNet; ψ is instance norm. Of
    scales that are not `taken` the change is None; they are attended to all the same.
    """

    def __init__(self, widths: Sequence[int], heads: int, taken: Collection[int] = ALL) -> None:
        super().__init__()
        total = sum(widths)
        self.heads = heads
        self.taken = taken
        self.norms = _of_taken(taken, widths, _norm)
        self.norm_of_all = nn.LayerNorm(total, eps=1e-6)
        self.queries = _of_taken(taken, widths, lambda width: nn.Linear(width, heads * width, bias=False))
        self.key = nn.Linear(total, heads * total, bias=False)
        self.value = nn.Linear(total, heads * total, bias=False)
        self.outs = _of_taken(taken, widths, lambda width: nn.Linear(width, width, bias=False))

    def forward(self, tokens: list[Tensor], weights: list[Tensor]) -> list[Tensor | None]:
        all_scales = self.norm_of_all(torch.cat(tokens, dim=2))
        key, value = self._by_head(self.key(all_scales)), self._by_head(self.value(all_scales))
        mixed: list[Tensor | None] = []
        parts = zip(tokens, weights, self.norms, self.queries, self.outs, strict=True)
        for scale, (x, weight, norm, query, out) in enumerate(parts):
            if scale not in self.taken:
                mixed.append(None)
                continue
            q = self._by_head(query(norm(x)) * weight)
            scores = q.transpose(2, 3) @ key / key.shape[-1] ** 0.5  # (B, heads, C_i, C of all scales)
            shares = F.instance_norm(scores).softmax(-1)
            mixed.append(out((value @ shares.transpose(2, 3)).mean(1)))
        return mixed

    def _by_head(self, x_BNC: Tensor) -> Tensor:
        """(B, N, heads * C) → (B, heads, N, C)."""
        batch, count, _ = x_BNC.shape
        return x_BNC.view(batch, count, self.heads, -1).transpose(1, 2)


class DepthwiseMLP(nn.Module):
    """Depthwise 3 x 3 convolution that widens by `growth`, 1 x 1, GELU, 1 x 1 back; (B, C, h, w) → the same."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        inner = width * growth
        self.widen = nn.Conv2d(width, inner, 3, padding=1, groups=width)
        self.mix = nn.Conv2d(inner, inner, 1)
        self.narrow = nn.Conv2d(inner, width, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.mix(self.widen(x_BCHW))))  # type: ignore[no-any-return]


class RegionLayer(nn.Module):
    """Attention, then F = O + DMLP(LN(O)) (eq. 16), each beside what came in."""

    def __init__(self, widths: Sequence[int], heads: int, growth: int, taken: Collection[int] = ALL) -> None:
        super().__init__()
        self.attention = ChannelCrossAttention(widths, heads, taken)
        self.norms = _of_taken(taken, widths, _norm)
        self.mlps = _of_taken(taken, widths, lambda width: DepthwiseMLP(width, growth))

    def forward(self, tokens: list[Tensor], weights: list[Tensor], height: int) -> list[Tensor]:
        result = []
        for x, change, norm, mlp in zip(tokens, self.attention(tokens, weights), self.norms, self.mlps, strict=True):
            if change is None:
                result.append(x)
                continue
            x = x + change
            result.append(x + _as_tokens(mlp(_as_map(norm(x), height))))
        return result


class RegionAttention(nn.Module):
    """Four scales of an encoder → the same scales, each with what its regions have learned from all.

    Scale i, at 1/`strides`[i] of the image, is reduced to `reduced`[i] channels by a 1 x 1 convolution; one region
    of `region` px of the image is one token. Positions are learned for `grid` x `grid` tokens and interpolated to any
    other number. Back at its own size each scale is added to what came in, through 1 x 1 convolution, batch norm and
    ReLU. Scales that are not among those `taken` by a decoder come out as they came in.
    """

    def __init__(
        self, widths: Sequence[int], strides: Sequence[int], reduced: Sequence[int], region: int, grid: int,
        heads: int, depth: int, growth: int, taken: Collection[int] = ALL,
    ) -> None:  # fmt: skip
        super().__init__()
        self.taken = taken
        self.patches = [region // stride for stride in strides]
        self.reduce = nn.ModuleList(nn.Conv2d(w, r, 1) for w, r in zip(widths, reduced, strict=True))
        self.embed = nn.ModuleList(nn.Conv2d(r, r, p, p) for r, p in zip(reduced, self.patches, strict=True))
        self.positions = nn.ParameterList(nn.Parameter(0.02 * torch.randn(1, r, grid, grid)) for r in reduced)
        # what no one looks at is not there: processes that train together wait for every weight's gradient
        self.layers = nn.ModuleList(
            RegionLayer(reduced, heads, growth, ALL if number < depth - 1 else taken) for number in range(depth)
        )
        self.norms = _of_taken(taken, reduced, _norm)
        self.back = nn.ModuleList(
            conv_norm_relu(r, w, kernel=1) if scale in taken else nn.Identity()
            for scale, (w, r) in enumerate(zip(widths, reduced, strict=True))
        )

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        tokens, weights = [], []
        height = scales[0].shape[2] // self.patches[0]
        for x, reduce, embed, patch, position in zip(
            scales, self.reduce, self.embed, self.patches, self.positions, strict=True
        ):
            x = reduce(x)
            weights.append(_as_tokens(region_weights(x, patch)))
            x = embed(x)
            tokens.append(_as_tokens(x + F.interpolate(position, size=x.shape[2:], mode="bilinear")))
        for layer in self.layers:
            tokens = layer(tokens, weights, height)
        attended = []
        for scale, (x, token, norm, back) in enumerate(zip(scales, tokens, self.norms, self.back, strict=True)):
            if scale not in self.taken:
                attended.append(x)
                continue
            change = F.interpolate(_as_map(norm(token), height), size=x.shape[2:], mode="nearest")
            attended.append(x + back(change))
        return attended


class CSRANet(DeepLabV3Plus):
    """DeepLabV3+ whose decoder takes all four encoder scales, after region-adaptive attention.

    Without `skips` it is DeepLabV3, whose pyramid takes the last scale alone, after attention to all four.

    (B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`, which is the larger of region and
    output stride. `raa: false` leaves the attention out; `grid` is the number of regions along a training tile. The
    other `options` are those of DeepLabV3+.
    """

    def __init__(
        self,
        outputs: int = 1,
        *,
        skips: Sequence[int] = (1, 2, 3),
        raa: bool = True,
        reduced: Sequence[int] = (64, 128, 256, 512),
        region: int = 16,
        grid: int = 16,
        heads: int = 4,
        depth: int = 4,
        growth: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(outputs, skips=skips, **options)
        output_stride = self.stride
        if region % output_stride:
            raise ValueError(f"region {region}: want a multiple of output_stride, {output_stride}")
        if len(reduced) != 4 or min(grid, heads, depth, growth) < 1:
            raise ValueError(
                f"reduced {list(reduced)}, grid {grid}, heads {heads}, depth {depth}, growth {growth}: want four "
                "widths, and at least 1 of each"
            )
        self.attention: RegionAttention | None = None
        if raa:
            self.stride = region
            widths, strides = self.encoder.widths, [min(2**power, output_stride) for power in (2, 3, 4, 5)]
            taken = {*(skip - 1 for skip in skips), 3}
            self.attention = RegionAttention(widths, strides, reduced, region, grid, heads, depth, growth, taken)

    def encode(self, x_BCHW: Tensor) -> list[Tensor]:
        """The four scales that the decoder takes."""
        scales = super().encode(x_BCHW)
        return scales if self.attention is None else self.attention(scales)


def _of_taken(taken: Collection[int], widths: Sequence[int], make: Callable[[int], nn.Module]) -> nn.ModuleList:
    """A module for each scale that is taken, by its width."""
    return nn.ModuleList(make(width) if scale in taken else nn.Identity() for scale, width in enumerate(widths))


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6)


def _as_tokens(x_BCHW: Tensor) -> Tensor:
    """(B, C, h, w) → (B, h * w, C)."""
    return x_BCHW.flatten(2).transpose(1, 2)


def _as_map(x_BNC: Tensor, height: int) -> Tensor:
    """(B, height * w, C) → (B, C, height, w)."""
    batch, count, channels = x_BNC.shape
    return x_BNC.transpose(1, 2).reshape(batch, channels, height, count // height)
