"""eU-Net3+ (Swain, Cheoi, Ko 2024): U-Net3+ with a gated encoder, blurred pooling, and SAM at the bottleneck.

A squeeze-and-excitation gate over features and embedding, then cross-attention; what is gated and what attends to
what is read in several ways (docs/systems/eunet3plus_sam.md).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import Excitation
from hemalum.networks.contract import Outputs, check_choice
from hemalum.networks.unet3plus import Down, UNet3Plus

FUSIONS = ("guided", "advanced", "joint", "concat", "none")
ATTENTION = ("guided", "advanced", "joint")  # those with a fusion block
GATES = ("sigmoid", "glu")


class EUNet3Plus(UNet3Plus):
    """(B, inputs, H, W) and SAM's embedding (B, `embedding`, h, w) → (B, outputs, H, W) logits.

    `fusion`: "guided" has the gated features as queries and the plain ones as keys and values; "advanced" has the
    gated ones as all three, and gates the finer levels as well; "joint" gates features and embedding side by side,
    and both are all three; "concat" hands the two on side by side; "none" has no embedding. `gate` is what makes the
    gate's last layer a factor. `reduction` narrows the gate's hidden layer, `dropout` drops whole channels after the
    fusion.
    """

    late_modules = ("decoder", "fuse", "head")

    def __init__(  # noqa: PLR0913 (the network's options)
        self,
        outputs: int = 1,
        inputs: int = 3,
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        skip: int | None = None,
        activation: str = "glu",
        down: str = "max_blur",
        deep_supervision: bool = False,
        cgm: bool = False,
        fusion: str = "guided",
        gate: str = "sigmoid",
        embedding: int = 256,
        reduction: int = 16,
        dropout: float = 0.3,
    ) -> None:
        check_choice("fusion", fusion, FUSIONS)
        check_choice("gate", gate, GATES)
        wider = widths[-1] + embedding if fusion == "concat" else None
        super().__init__(outputs, inputs, widths, skip, activation, down, deep_supervision, cgm, wider)
        self.fusion = fusion
        self.drop = nn.Dropout2d(dropout)
        if fusion == "none":
            return
        self.conditions = ("embedding",)
        self.embedding_channels = embedding
        self.global_context = True
        self.blur = Down(blurred=True)
        if fusion in ATTENTION:
            self.fuse = FusionBlock(widths[-1], embedding, gate, reduction, fusion)
        if fusion == "advanced":
            self.gates = nn.ModuleList(
                LevelGate(width, embedding, gate, reduction, times=max(1, 4 >> level))
                for level, width in enumerate(widths[:-1])
            )

    def forward(self, x_BCHW: Tensor, embedding: Tensor | None = None) -> Tensor | Outputs:
        """Raises ValueError when the embedding is missing or has another number of channels."""
        levels = self.encode(x_BCHW)
        if self.fusion == "none":
            levels[-1] = self.drop(levels[-1])
            return self.decode(levels)
        if embedding is None or embedding.ndim != 4 or embedding.shape[1] != self.embedding_channels:
            problem = "none is given" if embedding is None else f"its shape is {tuple(embedding.shape)}"
            raise ValueError(
                f"fusion '{self.fusion}' needs an embedding of (B, {self.embedding_channels}, h, w), {problem}: "
                "give the recipe a key 'sam', or fusion none"
            )
        embedding = embedding.to(x_BCHW.dtype)
        if self.fusion == "advanced":
            levels[:-1] = [gate(x, embedding) for gate, x in zip(self.gates, levels, strict=False)]
        deep, coarse = levels[-1], self._to_grid(embedding, levels[-1])
        fused = torch.cat([deep, coarse], dim=1) if self.fusion == "concat" else self.fuse(deep, coarse)
        levels[-1] = self.drop(fused)
        return self.decode(levels)

    def _to_grid(self, embedding: Tensor, like: Tensor) -> Tensor:
        """Max-pooled and blurred while at least twice as fine as the grid of `like`, then resampled to it."""
        embedding = _shrink(embedding, self.blur, like)
        height, width = like.shape[2:]
        if embedding.shape[2:] == like.shape[2:]:
            return embedding
        return F.interpolate(embedding, size=(int(height), int(width)), mode="bilinear")


class FusionBlock(nn.Module):
    """Gate and cross-attention with one head over the pixels of the bottleneck; no residual, no norm, no positions.

    Features x (B, `channels`, H, W) and an embedding of `others` channels on the same grid → (B, `channels`, H, W).
    `fusion` "guided": queries are the gated x, keys and values x itself. "advanced": all three are the gated x. In
    both the embedding is seen by the gate alone, as means over the grid. "joint": all three are x and the embedding
    side by side, gated, and the last layer leads back to `channels`: where the embedding has something stays known.
    """

    def __init__(self, channels: int, others: int, gate: str, reduction: int, fusion: str) -> None:
        super().__init__()
        self.fusion = fusion
        joint = fusion == "joint"
        wide = channels + others if joint else channels
        self.gate = Excitation(wide, reduction, 0 if joint else others, gate)
        self.query = nn.Linear(wide, wide)
        self.key = nn.Linear(wide, wide)
        self.value = nn.Linear(wide, wide)
        self.out = nn.Linear(wide, channels)

    def forward(self, x_BCHW: Tensor, other_BCHW: Tensor) -> Tensor:
        gated = self._gate(x_BCHW, other_BCHW).flatten(2).transpose(1, 2)
        seen = x_BCHW.flatten(2).transpose(1, 2) if self.fusion == "guided" else gated
        # one head as an axis of its own: the form that export knows
        query, key, value = (
            part(x)[:, None] for part, x in ((self.query, gated), (self.key, seen), (self.value, seen))
        )
        mixed = F.scaled_dot_product_attention(query, key, value)[:, 0]
        return self.out(mixed).transpose(1, 2).reshape(x_BCHW.shape)  # type: ignore[no-any-return]

    def _gate(self, x_BCHW: Tensor, other_BCHW: Tensor) -> Tensor:
        if self.fusion == "joint":
            return self.gate(torch.cat([x_BCHW, other_BCHW], dim=1))  # type: ignore[no-any-return]
        return self.gate(x_BCHW, other_BCHW)  # type: ignore[no-any-return]


class LevelGate(nn.Module):
    """The gate of a finer level: the embedding is brought to half the level's channels first, `times` as fine."""

    def __init__(self, channels: int, embedding: int, gate: str, reduction: int, times: int) -> None:
        super().__init__()
        narrow = max(1, channels // 2)
        self.project: nn.Module
        if times == 1:
            self.project = nn.Conv2d(embedding, narrow, 1)
        else:
            self.project = nn.ConvTranspose2d(embedding, narrow, 2 * times, times, times // 2)
        self.gate = Excitation(channels, reduction, narrow, gate)
        self.blur = Down(blurred=True)

    def forward(self, x_BCHW: Tensor, embedding: Tensor) -> Tensor:
        return self.gate(x_BCHW, _shrink(self.project(embedding), self.blur, x_BCHW))  # type: ignore[no-any-return]


def _shrink(x: Tensor, down: nn.Module, like: Tensor) -> Tensor:
    """Halved by `down` while at least twice as fine as the grid of `like`."""
    while x.shape[2] >= 2 * like.shape[2] and x.shape[3] >= 2 * like.shape[3]:
        x = down(x)
    return x
