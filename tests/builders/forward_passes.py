"""Forward passes written out: networks whose weights are all drawn, and the layers that references are made of.

`w` are a network's weights by name.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.models.network import build_network

Weights = Mapping[str, Tensor]


def drawn(name: str, options: dict[str, Any], outputs: int = 2) -> nn.Module:
    """A network in eval mode, in float64, with every weight drawn so that signals keep their size to the end."""
    torch.manual_seed(3)
    network = build_network(name, outputs, options).double().eval()
    for key, tensor in network.state_dict().items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif key.endswith("positions"):
            tensor.normal_()
        elif tensor.ndim > 1:
            tensor.normal_(0, math.sqrt(2 / tensor[0].numel()))
        elif key.endswith(("weight", "factor")):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.3)
    return network


def agree(network: nn.Module, x: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    assert expected.std() > 0.1
    with torch.inference_mode():
        torch.testing.assert_close(network(x), expected, rtol=tolerance, atol=tolerance)


def conv(w: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """A convolution that keeps the size, but for the stride."""
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w.get(f"{name}.bias"), stride, weight.shape[-1] // 2)


def batch_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    mean, variance, scale, shift = (
        w[f"{name}.{key}"].view(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def double(w: Weights, name: str, x: Tensor) -> Tensor:
    """A transposed convolution of 2 × 2 with stride 2: each pixel becomes four."""
    batch, _, height, width = x.shape
    four = torch.einsum("bihw,ioyx->bohywx", x, w[f"{name}.weight"])
    return four.reshape(batch, -1, 2 * height, 2 * width) + w[f"{name}.bias"].view(1, -1, 1, 1)


def pool_max(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height // 2, 2, width // 2, 2).amax((3, 5))


def layer_norm(w: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    centered = x - x.mean(-1, keepdim=True)
    return (
        centered / (centered.square().mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]
    )


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return torch.einsum("...i,oi->...o", x, w[f"{name}.weight"]) + w.get(f"{name}.bias", 0)
