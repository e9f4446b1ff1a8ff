"""The network as a training starts, whose maps a loss keeps to (`hemalum.losses.Distilled`)."""

import copy
from collections.abc import Mapping, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor

from hemalum.errors import HemalumError
from hemalum.losses import Distilled
from hemalum.networks import Network
from hemalum.systems.phases import Phase
from hemalum.training.recipe import Recipe


def check_teacher(recipe: Recipe, *, starts: bool) -> None:
    """Raise HemalumError where a loss looks at the maps of a model to start with, and the training has none."""
    for phase in recipe.phases:
        if isinstance(phase.loss, Distilled) and not starts:
            raise HemalumError(
                f"recipe {recipe.name}, phase '{phase.name}': loss 'distilled' keeps to the maps of the model that "
                "the training starts with, and there is none: give --initial MODEL"
            )


def copy_teacher(phases: Sequence[Phase], network: Network) -> Network | None:
    """The network as it is, to be asked and never trained; None where no phase's loss looks at its maps."""
    if not any(isinstance(phase.loss, Distilled) for phase in phases):
        return None
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def ask_teacher(
    fabric: Fabric, teacher: Network | None, images: Tensor, conditions: Mapping[str, Tensor]
) -> Tensor | None:
    """Its logits (B, L, H, W) float32 of images as the network takes them; None where there is none."""
    if teacher is None:
        return None
    with fabric.autocast():
        logits: Tensor = teacher(images, **conditions).float()
    return logits
