"""SEU-Net of ClinSegNet (Bioengineering 2025, 12, 1156): a U-Net with squeeze-excitation, organ and edge branch.

Two designs, because the paper's number of parameters and its number of operations fit no one network
(docs/systems/clin_seg_net.md): `parameters` has shortcuts and transposed convolutions and meets the 9.79 million,
`operations` has neither and comes near the 83.90 GFLOPs.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import Excitation
from hemalum.networks.contract import Network

Design = Literal["parameters", "operations"]
UNKNOWN = -1
_FEWEST = 4  # channels between the two layers of a squeeze-excitation, however narrow the stage


class SEUNet(Network):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`.

    `widths` are the channels of the encoder's stages, the decoder mirrors them: seven stages for four widths.
    `se` puts squeeze-excitation (Hu et al. 2018, reduction `ratio`) at the end of each stage. `film` scales and
    shifts the channels of each stage by linear functions of the organ's embedding (Perez et al. 2018; the scale
    goes through a sigmoid): `organs` rows of `embedding` numbers. At the start all organs are alike: the scale is
    σ(`scale_bias`) everywhere, the shift 0. `edge` gives the last of the logits a branch of its own. An unknown organ
    has the mean of the known organs' embeddings (`unknown`: "mean"); so that this is learned, in training each image
    goes unnamed with the probability `organ_dropout`.
    Raises ValueError for options that make no network.
    """

    late_modules = ("up", "decoder", "head", "edge", "film", "embedding")

    def __init__(  # noqa: PLR0913 (the network's options)
        self,
        outputs: int = 2,
        inputs: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512),
        se: bool = True,
        film: bool = True,
        edge: bool = True,
        embedding: int = 32,
        organs: int = 23,
        ratio: int = 16,
        unknown: Literal["mean"] = "mean",
        scale_bias: float = 0.0,
        organ_dropout: float = 0.1,
        design: Design = "parameters",
    ) -> None:
        super().__init__()
        _check(outputs, widths, edge, {"embedding": embedding, "organs": organs, "ratio": ratio}, unknown, design)
        _check_film(scale_bias, organ_dropout)
        self.stride = 2 ** (len(widths) - 1)
        self.global_context = se  # the squeeze looks at the whole input
        self.conditions = ("organ",) if film else ()
        self.organ_dropout = organ_dropout
        residual = design == "parameters"
        rising = list(pairwise(widths))[::-1]

        def stage(before: int, after: int) -> nn.Module:
            return _Stage(before, after, residual, ratio if se else None)

        self.encoder = nn.ModuleList(stage(i, o) for i, o in zip((inputs, *widths), widths, strict=False))
        if residual:
            self.up = nn.ModuleList(nn.ConvTranspose2d(wide, wide, 2, 2) for _, wide in rising)
            self.decoder = nn.ModuleList(stage(wide + narrow, narrow) for narrow, wide in rising)
        else:
            self.up = nn.ModuleList(
                nn.Sequential(OrderedDict(size=_doubled(), convolution=nn.Conv2d(wide, narrow, 3, padding=1)))
                for narrow, wide in rising
            )
            self.decoder = nn.ModuleList(stage(2 * narrow, narrow) for narrow, _ in rising)
        self.head = nn.Conv2d(widths[0], outputs - edge, 1)
        self.edge: nn.Module | None = None
        if edge:
            self.edge = nn.Sequential(
                nn.Identity() if residual else _doubled(),
                nn.Conv2d(widths[0] if residual else widths[1], widths[0], 3, padding=1),
                nn.BatchNorm2d(widths[0]),
                nn.ReLU(inplace=True),
                nn.Conv2d(widths[0], 1, 1),
            )
        self.embedding = nn.Embedding(organs, embedding) if film else None
        self.film: nn.ModuleList | None = None
        if film:
            self.film = nn.ModuleList(_Film(embedding, width, scale_bias) for width in (*widths, *widths[-2::-1]))

    def forward(self, x_BCHW: Tensor, organ: Tensor | None = None) -> Tensor:
        """`organ` is (B,) int64, an index into the embedding's rows or -1 for unknown, which none means as well."""
        code = self._code(x_BCHW.new_full((x_BCHW.shape[0],), UNKNOWN, dtype=torch.int64) if organ is None else organ)
        x, skips, coarse = x_BCHW, [], x_BCHW
        for level, block in enumerate(self.encoder):
            x = self._conditioned(block(x if level == 0 else F.max_pool2d(x, 2)), level, code)
            skips.append(x)
        for level, (up, block, skip) in enumerate(zip(self.up, self.decoder, skips[-2::-1], strict=True)):
            coarse = x
            x = self._conditioned(block(torch.cat([skip, up(x)], dim=1)), len(skips) + level, code)
        logits: Tensor = self.head(x)
        if self.edge is None:
            return logits
        finest = x if isinstance(self.up[0], nn.ConvTranspose2d) else coarse
        return torch.cat([logits, self.edge(finest)], dim=1)

    def _code(self, organ_B: Tensor) -> Tensor | None:
        if self.embedding is None:
            return None
        if self.training and self.organ_dropout:
            unnamed_B = torch.rand(organ_B.shape, device=organ_B.device) < self.organ_dropout
            organ_B = torch.where(unnamed_B, UNKNOWN, organ_B)
        known = self.embedding.weight
        table = torch.cat([known, known.mean(0, keepdim=True)])
        return F.embedding(torch.where(organ_B < 0, known.shape[0], organ_B), table)

    def _conditioned(self, x_BCHW: Tensor, stage: int, code: Tensor | None) -> Tensor:
        if self.film is None:
            return x_BCHW
        return self.film[stage](x_BCHW, code)  # type: ignore[no-any-return]


class _Stage(nn.Module):
    """Two 3×3 convolutions with batch norm, squeeze-excitation after them, and a 1×1 shortcut where `residual`."""

    def __init__(self, inputs: int, outputs: int, residual: bool, ratio: int | None) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))
        self.excitation = Excitation(outputs, ratio, fewest=_FEWEST) if ratio is not None else nn.Identity()
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if residual else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x_BCHW), inplace=True))
        if self.shortcut is None:
            return self.excitation(F.relu(y, inplace=True))  # type: ignore[no-any-return]
        return F.relu(self.excitation(y) + self.shortcut(x_BCHW), inplace=True)


class _Film(nn.Module):
    """γ ⊙ x + β with γ = σ(W e + b) and β = W' e + b' of an embedding e (B, d).

    W, W' and b' start at zero: a random start would give each organ a random scale and shift of every channel, which
    training has to undo first (docs/systems/clin_seg_net.md).
    """

    def __init__(self, embedding: int, channels: int, scale_bias: float) -> None:
        super().__init__()
        self.scale = nn.Linear(embedding, channels)
        self.shift = nn.Linear(embedding, channels)
        for start in (self.scale.weight, self.shift.weight, self.shift.bias):
            nn.init.zeros_(start)
        nn.init.constant_(self.scale.bias, scale_bias)

    def forward(self, x_BCHW: Tensor, code_BD: Tensor) -> Tensor:
        scale_BC: Tensor = self.scale(code_BD).sigmoid()
        shift_BC: Tensor = self.shift(code_BD)
        return scale_BC[:, :, None, None] * x_BCHW + shift_BC[:, :, None, None]


def _doubled() -> nn.Module:
    return nn.Upsample(scale_factor=2.0, mode="bilinear")


def _check(
    outputs: int, widths: Sequence[int], edge: bool, counts: dict[str, int], unknown: str, design: str
) -> None:
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"seu_net: widths {list(widths)}: want two stages of the encoder or more, each 1 or wider")
    if outputs < 1 + edge:
        raise ValueError(
            f"seu_net: {outputs} output with the edge branch: it needs 2 or more, the last is the edge "
            "(representation foreground_edge), or edge: false"
        )
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"seu_net: {name} is {value}, must be at least 1")
    if unknown != "mean":
        raise ValueError(f"seu_net: unknown is '{unknown}'; the only rule is 'mean'")
    if design not in get_args(Design):
        raise ValueError(f"seu_net: design '{design}' is unknown; use {' or '.join(get_args(Design))}")


def _check_film(scale_bias: float, organ_dropout: float) -> None:
    if not math.isfinite(scale_bias):
        raise ValueError(f"seu_net: scale_bias is {scale_bias}, must be a finite number")
    if not 0 <= organ_dropout <= 1:
        raise ValueError(f"seu_net: organ_dropout is {organ_dropout}, must be a share from 0 to 1")
