"""Whole networks against a forward pass written from their papers: which features go where, term by term.

Every weight and moment is drawn anew, so that nothing is hidden behind a zero or a one. `w` are the weights by name.
U-Net3+, Micro-Net, MedT and the DeepLabs: `test_whole_baselines.py`.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builders.forward_passes import Weights, agree, batch_norm, conv, double, drawn, layer_norm, linear, pool_max
from hemalum.models.network import build_network

DDU_NET = {"widths": [3, 5], "bottom": [6, 7], "dropout": [0.1, 0.2, 0.3]}
AWGUNET = {"width": 6, "growth": 4, "blocks": [2, 1, 1], "decoder": [8, 6, 4, 2]}
TRANSUNET = {
    "width": 8, "blocks": [2, 1, 1], "hidden": 12, "depth": 2, "heads": 3, "mlp": 20, "decoder": [8, 6, 5, 4],
    "grid": 2,
}  # fmt: skip
SWIN_UNET = {"width": 4, "depths": [2, 2, 1], "heads": [1, 2, 2], "window": 2}


def ddu_net(w: Weights, x: Tensor) -> Tensor:
    """Mahbod et al. 2022: one encoder, two decoders of the same form that see the same skips."""

    def pair(name: str, x: Tensor) -> Tensor:
        return conv(w, f"{name}.3", conv(w, f"{name}.0", x).relu()).relu()

    fine = pair("encoder.0", x)
    coarse = pair("encoder.1", pool_max(fine))
    deep = pair("bottom", pool_max(coarse))
    maps = []
    for decoder in ("segmentation", "distance"):
        up = pair(f"{decoder}.blocks.0", torch.cat([double(w, f"{decoder}.up.0", deep), coarse], 1))
        up = pair(f"{decoder}.blocks.1", torch.cat([double(w, f"{decoder}.up.1", up), fine], 1))
        maps.append(conv(w, f"{decoder}.head", up))
    return torch.cat(maps, 1)


def test_ddu_net() -> None:
    network = drawn("ddu_net", DDU_NET)
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    agree(network, x, ddu_net(network.state_dict(), x))


def test_ddu_net_drops_activations_between_the_convolutions_of_each_level() -> None:
    network = build_network("ddu_net", 2, DDU_NET)
    dropped = {name: module.p for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
    assert dropped == {"encoder.0.2": 0.1, "encoder.1.2": 0.2, "bottom.2": 0.3} | {
        f"{decoder}.blocks.{level}.2": rate
        for decoder in ("segmentation", "distance")
        for level, rate in enumerate((0.2, 0.1))
    }


def enlarged(x: Tensor) -> Tensor:
    """Twice the size, by a Gaussian and by Lanczos' filter about pixel centers, edges going on; their mean."""

    def along_rows(x: Tensor, kernel: Any) -> Tensor:
        length = x.shape[2]
        rows = []
        for fine in range(2 * length):
            center = (fine + 0.5) / 2 - 0.5
            coarse = fine // 2
            taps = [
                (kernel(step - (center - coarse)), min(max(coarse + step, 0), length - 1)) for step in range(-5, 6)
            ]
            total = sum(weight for weight, _ in taps)
            rows.append(sum(weight / total * x[:, :, at] for weight, at in taps))
        return torch.stack(rows, 2)

    def gaussian(x: float) -> float:
        return math.exp(-(x**2) / (2 * 0.5**2)) if abs(x) < 1.5 else 0.0

    def lanczos(x: float) -> float:
        if x == 0:
            return 1.0
        angle = math.pi * x
        return math.sin(angle) / angle * math.sin(angle / 5) / (angle / 5) if abs(x) < 5 else 0.0

    both = [
        along_rows(along_rows(x, kernel).transpose(2, 3), kernel).transpose(2, 3) for kernel in (gaussian, lanczos)
    ]
    return (both[0] + both[1]) / 2


def awgunet(w: Weights, x: Tensor, blocks: list[int]) -> Tensor:
    """Roy et al. 2024: DenseNet to 1/16, wavelet attention on every skip, on the image and at the bottom."""

    def separable(name: str, x: Tensor) -> Tensor:
        return conv(w, f"{name}.mix", x * w[f"{name}.factor"].view(1, -1, 1, 1))

    def attention(name: str, x: Tensor) -> Tensor:
        a, b, c, d = x[:, :, ::2, ::2], x[:, :, ::2, 1::2], x[:, :, 1::2, ::2], x[:, :, 1::2, 1::2]
        bands = torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], 1) / 2
        both = separable(f"{name}.from_bands", double(w, f"{name}.upsample", bands))
        both = both + separable(f"{name}.from_features", x)
        of_pixels = separable(f"{name}.gate", both).sigmoid()
        means = torch.einsum("bchw,c->bc", x, w[f"{name}.weight"])[:, :, None, None] / (x.shape[2] * x.shape[3])
        of_channels = conv(w, f"{name}.channels.2", conv(w, f"{name}.channels.0", means).relu()).sigmoid()
        return x * of_pixels * of_channels

    def instance_norm_relu(name: str, x: Tensor) -> Tensor:
        x = conv(w, f"{name}.0", x)
        centered = x - x.mean((2, 3), keepdim=True)
        x = centered / (centered.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        return (x * w[f"{name}.1.weight"].view(1, -1, 1, 1) + w[f"{name}.1.bias"].view(1, -1, 1, 1)).relu()

    def block(name: str, x: Tensor) -> Tensor:
        sizes = torch.cat([instance_norm_relu(f"{name}.{size}", x) for size in ("wide", "near")], 1)
        both = torch.cat([conv(w, f"{name}.mix", sizes), instance_norm_relu(f"{name}.point", x)], 1)
        return instance_norm_relu(f"{name}.last", both)

    features = batch_norm(w, "root.1", conv(w, "root.0", x, 2)).relu()
    skips = [x, features]
    features = F.max_pool2d(features, 3, 2, 1)
    for level, count in enumerate(blocks):
        if level:  # norm and ReLU are those that close the block before
            features = F.avg_pool2d(conv(w, f"transitions.{level - 1}", features), 2)
        for layer in range(count):
            name = f"stages.{level}.{layer}.body"
            grown = conv(w, f"{name}.2", batch_norm(w, f"{name}.0", features).relu())
            grown = conv(w, f"{name}.5", batch_norm(w, f"{name}.3", grown).relu())
            features = torch.cat([features, grown], 1)
        features = batch_norm(w, f"stages.{level}.{count}", features).relu()
        skips.append(features)
    passed = [attention(f"attention.{index}", skip) for index, skip in enumerate(skips[::-1])]
    up = passed[0]
    for level in range(4):
        smooth = conv(w, f"up.{level}.mix", enlarged(up))
        up = torch.cat([smooth, double(w, f"up.{level}.upsample", up), passed[level + 1]], 1)
        up = block(f"decoder.{level}", up)
    return conv(w, "head", up)


def test_awgunet() -> None:
    network = drawn("awgunet", AWGUNET)
    x = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    # the taps of its filters are held in float32
    agree(network, x, awgunet(network.state_dict(), x, AWGUNET["blocks"]), tolerance=1e-5)


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def transunet(w: Weights, x: Tensor, options: dict[str, Any]) -> Tensor:
    """Chen et al. 2021: ResNet-50 (V2 of "Big Transfer") to 1/16, ViT over its cells, skips at 1/8, 1/4 and 1/2."""

    def standardized(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = w[f"{name}.weight"]
        centered = weight - weight.mean((1, 2, 3), keepdim=True)
        weight = centered / (centered.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)

    def group_norm(name: str, x: Tensor, groups: int, eps: float = 1e-6) -> Tensor:
        grouped = x.reshape(x.shape[0], groups, -1)
        centered = grouped - grouped.mean(2, keepdim=True)
        x = (centered / (centered.square().mean(2, keepdim=True) + eps).sqrt()).reshape(x.shape)
        return x * w[f"{name}.weight"].view(1, -1, 1, 1) + w[f"{name}.bias"].view(1, -1, 1, 1)

    def bottleneck(name: str, x: Tensor, stride: int) -> Tensor:
        body, channels = f"{name}.body", w[f"{name}.body.0.weight"].shape[0]
        y = group_norm(f"{body}.1", standardized(f"{body}.0", x), min(32, channels // 2)).relu()
        y = group_norm(f"{body}.4", standardized(f"{body}.3", y, stride), min(32, channels // 2)).relu()
        y = group_norm(f"{body}.7", standardized(f"{body}.6", y), min(32, 2 * channels))
        if f"{name}.shortcut.0.weight" in w:
            x = standardized(f"{name}.shortcut.0", x, stride)
            x = group_norm(f"{name}.shortcut.1", x, x.shape[1], 1e-5)
        return (x + y).relu()

    def conv_norm_relu(name: str, x: Tensor) -> Tensor:
        return batch_norm(w, f"{name}.1", conv(w, f"{name}.0", x)).relu()

    half = group_norm("backbone.root.1", standardized("backbone.root.0", x, 2), options["width"] // 2).relu()
    features, skips = F.max_pool2d(half, 3, 2, 1), [half]
    for level, count in enumerate(options["blocks"]):
        for index in range(count):
            stride = 2 if level and not index else 1
            features = bottleneck(f"backbone.stages.{level}.{index}", features, stride)
        skips.append(features)
    cells = conv(w, "patches", features)
    height, width = cells.shape[2:]
    positions = F.interpolate(w["positions"], size=(height, width), mode="bilinear", align_corners=False)
    tokens = torch.einsum("bchw->bhwc", cells + positions).flatten(1, 2)
    for number in range(options["depth"]):
        name, heads = f"layers.{number}", options["heads"]
        normed = linear(w, f"{name}.query_key_value", layer_norm(w, f"{name}.norm", tokens, 1e-6))
        query, key, value = (part.unflatten(2, (heads, -1)) for part in normed.chunk(3, 2))
        shares = (torch.einsum("bqhc,bkhc->bhqk", query, key) / math.sqrt(query.shape[-1])).softmax(3)
        seen = torch.einsum("bhqk,bkhc->bqhc", shares, value).flatten(2)
        tokens = tokens + linear(w, f"{name}.output", seen)
        inner = linear(w, f"{name}.mlp.1", layer_norm(w, f"{name}.mlp.0", tokens, 1e-6))
        tokens = tokens + linear(w, f"{name}.mlp.4", gelu(inner))
    tokens = layer_norm(w, "norm", tokens, 1e-6)
    up = conv_norm_relu("bridge", torch.einsum("bhwc->bchw", tokens.unflatten(1, (height, width))))
    for level in range(4):
        up = F.interpolate(up, scale_factor=2, mode="bilinear", align_corners=False)
        if level < 3:
            up = torch.cat([up, skips[2 - level]], 1)
        up = conv_norm_relu(f"decoder.{level}.1", conv_norm_relu(f"decoder.{level}.0", up))
    return conv(w, "head", up)


def test_transunet() -> None:
    network = drawn("transunet", TRANSUNET)
    x = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    agree(network, x, transunet(network.state_dict(), x, TRANSUNET))


def swin_unet(network: nn.Module, w: Weights, x: Tensor, levels: int) -> Tensor:
    """Cao et al. 2021, and its code: what is kept for the way up is what a stage is given, before its blocks.

    The blocks themselves are the network's: `test_baselines.py` has them token by token.
    """

    def expand(name: str, x: Tensor, factor: int) -> Tensor:
        batch, height, width, _ = x.shape
        x = linear(w, f"{name}.widen", x).reshape(batch, height, width, factor, factor, -1)
        fine = torch.empty(batch, factor * height, factor * width, x.shape[-1], dtype=x.dtype)
        for i in range(factor):
            for j in range(factor):
                fine[:, i::factor, j::factor] = x[:, :, :, i, j]
        return layer_norm(w, f"{name}.norm", fine, 1e-5)

    x = F.conv2d(x, w["patches.weight"], w["patches.bias"], 4)
    x = layer_norm(w, "patches_norm", torch.einsum("bchw->bhwc", x), 1e-5)
    kept = []
    for level in range(levels):
        kept.append(x)
        x = network._run(network.encoder[level], x)
        if level < levels - 1:
            four = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)  # down before across
            x = linear(w, f"merges.{level}.reduce", layer_norm(w, f"merges.{level}.norm", four, 1e-5))
    x = layer_norm(w, "bottom_norm", x, 1e-5)
    for step, level in enumerate(range(levels - 2, -1, -1)):
        x = torch.cat([expand(f"expands.{step}", x, 2), kept[level]], -1)
        x = network._run(network.decoder[step], linear(w, f"joins.{step}", x))
    x = expand("last", layer_norm(w, "norm", x, 1e-5), 4)
    return conv(w, "head", torch.einsum("bhwc->bchw", x))


def test_swin_unet() -> None:
    network = drawn("swin_unet", SWIN_UNET)
    x = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    with torch.inference_mode():
        agree(network, x, swin_unet(network, network.state_dict(), x, 3))


def test_swin_unet_shifts_every_second_block_but_at_the_bottom() -> None:
    network = build_network("swin_unet", 1, SWIN_UNET | {"depths": [2, 3, 2]})
    shifts = {
        name: [block.shift for block in blocks] for name in ("encoder", "decoder")
        for blocks in [[block for stage in getattr(network, name) for block in stage]]
    }  # fmt: skip
    assert shifts == {"encoder": [0, 1, 0, 1, 0, 0, 0], "decoder": [0, 1, 0, 0, 1]}


@pytest.mark.parametrize("name", ["swin_unet"])
def test_deeper_blocks_are_left_out_more_often(name: str) -> None:
    """Stochastic depth rises linearly over the blocks on the way down; on the way up it is that of the same level."""
    network = build_network(name, 1, SWIN_UNET | {"depths": [2, 2, 1], "drop_path": 0.4})
    assert [block.drop for stage in network.encoder for block in stage] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert [block.drop for stage in network.decoder for block in stage] == pytest.approx([0.2, 0.3, 0, 0.1])
