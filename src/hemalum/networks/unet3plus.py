"""U-Net3+ (Huang et al. 2020): every decoder level sees every scale of the encoder and the coarser decoder levels."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.contract import Network, Outputs, check_choice

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "leaky_relu": partial(nn.LeakyReLU, 0.01, inplace=True),
    "swish": partial(nn.SiLU, inplace=True),
    "glu": partial(nn.GLU, dim=1),
}
DOWN = ("max", "max_blur")
_ABSENT = -10.0  # logit of a map that the classification-guided module empties: finite in half precision


class UNet3Plus(Network):
    """(B, inputs, H, W) → (B, outputs, H, W) logits; H and W multiples of `stride`.

    `widths` are the channels of the encoder's levels, the finest first. Each decoder level brings every scale to
    `skip` channels (None: the first width) and joins them. `activation` is that of the encoder: with "glu" a
    convolution gives twice the channels and one half gates the other (Dauphin et al. 2017). `down` "max_blur" blurs
    after pooling (Zhang 2019). `deep_supervision` gives `aux_logits` of the coarser levels while training. `cgm`, the
    classification-guided module, empties the maps of images in which it sees no nucleus; its two logits (absent,
    present) per image are extras["presence"] while training.
    """

    late_modules: tuple[str, ...] = ("decoder", "head")

    def __init__(
        self,
        outputs: int = 1,
        inputs: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        skip: int | None = None,
        activation: str = "relu",
        down: str = "max",
        deep_supervision: bool = False,
        cgm: bool = False,
        deepest: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("down", down, DOWN)
        if len(widths) < 2:
            raise ValueError(f"widths {list(widths)}: U-Net3+ has at least two levels")
        self.stride = 2 ** (len(widths) - 1)
        self.global_context = cgm
        self.down = Down(blurred=down == "max_blur")
        self.encoder = nn.ModuleList(
            nn.Sequential(convolve(before, after, activation), convolve(after, after, activation))
            for before, after in pairwise((inputs, *widths))
        )
        skip = widths[0] if skip is None else skip
        coarsest = widths[-1] if deepest is None else deepest
        self.decoder = nn.ModuleList(
            Level(level, widths[:-1], coarsest, skip) for level in reversed(range(len(widths) - 1))
        )
        joined = skip * len(widths)
        self.head = nn.Conv2d(joined, outputs, 3, padding=1)
        self.aux_heads = nn.ModuleList()
        if deep_supervision:
            channels = [*(joined for _ in range(len(widths) - 2)), coarsest]
            self.aux_heads.extend(nn.Conv2d(wide, outputs, 3, padding=1) for wide in channels)
        self.presence: nn.Module | None = None
        if cgm:
            self.presence = nn.Sequential(
                nn.Dropout(0.5), nn.Conv2d(coarsest, 2, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten()
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x_BCHW: Tensor) -> Tensor | Outputs:
        return self.decode(self.encode(x_BCHW))

    def encode(self, x_BCHW: Tensor) -> list[Tensor]:
        """The encoder's levels, the finest first."""
        x, levels = x_BCHW, []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else self.down(x))
            levels.append(x)
        return levels

    def decode(self, levels: list[Tensor]) -> Tensor | Outputs:
        """From the encoder's levels to logits; in training with `aux_logits` and extras, where there are any."""
        decoded = [levels[-1]]  # the coarsest first
        for block in self.decoder:
            decoded.append(block(levels[:-1], decoded))
        present = None if self.presence is None else self.presence(levels[-1])
        logits = _where_present(self.head(decoded[-1]), present)
        if not self.training or (not self.aux_heads and present is None):
            return logits
        size = logits.shape[2:]
        aux_logits = tuple(
            _where_present(F.interpolate(head(x), size=size, mode="bilinear"), present)
            for head, x in zip(self.aux_heads, decoded[-2::-1], strict=False)
        )
        return Outputs(logits, aux_logits, {} if present is None else {"presence": present})


class Down(nn.Module):
    """Half the size: 2×2 max-pooling, then with `blurred` a 3×3 binomial blur of each channel (zeros around)."""

    binomial: Tensor

    def __init__(self, blurred: bool) -> None:
        super().__init__()
        self.blurred = blurred
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("binomial", torch.outer(row, row)[None, None], persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = F.max_pool2d(x_BCHW, 2)
        if not self.blurred:
            return x
        channels = x.shape[1]
        return F.conv2d(x, self.binomial.to(x.dtype).expand(channels, 1, 3, 3), padding=1, groups=channels)


class Level(nn.Module):
    """A decoder level: the encoder's finer levels pooled, its own, and the coarser decoded ones enlarged, joined.

    `level` counts from the finest, 0; `widths` are the encoder's without its coarsest, which has `coarsest`.
    """

    def __init__(self, level: int, widths: Sequence[int], coarsest: int, skip: int) -> None:
        super().__init__()
        self.level = level
        joined = skip * (len(widths) + 1)
        self.from_encoder = nn.ModuleList(convolve(width, skip) for width in widths[: level + 1])
        decoded = [coarsest, *(joined for _ in range(len(widths) - 1 - level))]
        self.from_decoder = nn.ModuleList(convolve(width, skip) for width in decoded)
        self.join = convolve(joined, joined)

    def forward(self, levels: list[Tensor], decoded: list[Tensor]) -> Tensor:
        """`levels` from the finest, `decoded` from the coarsest on; gives the next decoded one."""
        parts = []
        for level, block in enumerate(self.from_encoder):
            ratio = 2 ** (self.level - level)
            parts.append(block(levels[level] if ratio == 1 else F.max_pool2d(levels[level], ratio)))
        for step, block in enumerate(self.from_decoder):
            ratio = 2 ** (len(levels) - step - self.level)
            parts.append(block(F.interpolate(decoded[step], scale_factor=float(ratio), mode="bilinear")))
        return self.join(torch.cat(parts, dim=1))  # type: ignore[no-any-return]


def convolve(inputs: int, outputs: int, activation: str = "relu") -> nn.Sequential:
    """3×3 convolution, batch norm, activation.

    The bias does nothing before batch norm; it is there because the published parameter counts have it.
    """
    wide = 2 * outputs if activation == "glu" else outputs
    return nn.Sequential(nn.Conv2d(inputs, wide, 3, padding=1), nn.BatchNorm2d(wide), ACTIVATIONS[activation]())


def _where_present(logits_BCHW: Tensor, presence_B2: Tensor | None) -> Tensor:
    """The logits of images in which a nucleus was seen; elsewhere those of nothing at all.

    The paper multiplies maps by 0 or 1. Done to logits, as its code does, that would make an empty image's
    probability one half everywhere.
    """
    if presence_B2 is None:
        return logits_BCHW
    present = (presence_B2[:, 1] >= presence_B2[:, 0])[:, None, None, None]
    return torch.where(present, logits_BCHW, torch.full_like(logits_BCHW, _ABSENT))
