"""Both maps of a model in two stages: p1, that its second stage is given, and p2, that it makes of it."""

from typing import Any

from hemalum.errors import HemalumError
from hemalum.models.card import NetworkSpec
from hemalum.models.model import Model
from hemalum.networks.two_stage import base_of

_BASE = "base."


def first_stage(model: Model) -> Model:
    """Give the first stage of a two-stage model as a model: its map is p1, by the weights that p2 is made with.

    It is not the base as it was before the second stage was put on it: joint training has moved it. Raises
    HemalumError for a model of another network.
    """
    card = model.card
    if card.network.name != "two_stage":
        raise HemalumError(
            f"model '{card.name}' has one stage, of network '{card.network.name}': put a second one on it with "
            "hemalum enhance"
        )
    options = card.network.options
    if not options.get("enhanced", True):
        raise HemalumError(
            f"model '{card.name}' is its first stage alone, which was the better one: name the model of another phase"
        )
    further = {name: options.get(name) for name in ("organs", "embedding")}
    name, base = base_of(options.get("base", {}), options.get("inputs", 3), further)
    # what was measured on p2
    of_both: dict[str, Any] = {"int8": None, "recall": [], "recall_target": None, "calibration": None, "metrics": {}}
    changes = {"network": NetworkSpec(name=name, options=base), "name": f"{card.name}.p1", **of_both}
    tensors = {name.removeprefix(_BASE): value for name, value in model.tensors.items() if name.startswith(_BASE)}
    return Model(card.model_copy(update=changes), tensors)
