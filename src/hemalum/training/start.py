"""The weights that a training starts with, as its recipe names them: a model's, for all of the network or a part."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from hemalum.errors import HemalumError
from hemalum.models.card import Card
from hemalum.models.model import Model, load_model
from hemalum.targets.representations import find_representation
from hemalum.training.context import TrainContext
from hemalum.training.head import load_initial
from hemalum.training.recipe import InitialWeights, Recipe


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A recipe's `initial`, and the model that it names. `same_input`: the network has to see what the model saw."""

    weights: InitialWeights
    model: Model
    same_input: bool

    @property
    def card(self) -> Card:
        """The model's card."""
        return self.model.card


def open_start(recipe: Recipe, initial: Path | str | None = None) -> Start | None:
    """Open the model that a recipe starts with; None where it names none.

    Raises HemalumError when it is not the one of when the recipe was read, or the caller gives an `initial` as well.
    """
    weights = recipe.initial
    if weights is None:
        return None
    if initial is not None:
        raise HemalumError(f"recipe {recipe.name} starts with {weights.model} itself: leave out --initial")
    model = load_model(weights.model)
    if model.digest != weights.digest:
        raise HemalumError(
            f"{weights.model} is not the model that recipe {recipe.name} was read with: start again in another folder"
        )
    return Start(weights, model, same_input=recipe.system is not None)


def load_start(context: TrainContext, network: nn.Module, start: Start, report: bool = True) -> Card:
    """Put the weights of the recipe's model into the network, or into its part; gives the model's card.

    Raises HemalumError when they do not fit, or when the network would see other input than the model did.
    """
    if start.same_input:
        _check_same_input(context, start)
    part = start.weights.part
    if not part:
        return load_initial(network, context.representation, start.model.path or start.weights.model, report)
    module = dict(network.named_children()).get(part)
    if module is None:
        parts = ", ".join(name for name, _ in network.named_children())
        raise HemalumError(f"recipe {context.recipe.name}: its network has no part '{part}'; its parts are {parts}")
    if find_representation(start.card.representation, start.card.classes).heads != context.representation.heads:
        raise HemalumError(
            f"recipe {context.recipe.name}: {start.weights.model} gives the maps of '{start.card.representation}' "
            f"for {', '.join(start.card.classes)}, and the network has to give "
            f"'{context.representation.name}' for {', '.join(context.representation.classes) or 'nucleus'}"
        )
    try:
        module.load_state_dict({name: torch.from_numpy(value) for name, value in start.model.tensors.items()})
    except RuntimeError as error:
        raise HemalumError(
            f"{start.weights.model} does not fit part '{part}' of the recipe's network: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from error
    return start.card


def _check_same_input(context: TrainContext, start: Start) -> None:
    card, recipe, stain = start.card, context.recipe, context.stain
    sam = None if context.sam is None else (context.sam.digest, context.sam.field)
    pairs = {
        "mpp": (recipe.mpp, card.mpp),
        "input": (recipe.input, card.channels),
        "input_range": (recipe.input_range, card.input_range),
        "organs": (list(context.data_spec.organs), card.organs),
        "stain_normalization": (None if stain is None else stain.target.origin, card.stain and card.stain.origin),
        "sam": (sam, None if card.sam is None else (card.sam.digest, card.sam.field)),
    }
    for key, (here, there) in pairs.items():
        if here != there:
            raise HemalumError(
                f"recipe {recipe.name}: {key} is {here or 'none'}, and {start.weights.model} was trained with "
                f"{there or 'none'}: leave {key} out, the model decides it"
            )
