"""The image encoder of Segment Anything (Kirillov et al. 2023), frozen, through transformers (extra `sam`).

Weights are never fetched here: a name of the Hugging Face hub is looked for in the local cache of downloads, one that
ends in .pth is a checkpoint of SAM's authors, anything else a folder. What is missing is said with how to get it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.errors import HemalumError
from hemalum.models.card import Control
from hemalum.models.sam_checkpoint import is_checkpoint, read_checkpoint, require_checkpoint

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

    The image is resized to the encoder's own input, `side` px. `digest` is a sha256 over configuration and weights,
    and `zeroed`, with which every embedding is 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vision: nn.Module, config: Any, name: str, zeroed: bool = False) -> None:
        super().__init__()
        self.vision = vision.eval().requires_grad_(False)
        self.name = name
        self.zeroed = zeroed
        self.side = int(config.image_size)
        self.tokens = self.side // int(config.patch_size)
        self.channels = int(config.output_channels)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.digest = _digest(vision, config, zeroed)

    def train(self, mode: bool = True) -> "SamEncoder":
        """It stays in eval mode."""
        return super().train(False)

    def forward(self, images_B3NN: Tensor) -> Tensor:
        if self.zeroed:
            nothing = 0 * images_B3NN[:, :1, :1, :1]
            return nothing.expand(-1, self.channels, self.tokens, self.tokens)
        embedding: Tensor = self.vision(self.prepare(images_B3NN)).last_hidden_state
        return embedding

    def prepare(self, images_B3NN: Tensor) -> Tensor:
        """What the encoder sees of images: (B, 3, side, side), resized, less the mean, over the deviation."""
        return (_resize(images_B3NN, self.side) - self.mean) / self.std


def load_sam(encoder: Path | str, control: Control | None = None) -> SamEncoder:
    """Load a frozen encoder: its name on the hub, the folder that `save_pretrained` wrote, or a .pth of its authors.

    With `control` "random" its weights are drawn anew, the same at each call: an encoder of this build that has seen
    no image. With "zeroed" its embedding is 0. "shuffled" changes nothing here: it is which image is embedded.
    Raises HemalumError, saying how to get what is missing: the extra, the weights, or another kind of model.
    """
    name = str(encoder)
    _require_transformers(name)
    vision = _from_checkpoint(name) if is_checkpoint(name) else _from_folder(name)
    if control == "random":
        _draw_anew(vision.vision_encoder)
    return SamEncoder(vision.vision_encoder, vision.config, name, zeroed=control == "zeroed")


def _require_transformers(name: str) -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise HemalumError(f"SAM encoder '{name}' needs transformers: pip install \"hemalum[sam]\"") from error


def _from_checkpoint(name: str) -> Any:
    """transformers' model with the weights of a checkpoint."""
    from transformers import SamVisionConfig, SamVisionModel

    build, weights = read_checkpoint(name)
    with torch.device("meta"):  # nothing is drawn that is replaced at once
        vision = SamVisionModel(SamVisionConfig(**build))
    try:
        vision.vision_encoder.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise HemalumError(f"{name} is no SAM checkpoint: {str(error).splitlines()[-1].strip()}") from error
    return vision


def _from_folder(name: str) -> Any:
    """transformers' model by its name on the hub, or its folder."""
    from transformers import SamVisionModel
    from transformers import logging as chatter

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
    return vision


def _draw_anew(vision: nn.Module) -> None:
    """Random weights, the same each time."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for module in vision.modules():
            draw = getattr(module, "reset_parameters", None)
            if callable(draw):
                draw()
        for name, parameter in vision.named_parameters():
            if "pos" in name.rpartition(".")[2]:  # parameters of modules that draw none themselves
                nn.init.normal_(parameter, std=0.02)


def check_sam(encoder: Path | str) -> None:
    """Raise HemalumError as `load_sam` does where an encoder is not there at all; its weights are not read."""
    name = str(encoder)
    _require_transformers(name)
    from transformers.utils import cached_file

    if is_checkpoint(name):
        require_checkpoint(name)
        return
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
    """Bilinear; where images become smaller, over all pixels that fall into one, as SAM's own preparation is."""
    size = int(images_B3NN.shape[2])
    if size == side:
        return images_B3NN
    if size < side:
        return F.interpolate(images_B3NN, size=(side, side), mode="bilinear")
    # as a product of matrices, which every engine knows
    weights = torch.from_numpy(_shrinking(size, side)).to(images_B3NN)
    return weights @ images_B3NN @ weights.T


def _shrinking(size: int, side: int) -> NDArray[np.float32]:
    """The share (side, size) of each of `size` pixels in each of `side`: a triangle two of the larger ones wide."""
    ratio = size / side
    centers = (np.arange(side) + 0.5) * ratio
    weights = np.maximum(0, 1 - np.abs(np.arange(size) + 0.5 - centers[:, None]) / ratio)
    normalized: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return normalized


def _digest(vision: nn.Module, config: Any, zeroed: bool) -> str:
    decisive = {key: getattr(config, key) for key in _DECISIVE}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=list).encode())
    for name, value in sorted(vision.state_dict().items()):
        array = np.ascontiguousarray(value.detach().cpu().float().numpy())
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.data)
    if zeroed:
        digest.update(b"zeroed")
    return digest.hexdigest()
