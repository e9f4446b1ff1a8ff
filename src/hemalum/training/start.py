"""The weights that a training starts with, as its recipe names them: a model's, for all of the network or a part."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from hemalum.errors import HemalumError
from hemalum.models.card import Card
from hemalum.models.model import Model, load_model
from hemalum.networks import Network
from hemalum.targets.representations import find_representation
from hemalum.training.context import TrainContext
from hemalum.training.fit import PhaseResult
from hemalum.training.head import load_initial
from hemalum.training.recipe import InitialWeights, Recipe
from hemalum.training.validation import Validation

log = logging.getLogger(__name__)


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


def load_start(context: TrainContext, network: Network, start: Start, report: bool = True) -> Card:
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


def report_worse(
    context: TrainContext, network: Network, start: Start, validation: Validation, best: PhaseResult
) -> None:
    """Say so in the log where the weights of `best` are worse on the validation images than the model at the start.

    By what the last phase monitors. A part is measured by itself, with every stage of the network off.
    """
    until, loss = context.recipe.phases[-1].until, context.recipe.phases[-1].loss

    def score() -> float:
        return until.score(validation.score(network.eval(), loss if until.monitor == "loss" else None))

    network.load_state_dict(load_file(best.weights, device=str(context.fabric.device)))
    for name in network.stage_toggles:
        setattr(network, name, name not in best.stages_off)
    after = score()
    load_start(context, network, start, report=False)
    for name in network.stage_toggles:
        setattr(network, name, not start.weights.part)
    before = score()
    if after < before and context.fabric.is_global_zero:
        log.warning(
            "%s was better on the validation images than what came of it: %s %.4g, against %.4g now; train longer, "
            "or keep it",
            start.weights.model, until.monitor, until.shown(before), until.shown(after),
        )  # fmt: skip
