"""MedT (Valanarasu et al. 2021): gated axial attention on the whole image and, deeper, on 4 × 4 parts of it.

Position embeddings belong to a row's length, so a network is built for one input size. Read after the paper and,
where that gives no sizes, the authors' published model. Departures (docs/systems/baselines.md): the gates act after
batch norm, as in the paper's equation, where the published code has them before it, which undoes them; the parts go
through the network as one batch, where the published code has a loop.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import conv_norm, conv_norm_relu
from hemalum.networks.contract import Network

Gates = tuple[float, float, float, float]  # of query's, key's and value's positions, and of value

PARTS = 4  # the local branch sees the image in PARTS × PARTS parts
ROWS_AT_ONCE = 4096  # in eval: positions whose similarities are held at a time, so that memory grows with pixels


class MedT(Network):
    """(B, inputs, size, size) → (B, outputs, size, size) logits; `size` a multiple of 128.

    `width` are the channels of the attention at the finest level, doubled from level to level; `stem` those between
    the first convolutions, `heads` of each attention, `blocks` per level: the global branch has the first two
    levels, the local branch all four. `gates` are the start values of the gates of query's, key's and value's
    positions, and of value.
    Raises ValueError for a size that is no multiple of 128, and in forward for images of another.
    """

    global_context = True
    late_modules = ("last", "head")

    def __init__(
        self,
        outputs: int = 1,
        inputs: int = 3,
        size: int = 128,
        width: int = 16,
        stem: int = 128,
        heads: int = 8,
        blocks: Sequence[int] = (1, 2, 4, 1),
        gates: Gates = (0.1, 0.1, 0.1, 1.0),
    ) -> None:
        super().__init__()
        if size < 128 or size % 128:
            raise ValueError(f"medt's size must be a multiple of 128, not {size}")
        if width % (2 * heads):
            raise ValueError(f"medt's width must be a multiple of twice its heads ({2 * heads}), not {width}")
        if len(blocks) != 4:
            raise ValueError(f"medt takes 4 numbers of blocks, not {len(blocks)}")
        self.fixed_window = self.size = size
        self.global_branch = _Branch(inputs, size, width, width // 2, stem, heads, blocks[:2], gates)
        # four times as wide a stem, as published
        self.local_branch = _Branch(inputs, size // PARTS, width, 4 * width, stem, heads, blocks, None)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        batch, channels, height, width = x_BCHW.shape
        if height != self.size or width != self.size:
            raise ValueError(f"medt was built for images of {self.size}×{self.size} px, not {height}×{width}")
        side = self.size // PARTS
        parts = x_BCHW.reshape(batch, channels, PARTS, side, PARTS, side).permute(0, 2, 4, 1, 3, 5)
        parts = self.local_branch(parts.reshape(-1, channels, side, side))
        parts = parts.reshape(batch, PARTS, PARTS, -1, side, side).permute(0, 3, 1, 4, 2, 5)
        x = self.global_branch(x_BCHW) + parts.reshape(batch, -1, self.size, self.size)
        return self.head(F.relu(self.last(x)))  # type: ignore[no-any-return]


class _Branch(nn.Module):
    """Three convolutions to half the size, axial attention on the way down, convolutions and sums on the way up."""

    def __init__(
        self, inputs: int, size: int, width: int, narrow: int, stem: int, heads: int, blocks: Sequence[int],
        gates: Gates | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = nn.Sequential(
            *conv_norm_relu(inputs, narrow, 7, 2), *conv_norm_relu(narrow, stem), *conv_norm_relu(stem, narrow)
        )
        levels, before, side = [], narrow, size // 2
        for level, count in enumerate(blocks):
            inner = width * 2**level
            layers = []
            for index in range(count):
                halve = level > 0 and index == 0
                layers.append(_Block(before, inner, side, heads, halve, gates))
                before, side = 2 * inner, side // 2 if halve else side
            levels.append(nn.Sequential(*layers))
        self.levels = nn.ModuleList(levels)
        deepest = 2 ** len(blocks) * width
        # with four levels the deepest map is halved once more by a convolution, and added back after enlarging
        self.bottom = nn.Conv2d(deepest, deepest, 3, 2, 1) if len(blocks) == 4 else None
        self.up = nn.ModuleList(
            nn.Conv2d(deepest // 2**step, deepest // 2 ** (step + 1), 3, padding=1) for step in range(len(blocks))
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x, skips = self.stem(x_BCHW), []
        for level in self.levels:
            x = level(x)
            skips.append(x)
        if self.bottom is not None:
            x = x + _enlarged(self.bottom(x))
        for up, skip in zip(self.up, [*skips[-2::-1], None], strict=True):
            x = _enlarged(up(x))
            if skip is not None:
                x = x + skip
        return x  # type: ignore[no-any-return]


def _enlarged(x_BCHW: Tensor) -> Tensor:
    return F.relu(F.interpolate(x_BCHW, scale_factor=2.0, mode="bilinear"))


class _Block(nn.Module):
    """A bottleneck whose middle is attention along columns, then along rows; halved in size after the rows."""

    def __init__(self, inputs: int, inner: int, size: int, heads: int, halve: bool, gates: Gates | None) -> None:
        super().__init__()
        self.narrow = conv_norm_relu(inputs, inner, kernel=1)
        self.columns = AxialAttention(inner, size, heads, gates)
        self.rows = AxialAttention(inner, size, heads, gates)
        self.halve = halve
        self.widen = conv_norm(inner, 2 * inner, 1)
        self.shortcut: nn.Module = nn.Identity()
        if halve or inputs != 2 * inner:
            self.shortcut = conv_norm(inputs, 2 * inner, 1, 2 if halve else 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.narrow(x_BCHW)
        x = self.columns(x.transpose(2, 3)).transpose(2, 3)
        x = self.rows(x)
        if self.halve:
            x = F.avg_pool2d(x, 2)
        return F.relu(self.shortcut(x_BCHW) + self.widen(F.relu(x)))


class AxialAttention(nn.Module):
    """Attention along the last axis: (B, C, R, L) → the same; each of the R rows of length L apart.

    With `gates` (query, key, position, value) the similarity is q·k + g_q q·r_q + g_k k·r_k and the output
    g_v v + g_p r_v, with embeddings r of relative positions (Wang et al. 2020, gated as in MedT) and batch norm on
    each term; with None positions play no part. Memory in eval grows with R · L, in training with its power 3/2.
    """

    distances: Tensor

    def __init__(self, channels: int, length: int, heads: int, gates: Gates | None) -> None:
        super().__init__()
        self.heads, self.length = heads, length
        self.share = channels // heads
        self.query_key_value = nn.Conv2d(channels, 2 * channels, 1, bias=False)  # q and k are half as wide as v
        nn.init.normal_(self.query_key_value.weight, 0, channels**-0.5)
        self.norm_inputs = nn.BatchNorm2d(2 * channels)
        self.norm_similarity = nn.ModuleList(_scaling_norm(heads) for _ in range(1 if gates is None else 3))
        self.norm_value = nn.BatchNorm2d(channels)
        self.gates = None if gates is None else nn.Parameter(torch.tensor(gates))
        if gates is not None:
            self.norm_position = nn.BatchNorm2d(channels)
            self.relative = nn.Parameter(torch.randn(2 * self.share, 2 * length - 1) * self.share**-0.5)
            steps = torch.arange(length)
            distances = (steps[:, None] - steps + length - 1).flatten()
            self.register_buffer("distances", distances, persistent=False)

    def forward(self, x_BCRL: Tensor) -> Tensor:
        x = self.norm_inputs(self.query_key_value(x_BCRL))
        batch, _, rows, length = x.shape
        x = x.reshape(batch, self.heads, 2 * self.share, rows, length).permute(0, 3, 1, 2, 4)
        embedding = None
        if self.gates is not None:
            embedding = self.relative[:, self.distances].reshape(-1, self.length, self.length)
        # batch norm needs all rows at once while it takes its statistics
        at_once = rows if self.training else max(1, ROWS_AT_ONCE // self.length)
        sums = [self._attend(part, embedding) for part in torch.split(x, at_once, dim=1)]
        value, position = (
            torch.cat(parts, dim=1).permute(0, 2, 3, 1, 4).reshape(batch, -1, rows, length)
            for parts in zip(*sums, strict=True)
        )
        value = self.norm_value(value)
        if self.gates is None:
            return value  # type: ignore[no-any-return]
        return self.gates[3] * value + self.gates[2] * self.norm_position(position)  # type: ignore[no-any-return]

    def _attend(self, x_BRHCL: Tensor, embedding: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the values and what their positions add up to, each (B, R, heads, share, L)."""
        half = self.share // 2
        query, key, value = torch.split(x_BRHCL, [half, half, self.share], dim=3)
        similarity = self._normed(0, query.transpose(3, 4) @ key)
        if embedding is None:
            return value @ similarity.softmax(-1).transpose(3, 4), value
        of_query, of_key, of_value = torch.split(embedding, [half, half, self.share])
        gate_query, gate_key, _, _ = self.gates  # type: ignore[misc]
        similarity = similarity + gate_query * self._normed(1, _with_positions(query, of_query))
        similarity = similarity + gate_key * self._normed(2, _with_positions(key, of_key)).transpose(3, 4)
        weight = similarity.softmax(-1)
        # (L, …) as batch of the matrix products: each position has its own embeddings
        position = weight.permute(3, 0, 1, 2, 4).flatten(1, 3) @ of_value.permute(1, 2, 0)
        position = position.reshape(-1, *weight.shape[:3], self.share).permute(1, 2, 3, 4, 0)
        return value @ weight.transpose(3, 4), position

    def _normed(self, term: int, similarity_BRHLL: Tensor) -> Tensor:
        norm = self.norm_similarity[term]
        return norm(similarity_BRHLL.flatten(0, 1)).view_as(similarity_BRHLL)  # type: ignore[no-any-return]


def _with_positions(x_BRHCL: Tensor, embedding_CLL: Tensor) -> Tensor:
    """(B, R, heads, L, L): Σ_c x[c, i] · r[c, i, j]."""
    product = x_BRHCL.permute(4, 0, 1, 2, 3).flatten(1, 3) @ embedding_CLL.transpose(0, 1)
    return product.reshape(-1, *x_BRHCL.shape[:3], embedding_CLL.shape[2]).permute(1, 2, 3, 0, 4)


def _scaling_norm(heads: int) -> nn.BatchNorm2d:
    """Batch norm without a bias, which the softmax would take out again."""
    norm = nn.BatchNorm2d(heads)
    norm.register_parameter("bias", None)
    return norm
