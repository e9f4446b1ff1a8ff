"""What a network sees of an image: its colors, its luminance, or its hematoxylin.

One function for training and for a model at work, inside whose graph it stands.
"""

from typing import get_args

import numpy as np
import torch
from torch import Tensor

from hemalum.data.stain.separation import STAINS
from hemalum.models.card import Channels

CHANNELS: tuple[Channels, ...] = get_args(Channels)

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L
FAINTEST = 1 / 255  # a black pixel has a finite optical density: that of the darkest byte above it
STRONGEST = 2.0  # amount of hematoxylin that becomes 1: in H&E at 20x and 40x, 99 % of pixels lie below it

# how much hematoxylin, eosin and DAB make an optical density: the inverse of their three directions
_UNMIXED = np.linalg.inv(STAINS)


def input_channels(channels: Channels) -> int:
    """How many channels a network sees."""
    return 3 if channels == "RGB" else 1


def to_input(images_BCHW: Tensor, channels: Channels) -> Tensor:
    """Images (B, 3, H, W) float in [0, 1] as (B, 3 or 1, H, W) in [0, 1].

    "gray" is the luminance. "hematoxylin" is the amount of that stain beside eosin and DAB, by color deconvolution
    (Ruifrok & Johnston 2001: optical density times the inverse of the three stains' directions), where no stain is 0
    and `STRONGEST` or more is 1: nuclei are bright in it. Made of elementwise operations alone, so it is exact under
    autocast and the same in every exported form.
    """
    if channels == "RGB":
        return images_BCHW
    if channels == "gray":
        return _weighted(images_BCHW, LUMINANCE)
    weights = tuple(float(weight) / STRONGEST for weight in _UNMIXED[:, 0])
    return _weighted(-torch.log(images_BCHW.clamp(min=FAINTEST)), weights).clamp(0, 1)


def _weighted(images_BCHW: Tensor, weights: tuple[float, ...]) -> Tensor:
    red, green, blue = (images_BCHW[:, channel : channel + 1] for channel in range(3))
    return red * weights[0] + green * weights[1] + blue * weights[2]
