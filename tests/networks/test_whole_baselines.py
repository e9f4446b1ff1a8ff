"""Attention U-Net, U-Net3+, Micro-Net, the DeepLabs, MedT and the compact network, each as one forward pass.

The rest: `test_whole_networks.py`. Blocks with equations of their own (gates, the atrous pyramid, axial attention)
are the network's here; other tests have them term by term.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builders.forward_passes import Weights, agree, batch_norm, conv, double, drawn, pool_max
from hemalum.networks.contract import Outputs

NARROW = {"layers": [2, 1, 1, 1], "widths": [8, 12, 16, 24], "reduction": 2, "channels": 6}


def enlarged(x: Tensor, factor: float = 2) -> Tensor:
    """Bilinear, about pixel centers."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def normed(w: Weights, name: str, x: Tensor) -> Tensor:
    """Convolution, batch norm, ReLU."""
    return batch_norm(w, f"{name}.1", conv(w, f"{name}.0", x)).relu()


def random_image(height: int = 32, width: int = 64) -> Tensor:
    return torch.randn(2, 3, height, width, dtype=torch.float64)


def attention_unet(network: nn.Module, w: Weights, x: Tensor, levels: int) -> Tensor:
    """Oktay et al. 2018: each skip passes a gate that sees the decoder's features, enlarged."""

    def twice(name: str, x: Tensor) -> Tensor:
        for layer in (0, 3):
            x = batch_norm(w, f"{name}.{layer + 1}", conv(w, f"{name}.{layer}", x)).relu()
        return x

    skips = []
    for level in range(levels):
        x = twice(f"encoder.{level}", pool_max(x) if level else x)
        skips.append(x)
    for step in range(levels - 1):
        x = double(w, f"up.{step}", x)
        x = twice(f"decoder.{step}", torch.cat([network.gates[step](skips[-2 - step], x), x], 1))
    return conv(w, "head", x)


def test_attention_unet() -> None:
    network = drawn("attention_unet", {"widths": [4, 6, 8]})
    x = random_image(12, 16)
    with torch.inference_mode():
        agree(network, x, attention_unet(network, network.state_dict(), x, 3))


def unet3plus(w: Weights, x: Tensor, levels: int) -> list[Tensor]:
    """Huang et al. 2020: full-scale skips. Gives the logits of every depth, the finest first, at full size."""
    encoded = []
    for level in range(levels):
        x = pool_max(x) if level else x
        x = normed(w, f"encoder.{level}.1", normed(w, f"encoder.{level}.0", x))
        encoded.append(x)
    decoded = {levels - 1: x}
    for step, level in enumerate(range(levels - 2, -1, -1)):
        parts = []
        for source in range(level + 1):  # the encoder's own and finer levels, pooled by the largest
            pooled = encoded[source]
            for _ in range(level - source):
                pooled = pool_max(pooled)
            parts.append(normed(w, f"decoder.{step}.from_encoder.{source}", pooled))
        for position, coarser in enumerate(range(levels - 1, level, -1)):  # decoded levels, the coarsest first
            up = enlarged(decoded[coarser], 2 ** (coarser - level))
            parts.append(normed(w, f"decoder.{step}.from_decoder.{position}", up))
        decoded[level] = normed(w, f"decoder.{step}.join", torch.cat(parts, 1))
    logits = [conv(w, "head", decoded[0])]
    for number, level in enumerate(range(1, levels)):
        logits.append(enlarged(conv(w, f"aux_heads.{number}", decoded[level]), 2**level))
    return logits


def test_unet3plus() -> None:
    network = drawn("unet3plus", {"widths": [4, 6, 8, 10], "skip": 3, "deep_supervision": True})
    x = random_image(16, 24)
    with torch.inference_mode():
        expected = unet3plus(network.state_dict(), x, 4)
        agree(network, x, expected[0])
        network.training = True  # the network alone: its norms stay as they are
        outputs = network(x)
    assert isinstance(outputs, Outputs)
    for result, wanted in zip((outputs.logits, *outputs.aux_logits), expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-9, atol=1e-9)


def micro_net(w: Weights, x: Tensor) -> list[Tensor]:
    """Raza et al. 2019, padded: at every level the image again, smaller. Logits of the head, then of three others."""

    def twice(name: str, x: Tensor, norm: bool = False) -> Tensor:
        x = conv(w, f"{name}.0", x).tanh()
        if norm:
            x = batch_norm(w, f"{name}.2", x)
        return conv(w, f"{name}.{3 if norm else 2}", x).tanh()

    def transposed(name: str, x: Tensor, size: int, stride: int = 1, padding: int = 0) -> Tensor:
        assert w[f"{name}.weight"].shape[-1] == size
        return F.conv_transpose2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride, padding)

    image, skips = x, []
    for level in range(4):
        smaller = F.interpolate(image, scale_factor=0.5 ** (level + 1), mode="bicubic", align_corners=False)
        x = torch.cat(
            [pool_max(twice(f"down.{level}", x, norm=True)), twice(f"bypass.{level}", smaller, norm=True)], 1
        )
        skips.append(x)
    x = twice("bottom", pool_max(x))
    decoded = []
    for step in range(4):
        x = twice(f"up.{step}.block", double(w, f"up.{step}.upsample", x))
        both = [
            transposed(f"up.{step}.main", x, 5, padding=2),
            transposed(f"up.{step}.skip", skips[3 - step], 5, padding=2),
        ]
        x = conv(w, f"up.{step}.join.0", torch.cat(both, 1)).tanh()
        decoded.append(x)
    full = []
    for number in range(3):  # from 1/2, 1/4 and 1/8 of the input's size
        factor = 2 ** (number + 1)
        large = transposed(f"full.{number}.0", decoded[3 - number], factor, factor)
        full.append(conv(w, f"full.{number}.1", large).tanh())
    return [conv(w, "head.1", torch.cat(full, 1)), *(conv(w, f"aux_heads.{k}.1", full[k]) for k in range(3))]


def test_micro_net() -> None:
    network = drawn("micro_net", {"base": 2})
    x = random_image()
    with torch.inference_mode():
        expected = micro_net(network.state_dict(), x)
        agree(network, x, expected[0])
        network.training = True
        for result, wanted in zip(network(x).aux_logits, expected[1:], strict=True):
            torch.testing.assert_close(result, wanted, rtol=1e-9, atol=1e-9)


def resnet(w: Weights, x: Tensor, options: dict[str, Any]) -> list[Tensor]:
    """He et al. 2016 with the last stage dilated to keep 1/16 (Chen et al. 2017); four scales."""

    def conv_norm(name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = w[f"{name}.0.weight"]
        padding = dilation * (weight.shape[-1] // 2)
        return batch_norm(w, f"{name}.1", F.conv2d(x, weight, None, stride, padding, dilation))

    x = F.max_pool2d(conv_norm("stem", x, 2).relu(), 3, 2, 1)
    scales = []
    for stage, count in enumerate(options["layers"]):
        for block in range(count):
            name = f"stages.{stage}.{block}"
            stride = 2 if block == 0 and stage in (1, 2) else 1
            dilation = 2 if block and stage == 3 else 1  # the first block keeps the dilation before it
            y = conv_norm(f"{name}.first", x).relu()
            y = conv_norm(f"{name}.third", conv_norm(f"{name}.second", y, stride, dilation).relu())
            projected = f"{name}.shortcut.0.weight" in w
            x = (y + (conv_norm(f"{name}.shortcut", x, stride) if projected else x)).relu()
        scales.append(x)
    return scales


def encoder_of(w: Weights) -> Weights:
    return {name.removeprefix("encoder."): tensor for name, tensor in w.items() if name.startswith("encoder.")}


def test_deeplabv3() -> None:
    network = drawn("deeplabv3", NARROW)
    x, w = random_image(64, 96), network.state_dict()
    with torch.inference_mode():
        pyramid = network.pyramid(resnet(encoder_of(w), x, NARROW)[3])
        agree(network, x, enlarged(conv(w, "head", normed(w, "decoder", pyramid)), 16))


def test_deeplabv3plus() -> None:
    network = drawn("deeplabv3plus", NARROW | {"low_level": 4, "skips": [1, 3], "layers": [2, 1, 1, 2]})
    x, w = random_image(64, 96), network.state_dict()
    with torch.inference_mode():
        scales = resnet(encoder_of(w), x, {"layers": [2, 1, 1, 2]})
        parts = [
            enlarged(network.pyramid(scales[3]), 4),
            normed(w, "laterals.0", scales[0]),
            enlarged(normed(w, "laterals.1", scales[2]), 4),
        ]
        both = normed(w, "decoder.1", normed(w, "decoder.0", torch.cat(parts, 1)))
        agree(network, x, enlarged(conv(w, "head", both), 4))


def med_t_branch(branch: nn.Module, x: Tensor, blocks: list[int]) -> Tensor:
    """One branch of MedT (Valanarasu et al. 2021); attention along axes is the network's."""
    w = branch.state_dict()
    for number, stride in ((0, 2), (3, 1), (6, 1)):
        weight = w[f"stem.{number}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        x = batch_norm(w, f"stem.{number + 1}", x).relu()
    skips = []
    for level, count in enumerate(blocks):
        for index in range(count):
            name, block = f"levels.{level}.{index}", branch.levels[level][index]
            halve = level > 0 and index == 0
            y = normed(w, f"{name}.narrow", x)
            y = torch.stack([block.columns(image.transpose(1, 2)[None])[0].transpose(1, 2) for image in y])
            y = torch.stack([block.rows(image[None])[0] for image in y])
            if halve:
                y = y.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
            y = batch_norm(w, f"{name}.widen.1", conv(w, f"{name}.widen.0", y.relu()))
            if f"{name}.shortcut.0.weight" in w:
                x = batch_norm(w, f"{name}.shortcut.1", conv(w, f"{name}.shortcut.0", x, 2 if halve else 1))
            x = (x + y).relu()
        skips.append(x)
    levels = len(blocks)
    if levels == 4:
        x = x + enlarged(conv(w, "bottom", x, 2)).relu()
    for step in range(levels):
        x = enlarged(conv(w, f"up.{step}", x)).relu()
        if step < levels - 1:
            x = x + skips[levels - 2 - step]
    return x


def test_both_branches_of_medt() -> None:
    blocks = [1, 2, 1, 1]
    network = drawn("medt", {"width": 8, "stem": 6, "heads": 2, "blocks": blocks})
    with torch.inference_mode():
        for branch, side, levels in ((network.global_branch, 128, blocks[:2]), (network.local_branch, 32, blocks)):
            x = random_image(side, side)
            agree(branch, x, med_t_branch(branch, x, levels))


def test_relative_positions_of_axial_attention_are_those_of_query_less_key() -> None:
    network = drawn("medt", {"width": 8, "stem": 6, "heads": 2, "blocks": [1, 1, 1, 1]})
    attention = network.global_branch.levels[0][0].rows
    length = attention.length
    assert attention.distances.reshape(length, length)[5, 2] == 5 - 2 + length - 1


def compact(w: Weights, x: Tensor, depths: list[int]) -> Tensor:
    """Pixels folded into channels by two, skips added, and unfolded again at the end."""
    batch, _, height, width = x.shape
    x = torch.stack([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 2).flatten(1, 2)
    skips = []
    for level, depth in enumerate(depths):
        x = batch_norm(w, f"encoder.{level}.0.1", conv(w, f"encoder.{level}.0.0", x, 2 if level else 1)).relu()
        for block in range(1, depth + 1):
            name = f"encoder.{level}.{block}"
            y = normed(w, f"{name}.first", x)
            x = (x + batch_norm(w, f"{name}.second.1", conv(w, f"{name}.second.0", y))).relu()
        skips.append(x)
    for step in range(len(depths) - 1):
        x = normed(w, f"lateral.{step}", x).repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = normed(w, f"decoder.{step}", skips[-2 - step] + x)
    folded = conv(w, "head", x).unflatten(1, (-1, 2, 2))
    fine = torch.empty(batch, folded.shape[1], height, width, dtype=x.dtype)
    for i in (0, 1):
        for j in (0, 1):
            fine[:, :, i::2, j::2] = folded[:, :, i, j]
    return fine


def test_compact() -> None:
    network = drawn("compact", {"widths": [4, 6, 8], "depths": [0, 1, 2]})
    x = random_image(16, 24)
    agree(network, x, compact(network.state_dict(), x, [0, 1, 2]))


def test_auxiliary_heads_of_unet_plus_plus_speak_of_the_next_shallower_node_first() -> None:
    network = drawn("unet_plus_plus", {"widths": [3, 4, 5, 6], "deep_supervision": True})
    x, seen = random_image(16, 24), {}
    hooks = [
        column[0].register_forward_hook(lambda _module, _inputs, output, at=j: seen.update({at: output}))
        for j, column in enumerate(network.nested, start=1)
    ]
    with torch.inference_mode():
        network.training = True
        outputs = network(x)
    for hook in hooks:
        hook.remove()
    w = network.state_dict()
    wanted = [conv(w, "head", seen[3]), conv(w, "aux_heads.0", seen[2]), conv(w, "aux_heads.1", seen[1])]
    for result, expected in zip((outputs.logits, *outputs.aux_logits), wanted, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
