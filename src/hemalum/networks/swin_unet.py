"""Swin-Unet (Cao et al. 2021): a U-Net of shifted-window attention (Liu et al. 2021), without convolutions but two.

Ours, not `SwinModel` of transformers: that is the encoder alone, and an input with fewer than a window's tokens on a
side narrows its windows for good, so what it gives depends on what it saw before. Here windows are padded, and
attention passes over what is padded, so that every multiple of 32 works; at 224 nothing is padded and all is as
published.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.contract import Network

OUT_OF_REACH = -100.0  # added to a score: its share of attention is below float32's rounding


class SwinUNet(Network):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`, 32 as published.

    Tokens are 4×4 px; `width` are their channels at the finest level, doubled from level to level; `depths` are the
    blocks per level on the way down and, but for the deepest, on the way up; `heads` per level. `drop_path` is the
    share of residual branches left out in training in the deepest block, rising linearly to there.
    Raises ValueError where depths and heads differ in number or a level's channels are no multiple of its heads.
    """

    global_context = True
    late_modules = ("expands", "joins", "decoder", "last", "norm", "head")

    def __init__(
        self,
        outputs: int = 1,
        inputs: int = 3,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        if len(depths) != len(heads):
            raise ValueError(f"swin_unet takes as many depths as heads, not {len(depths)} and {len(heads)}")
        levels = len(depths)
        for level, count in enumerate(heads):
            if width * 2**level % count:
                raise ValueError(
                    f"swin_unet's {width * 2**level} channels at level {level + 1} are no multiple of {count} heads"
                )
        self.stride = 4 * 2 ** (levels - 1)
        self.window = window
        rates = [drop_path * index / max(1, sum(depths) - 1) for index in range(sum(depths))]

        def stage(level: int) -> nn.ModuleList:
            # the deepest grid is one window at the published size: nothing to shift
            first, last = sum(depths[:level]), level == levels - 1
            return nn.ModuleList(
                Block(width * 2**level, heads[level], window, shifted=bool(index % 2) and not last, drop=rate)
                for index, rate in enumerate(rates[first : first + depths[level]])
            )

        self.patches = nn.Conv2d(inputs, width, 4, 4)
        self.patches_norm = nn.LayerNorm(width)
        self.encoder = nn.ModuleList(stage(level) for level in range(levels))
        self.merges = nn.ModuleList(_Merge(width * 2**level) for level in range(levels - 1))
        self.bottom_norm = nn.LayerNorm(width * 2 ** (levels - 1))
        order = range(levels - 2, -1, -1)
        self.expands = nn.ModuleList(_Expand(width * 2 ** (level + 1), 2, width * 2**level) for level in order)
        self.joins = nn.ModuleList(nn.Linear(2 * width * 2**level, width * 2**level) for level in order)
        self.decoder = nn.ModuleList(stage(level) for level in order)
        self.norm = nn.LayerNorm(width)
        self.last = _Expand(width, 4, width)
        self.head = nn.Conv2d(width, outputs, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x, skips = self.patches_norm(self.patches(x_BCHW).permute(0, 2, 3, 1)), []
        for level, blocks in enumerate(self.encoder):
            if level:
                x = self.merges[level - 1](x)
            skips.append(x)  # what the blocks are given, as in the authors' code
            x = self._run(blocks, x)
        x = self.bottom_norm(x)
        for expand, join, blocks, skip in zip(self.expands, self.joins, self.decoder, skips[-2::-1], strict=True):
            x = self._run(blocks, join(torch.cat([expand(x), skip], dim=-1)))
        x = self.last(self.norm(x)).permute(0, 3, 1, 2)
        return self.head(x)  # type: ignore[no-any-return]

    def _run(self, blocks: nn.Module, x_BHWC: Tensor) -> Tensor:
        """The blocks of one level; which tokens see each other is the same for all that are shifted alike."""
        masks: dict[int, Tensor] = {}
        for block in blocks.children():
            shift = int(block.shift)  # type: ignore[arg-type]
            if shift not in masks:
                masks[shift] = window_mask(x_BHWC, self.window, shift)
            x_BHWC = block(x_BHWC, masks[shift])
        return x_BHWC


def window_mask(x_BHWC: Tensor, window: int, shift: int) -> Tensor:
    """(windows, window², window²) in the type of x: 0 where two tokens of a window see each other.

    After a cyclic shift a window holds tokens from opposite edges, and padded ones: none of these see each other.
    """
    origins = []
    for length in (x_BHWC.shape[1], x_BHWC.shape[2]):
        padded = length + -length % window
        position = torch.arange(padded, device=x_BHWC.device).roll(-shift)
        origins.append((position < shift).int() + 2 * (position >= length).int())  # from the opposite edge; padded
    origin = (origins[0][:, None] * 4 + origins[1])[None, :, :, None]
    tokens = split_windows(origin, window)[..., 0]
    return (tokens[:, :, None] != tokens[:, None, :]).to(x_BHWC.dtype) * OUT_OF_REACH


def split_windows(x_BHWC: Tensor, window: int) -> Tensor:
    """(B, H, W, C) → (B · windows, window², C); H and W multiples of the window."""
    batch, height, width, channels = x_BHWC.shape
    x = x_BHWC.reshape(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window * window, channels)


class Block(nn.Module):
    """Attention within windows, moved by half a window where `shifted`; then two linear layers; both residual."""

    bias_index: Tensor

    def __init__(self, channels: int, heads: int, window: int, shifted: bool, drop: float) -> None:
        super().__init__()
        self.heads, self.window, self.drop = heads, window, drop
        self.shift = window // 2 if shifted else 0
        self.norm = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias, std=0.02)
        y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        y, x = y.flatten(), x.flatten()
        offset = (y[:, None] - y + window - 1) * (2 * window - 1) + x[:, None] - x + window - 1
        self.register_buffer("bias_index", offset.flatten(), persistent=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x_BHWC: Tensor, mask: Tensor) -> Tensor:
        x = x_BHWC + self._drop_path(self.attend(self.norm(x_BHWC), mask))
        return x + self._drop_path(self.mlp(x))

    def _drop_path(self, branch: Tensor) -> Tensor:
        """Stochastic depth (Huang et al. 2016): a branch is left out for whole images."""
        if not self.training or not self.drop:
            return branch
        keep = torch.rand(branch.shape[0], 1, 1, 1, device=branch.device) >= self.drop
        return branch * (keep / (1 - self.drop)).to(branch.dtype)

    def attend(self, x_BHWC: Tensor, mask: Tensor) -> Tensor:
        """Attention alone, of tokens already normalized; `mask` from `window_mask`."""
        (batch, height, width, channels), side = x_BHWC.shape, self.window
        x = F.pad(x_BHWC, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1], x.shape[2]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        tokens = side * side
        x = self.query_key_value(split_windows(x, side))
        # windows and heads as one axis: attention takes four axes on its fast paths
        x = x.reshape(batch, -1, tokens, 3, self.heads, channels // self.heads).permute(3, 0, 1, 4, 2, 5)
        query, key, value = x.flatten(2, 3).unbind(0)
        bias = self.bias[self.bias_index].reshape(tokens, tokens, self.heads).permute(2, 0, 1)
        scores = (mask[:, None] + bias).flatten(0, 1)[None].to(query.dtype)
        if self.training and not x.is_cuda:
            # the fused kernel of the CPU has no gradient of the added scores; what PyTorch falls back to is slower
            x = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1) + scores).softmax(-1) @ value
        else:
            x = F.scaled_dot_product_attention(query, key, value, attn_mask=scores)
        x = x.reshape(batch, -1, self.heads, tokens, channels // self.heads).transpose(2, 3)
        x = self.output(x.reshape(batch, rows // side, columns // side, side, side, channels))
        x = x.transpose(2, 3).reshape(batch, rows, columns, channels)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :height, :width]  # type: ignore[no-any-return]


class _Merge(nn.Module):
    """2×2 tokens become one of twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        batch, height, width, channels = x_BHWC.shape
        x = x_BHWC.reshape(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 4, 2, 5)
        return self.reduce(self.norm(x.flatten(3)))  # type: ignore[no-any-return]


class _Expand(nn.Module):
    """A token becomes factor × factor tokens of `outputs` channels."""

    def __init__(self, channels: int, factor: int, outputs: int) -> None:
        super().__init__()
        self.factor, self.outputs = factor, outputs
        self.widen = nn.Linear(channels, factor * factor * outputs, bias=False)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        batch, height, width, _ = x_BHWC.shape
        x = self.widen(x_BHWC).reshape(batch, height, width, self.factor, self.factor, self.outputs)
        x = x.transpose(2, 3).reshape(batch, height * self.factor, width * self.factor, self.outputs)
        return self.norm(x)  # type: ignore[no-any-return]
