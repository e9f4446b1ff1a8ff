"""How a refinement trains: the recipe that a model was trained by, for one more phase of some of its parameters."""

import fnmatch
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import ValidationError

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError, nearest
from hemalum.losses import Distilled
from hemalum.models.model import Model
from hemalum.models.network import build_network
from hemalum.networks import NETWORKS
from hemalum.systems.phases import Adam, Constant, Phase, StopCriteria
from hemalum.targets.representations import find_representation
from hemalum.training.recipe import Recipe, Source

DECODER = "decoder"  # the word for what trains by default
_NOT_TRAINED = ("running_mean", "running_var", "num_batches_tracked")


def choose_trainable(model: Model, patterns: Sequence[str] = ()) -> list[str]:
    """Patterns of the parameters that are to train: `patterns`, else the late modules of the model's network.

    Three words stand for patterns: `all`, `decoder` for the late modules, and `head` for the layer that makes the
    maps. A late module that the model was built without is left out. Raises HemalumError for a pattern that nothing
    matches, and where the network has no late modules.
    """
    name = model.card.network.name
    parameters = [parameter for parameter in model.tensors if not parameter.endswith(_NOT_TRAINED)]
    parts = sorted({parameter.partition(".")[0] for parameter in parameters})
    chosen: list[str] = []
    for pattern in patterns or [DECODER]:
        if pattern == DECODER:
            chosen += _late_modules(name, parameters, parts)
            continue
        wanted = _WORDS[pattern](model) if pattern in _WORDS else pattern
        if not fnmatch.filter(parameters, wanted):
            raise HemalumError(
                f"--trainable '{pattern}': no parameter of network '{name}' matches; its parts are {', '.join(parts)}"
            )
        chosen.append(wanted)
    return chosen


def _late_modules(name: str, parameters: Sequence[str], parts: Sequence[str]) -> list[str]:
    late = [] if name not in NETWORKS else [f"{module}.*" for module in NETWORKS[name].late_modules]
    matching = [pattern for pattern in late if fnmatch.filter(parameters, pattern)]
    if not matching:
        raise HemalumError(
            f"network '{name}': which of its parts are the last ones is not known; name them with "
            f"--trainable PATTERN, such as '{parts[-1]}.*'{nearest('head', parts)}"
        )
    return matching


def _final_layer(model: Model) -> str:
    card = model.card
    with torch.device("meta"):  # its weights are not looked at
        logits = find_representation(card.representation, card.classes).logits
        network = build_network(card.network.name, logits, card.network.options)
    return f"{network.final_layer}.*"


_WORDS: dict[str, Callable[[Model], str]] = {"all": lambda model: "*", "head": _final_layer}


def training_recipe(model: Model) -> Recipe:
    """The recipe that a model was trained by, from its card. Raises HemalumError when it holds none of today's."""
    training = model.card.training
    if training is None or training.settings is None:
        raise HemalumError(
            f"model '{model.card.name}' does not say how it was trained, which refining needs: train one with this "
            "version (hemalum train)"
        )
    try:
        return Recipe.model_validate(training.settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise HemalumError(
            f"model '{model.card.name}': its recipe is of another version of hemalum and cannot be read: "
            f"{where}: {first['msg']}"
        ) from error


def refinement_recipe(
    model: Model, recipe: Recipe, dataset: Dataset, trainable: Sequence[str], lr: float, epochs: int
) -> Recipe:
    """The recipe of one more phase on `dataset`, whose training part is the chosen images."""
    steps = math.ceil(epochs * len(dataset.split("train")) / recipe.batch)
    name = dataset.info.name
    data = {name: recipe.data.get(name, Source())}
    # validated once, at the end: the last weights are the ones
    return continued_recipe(model, recipe, trainable, lr=lr, steps=steps, data=data, validate_every=steps)


def continued_recipe(
    model: Model, recipe: Recipe, trainable: Sequence[str], *, lr: float, steps: int, **changes: Any
) -> Recipe:
    """The `recipe` that a model was trained by, for one more phase of it; `changes` are further keys of a recipe.

    The phase has the loss of the last one, Adam and a constant rate; only what matches `trainable` trains. The data
    is the caller's to name. A model that was trained to keep near another one is not kept near that any more.
    """
    last = recipe.phases[-1]
    phase = Phase(
        name="refine",
        train=list(trainable),
        loss=last.loss.loss if isinstance(last.loss, Distilled) else last.loss,
        optimizer=Adam(lr=lr),
        schedule=Constant(),
        until=StopCriteria(steps=steps, monitor=last.until.monitor),
    )
    basic: dict[str, Any] = {
        "name": f"{model.card.name}_refined",
        "system": None,  # its keys stand in the recipe already
        "initial": None,  # the model has these weights behind it
        "network": model.card.network,
        "representation": model.card.representation,
        "output_representation": None,
        "separation": model.card.separation,
        "stain_normalization": None,  # the model's own target is passed
        "labeled": None,  # the chosen images are all of them
        "unlabeled": [],
        "sampling": None,
        "phases": [phase],
        "checkpoint_every": min(recipe.checkpoint_every, steps),
    }
    if model.card.organs:
        basic["organs"] = list(model.card.organs)
    return recipe.model_copy(update=basic | changes)
