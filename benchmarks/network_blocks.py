"""Blocks with a clever form, each beside the straightforward form of its equations over the same parameters."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.awgunet import Up
from hemalum.networks.medt import PARTS, MedT
from hemalum.networks.swin_unet import Block as SwinBlock
from hemalum.networks.swin_unet import split_windows, window_mask
from hemalum.networks.transunet import Layer

Plain = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Pair:
    """A block, what computes the same plainly from the block's parameters, and an input."""

    name: str
    make: Callable[[], tuple[nn.Module, Plain, Tensor]]


class _Windows(nn.Module):
    """Swin's attention with the mask of its grid."""

    def __init__(self) -> None:
        super().__init__()
        self.block = SwinBlock(96, 3, 7, shifted=True, drop=0.0)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.block.attend(x_BHWC, window_mask(x_BHWC, 7, self.block.shift))


def _windows_plain(module: nn.Module, x: Tensor) -> Tensor:
    """Scores, softmax and product one after the other, window by window in the batch."""
    block = module.block
    (batch, height, width, channels), side, shift = x.shape, block.window, block.shift
    mask = window_mask(x, side, shift)
    windows = split_windows(x.roll((-shift, -shift), (1, 2)), side)
    qkv = block.query_key_value(windows).reshape(len(windows), side**2, 3, block.heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    scores = scores + block.bias[block.bias_index].reshape(side**2, side**2, -1).permute(2, 0, 1)
    scores = scores.reshape(batch, -1, block.heads, side**2, side**2) + mask[:, None]
    out = scores.flatten(0, 1).softmax(-1) @ value
    out = block.output(out.transpose(1, 2).reshape(-1, side**2, channels))
    out = out.reshape(batch, height // side, width // side, side, side, channels).transpose(2, 3)
    return out.reshape(batch, height, width, channels).roll((shift, shift), (1, 2))


def _layer_plain(layer: nn.Module, x: Tensor) -> Tensor:
    """A vision transformer's layer with its table of scores written out."""
    batch, tokens, hidden = x.shape
    qkv = layer.query_key_value(layer.norm(x)).reshape(batch, tokens, 3, layer.heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    shares = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
    x = x + layer.output((shares @ value).transpose(1, 2).reshape(batch, tokens, hidden))
    return x + layer.mlp(x)


def _parts_plain(network: nn.Module, x: Tensor) -> Tensor:
    """MedT's local branch in a loop over the parts."""
    side = network.size // PARTS
    rows = [
        torch.cat(
            [
                network.local_branch(x[:, :, side * i : side * (i + 1), side * j : side * (j + 1)])
                for j in range(PARTS)
            ],
            3,
        )
        for i in range(PARTS)
    ]
    return network.head(F.relu(network.last(network.global_branch(x) + torch.cat(rows, 2))))


def _up_plain(up: nn.Module, x: Tensor) -> Tensor:
    """AWGUNET's enlarging with the 1×1 convolution after the filters, at full size."""
    return torch.cat([up.mix(up.smooth(x)), up.upsample(x)], 1)


BLOCKS = (
    Pair("windowed attention, 56 × 56 tokens", lambda: (_Windows(), _windows_plain, torch.rand(2, 56, 56, 96))),
    Pair(
        "ViT layer, 1024 tokens", lambda: (Layer(768, 12, 3072, 0.0).eval(), _layer_plain, torch.rand(1, 1024, 768))
    ),
    Pair("MedT's parts as one batch", lambda: (MedT(1).eval(), _parts_plain, torch.rand(1, 3, 128, 128))),
    Pair("AWGUNET's enlarging, 256 channels at 64 px", lambda: (Up(256), _up_plain, torch.rand(2, 256, 64, 64))),
)
