"""The image encoder of Segment Anything (Kirillov et al. 2023), frozen, through transformers (extra `sam`).

Weights are never fetched here: a name of the Hugging Face hub is looked for in the local cache of downloads, anything
else is a folder. What is missing is said with the command that gets it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.errors import HemalumError

EXAMPLES = ("facebook/sam-vit-base", "facebook/sam-vit-large", "facebook/sam-vit-huge")

# of ImageNet, as SAM was trained with
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# what of the configuration decides the result; the rest changes with versions of transformers
_DECISIVE = (
    "hidden_size", "output_channels", "num_hidden_layers", "num_attention_heads", "num_channels", "image_size",
    "patch_size", "hidden_act", "layer_norm_eps", "qkv_bias", "use_abs_pos", "use_rel_pos", "window_size",
    "global_attn_indexes", "mlp_dim",
)  # fmt: skip


class SamEncoder(nn.Module):
    """(B, 3, n, n) RGB in [0, 1] → embedding (B, `channels`, `tokens`, `tokens`) float32; n may be any size.

    The image is resized to the encoder's own input, `side` px. `digest` is a sha256 over configuration and weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vision: nn.Module, config: Any, name: str) -> None:
        super().__init__()
        self.vision = vision.eval().requires_grad_(False)
        self.name = name
        self.side = int(config.image_size)
        self.tokens = self.side // int(config.patch_size)
        self.channels = int(config.output_channels)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.digest = _digest(vision, config)

    def train(self, mode: bool = True) -> "SamEncoder":
        """It stays in eval mode."""
        return super().train(False)

    def forward(self, images_B3NN: Tensor) -> Tensor:
        x = _resize(images_B3NN, self.side)
        embedding: Tensor = self.vision((x - self.mean) / self.std).last_hidden_state
        return embedding


def load_sam(encoder: Path | str) -> SamEncoder:
    """Load a frozen encoder by its name on the hub or the folder that `save_pretrained` wrote.

    Raises HemalumError, saying how to get what is missing: the extra, the weights, or another kind of model.
    """
    name = str(encoder)
    try:
        from transformers import SamVisionModel
        from transformers import logging as chatter
    except ImportError as error:
        raise HemalumError(f"SAM encoder '{name}' needs transformers: pip install \"hemalum[sam]\"") from error
    level = chatter.get_verbosity()
    chatter.set_verbosity_error()  # the rest of SAM, which is not loaded, is no news
    chatter.disable_progress_bar()
    try:
        vision, report = SamVisionModel.from_pretrained(
            name, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # OSError, ValueError, safetensors' own and more, by what is wrong with the files
        raise HemalumError(_how_to_get(name, error)) from error
    finally:
        chatter.set_verbosity(level)
        chatter.enable_progress_bar()
    lacking = [*report["missing_keys"], *report["mismatched_keys"]]
    if lacking:
        raise HemalumError(f"{name} is no SAM image encoder: its weights lack {lacking[0]}")
    return SamEncoder(vision.vision_encoder, vision.config, name)


def check_sam(encoder: Path | str) -> None:
    """Raise HemalumError as `load_sam` does where an encoder is not there at all; its weights are not read."""
    name = str(encoder)
    try:
        from transformers.utils import cached_file
    except ImportError as error:
        raise HemalumError(f"SAM encoder '{name}' needs transformers: pip install \"hemalum[sam]\"") from error
    for file in ("config.json", "model.safetensors"):
        try:
            cached_file(name, file, local_files_only=True)
        except OSError as error:
            raise HemalumError(_how_to_get(name, error)) from error


def _how_to_get(name: str, error: Exception) -> str:
    if Path(name).is_dir():
        return f"{name} holds no SAM encoder that can be loaded ({' '.join(str(error).split())[:160]})"
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return (
            f"the weights of SAM encoder '{name}' are not on this machine: huggingface-cli download {name} "
            "(or: hf download), or give the path of a folder with them"
        )
    return f"no SAM encoder at '{name}': give a folder, or a name such as {', '.join(EXAMPLES)}"


def _resize(images_B3NN: Tensor, side: int) -> Tensor:
    size = int(images_B3NN.shape[2])
    if size == side:
        return images_B3NN
    if size % side == 0:  # bilinear sampling would skip pixels
        return F.avg_pool2d(images_B3NN, size // side)
    return F.interpolate(images_B3NN, size=(side, side), mode="bilinear")


def _digest(vision: nn.Module, config: Any) -> str:
    decisive = {key: getattr(config, key) for key in _DECISIVE}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=list).encode())
    for name, value in sorted(vision.state_dict().items()):
        array = np.ascontiguousarray(value.detach().cpu().float().numpy())
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
