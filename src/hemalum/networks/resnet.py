"""ResNet (He et al. 2016), dilated: the encoder of the DeepLab networks, features at four scales."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import conv_norm, conv_norm_relu

BACKBONES: dict[str, tuple[int, int, int, int]] = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
OUTPUT_STRIDES = (8, 16, 32)


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions with a shortcut; the 3×3 one strides, as in every set of published weights."""

    def __init__(self, inputs: int, outputs: int, reduction: int, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        inner = outputs // reduction
        self.first = conv_norm(inputs, inner, 1)
        self.second = conv_norm(inner, inner, 3, stride, dilation)
        self.third = conv_norm(inner, outputs, 1)
        self.shortcut = conv_norm(inputs, outputs, 1, stride) if project else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = F.relu(self.second(F.relu(self.first(x_BCHW))))
        return F.relu(self.third(inner) + self.shortcut(x_BCHW))


class ResNet(nn.Module):
    """(B, inputs, H, W) → four maps with `widths` channels at 1/4, 1/8, 1/16 and 1/32 of the size.

    `output_stride` 16 or 8 keeps the last one or two at that resolution and dilates their 3×3 convolutions instead
    (Chen et al. 2017); the first block of a stage keeps the dilation before it. `backbone` names the number of
    blocks; `layers` and `widths` say others, for a narrow form.
    Raises ValueError for a backbone or output stride that is not there.
    """

    def __init__(
        self,
        inputs: int = 3,
        backbone: str = "resnet50",
        output_stride: int = 16,
        layers: Sequence[int] | None = None,
        widths: Sequence[int] = (256, 512, 1024, 2048),
        reduction: int = 4,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"backbone '{backbone}': there are {', '.join(BACKBONES)}")
        if output_stride not in OUTPUT_STRIDES:
            allowed = ", ".join(map(str, OUTPUT_STRIDES))
            raise ValueError(f"output_stride {output_stride}: it can be {allowed}")
        layers = BACKBONES[backbone] if layers is None else layers
        if len(layers) != 4 or len(widths) != 4 or min(layers) < 1:
            raise ValueError(f"layers {list(layers)}, widths {list(widths)}: a ResNet has four stages")
        if any(width % reduction for width in widths):
            raise ValueError(f"widths {list(widths)}: each must be a multiple of reduction, {reduction}")
        self.widths, self.output_stride = tuple(widths), output_stride
        stem = widths[0] // reduction
        self.stem = conv_norm_relu(inputs, stem, 7, 2)
        stages, before, dilation = [], stem, 1
        for number, (count, width) in enumerate(zip(layers, widths, strict=True)):
            stride = 1 if number == 0 else 2
            first = dilation
            if stride == 2 and 2 ** (number + 2) > output_stride:
                stride, dilation = 1, 2 * dilation
            project = number > 0 or before != width
            blocks = [Bottleneck(before, width, reduction, stride, first, project)]
            blocks += [Bottleneck(width, width, reduction, 1, dilation, False) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
            before = width
        self.stages = nn.ModuleList(stages)
        for module in self.modules():  # drawn for ReLU (He et al. 2015)
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.stem(x_BCHW), 3, 2, 1)
        scales = []
        for stage in self.stages:
            x = stage(x)
            scales.append(x)
        return scales


def load_pretrained(network: ResNet, source: str) -> str:
    """Take the weights of a ResNet that transformers loads from `source`, a name on its hub or a folder.

    Nothing is downloaded: a name is looked for in the local cache of downloads. Gives a sha256 over the weights. They
    were trained on ImageNet's colors; batch norm follows within some hundred steps.
    Raises ValueError when transformers or the weights are missing, or they are those of another ResNet.
    """
    try:
        from transformers import ResNetModel
    except ImportError:
        raise ValueError(
            'pretrained weights come through transformers, which is not installed: pip install "hemalum[sam]"'
        ) from None
    try:
        pretrained: Any = ResNetModel.from_pretrained(source, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        if source.count("/") == 1 and not source.startswith((".", "/", "~")):
            raise ValueError(
                f"the pretrained weights '{source}' are not on this machine, and a training downloads nothing: "
                f"huggingface-cli download {source} (or: hf download), or give the path of a folder with them"
            ) from error
        raise ValueError(
            f"no ResNet to load from '{source}': give a folder that transformers saved, with model.safetensors "
            f"({' '.join(str(error).split())[:120]})"
        ) from error
    if pretrained.config.layer_type != "bottleneck" or pretrained.config.downsample_in_bottleneck:
        raise ValueError(f"'{source}' is a ResNet of another build: want bottlenecks whose 3×3 convolution strides")
    tensors = {_rename(name): value for name, value in pretrained.state_dict().items()}
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"'{source}' does not fit the network's layers, widths or inputs: {reason}") from error
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy()).data)
    return digest.hexdigest()


def _rename(name: str) -> str:
    """The name here of what transformers' ResNetModel calls `name`."""
    part = {"convolution": "0", "normalization": "1"}
    words = name.split(".")
    if words[0] == "embedder":
        return f"stem.{part[words[2]]}.{words[3]}"
    stage, block, path = words[2], words[4], words[5]
    if path == "shortcut":
        return f"stages.{stage}.{block}.shortcut.{part[words[6]]}.{words[7]}"
    layer = ("first", "second", "third")[int(words[6])]
    return f"stages.{stage}.{block}.{layer}.{part[words[7]]}.{words[8]}"
