"""MapModel: a trained network at work, from uint8 pixels to maps, everything between inside one graph."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.errors import HemalumError
from hemalum.models.card import Card
from hemalum.models.input import input_channels, to_input
from hemalum.models.model import UNKNOWN_ORGAN
from hemalum.models.network import build_network, option_defaults
from hemalum.models.sam import SamEncoder, load_sam
from hemalum.networks import Network
from hemalum.targets.representations import Head, find_representation


class MapModel(nn.Module):
    """(N, H, W, 3) uint8 → maps (N, C, H·upsampling, W·upsampling) float32.

    Makes of the colors what the network sees, normalizes, runs the network, enlarges its logits bilinearly and
    applies each head's activation. A network that tells organs apart takes `organ` (N,) int64, the index in the
    card's organs or -1 for unknown; without it, that of the card. With a `sam` encoder it takes the embedding of its
    input.
    """

    scale: Tensor
    shift: Tensor
    organ: Tensor

    def __init__(self, network: Network, card: Card, sam: SamEncoder | None = None) -> None:
        super().__init__()
        self.network, self.sam = network, sam
        self.output_upsampling = card.output_upsampling
        self.heads = find_representation(card.representation, card.classes).heads
        self.channels = card.channels
        count = input_channels(card.channels)
        # (x/255 - mean) / std as one multiply-add; what is made of colors is made of them in [0, 1]
        unit = 255 if card.channels == "RGB" else 1
        std = np.asarray(card.std[:count], np.float32)
        scale, shift = 1 / (unit * std), -np.asarray(card.mean[:count], np.float32) / std
        self.register_buffer("scale", torch.from_numpy(scale.astype(np.float32)).view(1, count, 1, 1))
        self.register_buffer("shift", torch.from_numpy(shift.astype(np.float32)).view(1, count, 1, 1))
        index = UNKNOWN_ORGAN if card.organ is None else card.organs.index(card.organ)
        self.register_buffer("organ", torch.tensor([index]))
        self.has_organs = bool(card.organs)

    def forward(self, images_NHWC: Tensor, organ_N: Tensor | None = None) -> Tensor:
        x = images_NHWC.permute(0, 3, 1, 2).float()
        conditions: dict[str, Tensor] = {}
        if self.sam is not None:
            conditions["embedding"] = self.sam(x / 255)
        if self.channels != "RGB":
            x = to_input(x / 255, self.channels)
        x = x * self.scale + self.shift
        if self.has_organs:
            conditions["organ"] = self.organ.expand(x.shape[0]) if organ_N is None else organ_N
        logits = self.network(x, **conditions)
        if self.output_upsampling > 1:
            logits = F.interpolate(logits, scale_factor=float(self.output_upsampling), mode="bilinear")
        return activate(logits.float(), self.heads)


def activate(logits_BCHW: Tensor, heads: tuple[Head, ...]) -> Tensor:
    """Turn the logits of `heads` (B, logits, H, W) into maps (B, channels, H, W)."""
    maps = []
    for head, part in zip(heads, torch.split(logits_BCHW, [head.logits for head in heads], dim=1), strict=True):
        match head.kind:
            case "softmax":
                maps.append(part.softmax(dim=1)[:, 1:])
            case "sigmoid":
                maps.append(part.sigmoid())
            case "tanh":
                maps.append(part.tanh())
    return torch.cat(maps, dim=1)


def build_map_model(card: Card, tensors: Mapping[str, NDArray[Any]]) -> MapModel:
    """Build the card's network in eval mode, channels last, with the weights `tensors` of a model file.

    Raises HemalumError when representation or network is unknown, the weights do not fit the network, or the card's
    SAM encoder is not there or not the one that the network was trained with.
    """
    logits = find_representation(card.representation, card.classes).logits
    _check_fit(card, logits, tensors)
    network = build_network(card.network.name, logits, card.network.options)
    try:
        network.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in tensors.items()})
    except RuntimeError as error:
        raise HemalumError(
            f"weights do not fit network '{card.network.name}': {str(error).splitlines()[-1]}"
        ) from error
    model = MapModel(network, card, _encoder(card)).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def _check_fit(card: Card, logits: int, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise HemalumError unless network, input, organs and weights fit together; holds no memory for weights."""
    name, options = card.network.name, card.network.options
    chosen = {"inputs": 3, "organs": None} | option_defaults(name) | options
    inputs, organs = input_channels(card.channels), len(card.organs)
    if chosen["inputs"] != inputs:
        raise HemalumError(
            f"model '{card.name}': its network has inputs {chosen['inputs']}, and its card wants {inputs}"
        )
    if isinstance(chosen["organs"], int) and chosen["organs"] < organs:
        raise HemalumError(
            f"model '{card.name}': its network has organs {chosen['organs']}, and its card names {organs}"
        )
    with torch.device("meta"):
        state = build_network(name, logits, options).state_dict()
    for key in sorted(state.keys() | tensors.keys()):
        if key not in state or key not in tensors:
            what = "which it does not have" if key not in state else "which the file lacks"
            raise HemalumError(f"weights do not fit network '{name}': '{key}', {what}")
        # a file has a number alone as one of one element
        if (tuple(state[key].shape) or (1,)) != (tensors[key].shape or (1,)):
            shapes = f"{tuple(tensors[key].shape)}, not {tuple(state[key].shape)}"
            raise HemalumError(f"weights do not fit network '{name}': '{key}' is {shapes}")


def _encoder(card: Card) -> SamEncoder | None:
    if card.sam is None:
        return None
    encoder = load_sam(card.sam.encoder, card.sam.control)
    if encoder.digest != card.sam.digest:
        raise HemalumError(
            f"model '{card.name}' was trained with another SAM encoder than '{card.sam.encoder}' is now "
            f"({card.sam.digest[:12]}, not {encoder.digest[:12]}): give that one back its name, or train again"
        )
    return encoder
