"""The image encoder out of a checkpoint as Segment Anything's authors publish it, such as sam_vit_b_01ec64.pth.

The file is a pickle, of which tensors alone are read. It does not say how the encoder is built; that follows from the
shapes of its weights.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hemalum.errors import HemalumError

SUFFIXES = (".pth", ".pt")
ADDRESS = "https://github.com/facebookresearch/segment-anything#model-checkpoints"

_PREFIX = "image_encoder."
_LARGEST = {"hidden_size": 4096, "num_hidden_layers": 128, "image_size": 8192}  # ViT-H: 1280, 32, 1024
_WINDOW = 14  # of an encoder whose every block attends to the whole image, where it decides nothing
# the names of the authors, and of transformers
_NAMES = {
    r"patch_embed\.proj\.": "patch_embed.projection.",
    r"blocks\.": "layers.",
    r"\.norm([12])\.": r".layer_norm\1.",
    r"neck\.0\.": "neck.conv1.",
    r"neck\.1\.": "neck.layer_norm1.",
    r"neck\.2\.": "neck.conv2.",
    r"neck\.3\.": "neck.layer_norm2.",
}


def is_checkpoint(encoder: Path | str) -> bool:
    """Whether an encoder is named by a file of that kind."""
    return str(encoder).endswith(SUFFIXES)


def require_checkpoint(path: Path | str) -> None:
    """Raise HemalumError, which says where to get one, unless there is such a file."""
    if not Path(path).is_file():
        raise HemalumError(f"no SAM checkpoint at '{path}': get one from {ADDRESS}")


def read_checkpoint(path: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The encoder's build, as arguments of transformers' SamVisionConfig, and its weights by transformers' names.

    Weights are float32 on the CPU. Raises HemalumError for a file that is not there, holds anything besides tensors,
    or has another network.
    """
    require_checkpoint(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # UnpicklingError, RuntimeError, EOFError and more, by what is wrong with the file
        reason = " ".join(str(error).split())[:120]
        raise HemalumError(
            f"{path} is no checkpoint of tensors alone, and nothing else is read ({reason})"
        ) from error
    weights = {
        name.removeprefix(_PREFIX): value
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(name, str) and name.startswith(_PREFIX) and isinstance(value, Tensor)
    }
    for name, value in weights.items():
        if value.numel() * value.element_size() > Path(path).stat().st_size:  # one number under many indices
            raise HemalumError(f"{path} is no SAM checkpoint: its {_PREFIX}{name} is larger than the file")
    try:
        build = _find_build(weights)
    except KeyError as error:
        raise HemalumError(f"{path} is no SAM checkpoint: it has no {_PREFIX}{error.args[0]}") from error
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise HemalumError(f"{path} is no SAM checkpoint: its weights have other shapes") from error
    for name, largest in _LARGEST.items():
        if build[name] > largest:
            raise HemalumError(f"{path} is no SAM checkpoint: its {name} is {build[name]}, want {largest} at most")
    return build, {_rename(name): value.float().clone() for name, value in weights.items()}


def _find_build(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    projection, positions = weights["patch_embed.proj.weight"], weights["pos_embed"]
    hidden, colors, patch, _ = projection.shape
    tokens = int(positions.shape[1])
    layers = 1 + max((int(name.split(".")[1]) for name in weights if name.startswith("blocks.")), default=-1)
    reaches = [int(weights[f"blocks.{layer}.attn.rel_pos_h"].shape[0] + 1) // 2 for layer in range(layers)]
    windows = {reach for reach in reaches if reach != tokens}
    if len(windows) > 1:
        raise ValueError("windows of several sizes")
    return {
        "hidden_size": int(hidden),
        "num_channels": int(colors),
        "patch_size": int(patch),
        "image_size": tokens * int(patch),
        "num_hidden_layers": layers,
        "num_attention_heads": int(hidden // weights["blocks.0.attn.rel_pos_h"].shape[1]),
        "mlp_dim": int(weights["blocks.0.mlp.lin1.weight"].shape[0]),
        "output_channels": int(weights["neck.0.weight"].shape[0]),
        "window_size": windows.pop() if windows else _WINDOW,
        "global_attn_indexes": [layer for layer, reach in enumerate(reaches) if reach == tokens],
        "qkv_bias": "blocks.0.attn.qkv.bias" in weights,
    }


def _rename(name: str) -> str:
    for published, name_here in _NAMES.items():
        name = re.sub(published, name_here, name)
    return name
