"""Losses by the name that a recipe writes."""

from typing import Any

from hemalum.losses.boundary import ALNetLoss, Dice
from hemalum.losses.cross_entropy import BinaryCrossEntropy, BorderCrossEntropy, CrossEntropy
from hemalum.losses.distilled import Distilled
from hemalum.losses.loss import Loss
from hemalum.losses.maps import Maps
from hemalum.losses.tversky import Histo, Tversky
from hemalum.losses.unet3plus import FocalDice, UNet3PlusLoss
from hemalum.settings import build_named

LOSSES: dict[str, type[Loss]] = {
    "maps": Maps,
    "bce": BinaryCrossEntropy,
    "cross_entropy": CrossEntropy,
    "border_bce": BorderCrossEntropy,
    "dice": Dice,
    "tversky": Tversky,
    "histo": Histo,
    "al_net": ALNetLoss,
    "focal_dice": FocalDice,
    "unet3plus": UNet3PlusLoss,
    "distilled": Distilled,
}


def build_loss(spec: Any) -> Loss:
    """Give the loss that a recipe writes: its name, or a mapping of `name` and options.

    Raises HemalumError for an unknown name (the nearest is named) or options that it does not take.
    """
    if isinstance(spec, Loss):
        return spec
    return build_named("loss", spec, LOSSES)
