"""Losses by name: classes of settings (`Loss`); the functions of tensors that they are made of stand beside them."""

from typing import Any

from hemalum.losses.boundary import ALNetLoss, Dice
from hemalum.losses.cross_entropy import BinaryCrossEntropy, BorderCrossEntropy
from hemalum.losses.focal_dice import FocalDice
from hemalum.losses.loss import Loss, LossInputs
from hemalum.losses.maps import Maps
from hemalum.losses.semantic import CrossEntropy
from hemalum.losses.tversky import Histo, Tversky
from hemalum.losses.unet3plus import UNet3PlusLoss
from hemalum.settings import build_named

__all__ = ["LOSSES", "Loss", "LossInputs", "build_loss"]

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
}


def build_loss(spec: Any) -> Loss:
    """Give the loss that a recipe writes: its name, or a mapping of `name` and options.

    Raises HemalumError for an unknown name (the nearest is named) or options that it does not take.
    """
    if isinstance(spec, Loss):
        return spec
    return build_named("loss", spec, LOSSES)
