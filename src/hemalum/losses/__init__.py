"""Losses by name: classes of settings (`Loss`); the functions of tensors that they are made of stand beside them."""

from typing import Any

from pydantic import ValidationError

from hemalum.errors import HemalumError
from hemalum.losses.boundary import ALNetLoss, Dice
from hemalum.losses.cross_entropy import BinaryCrossEntropy, BorderCrossEntropy
from hemalum.losses.focal_dice import FocalDice
from hemalum.losses.loss import Loss
from hemalum.losses.maps import Maps
from hemalum.losses.semantic import CrossEntropy
from hemalum.losses.tversky import Histo, Tversky
from hemalum.losses.unet3plus import UNet3PlusLoss
from hemalum.names import nearest

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
    content = {"name": spec} if isinstance(spec, str) else spec
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise HemalumError("a loss is written as its name, or as a mapping with 'name' and its options")
    name = content["name"]
    if name not in LOSSES:
        raise HemalumError(f"unknown loss '{name}'{nearest(name, LOSSES)}")
    try:
        return LOSSES[name].model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise HemalumError(
                f"loss '{name}' has no option '{key}'{nearest(key, LOSSES[name].model_fields)}"
            ) from error
        raise HemalumError(f"loss '{name}', '{key}': {first['msg']}") from error
