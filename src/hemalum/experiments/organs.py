"""Which organ a model is given for each image: the image's own, or by a rule that shows what the organ is worth.

A network that is told the organ may use it, ignore it, or suffer without it; its score on images with their own organ
says nothing of that. So the same images are scored again with no organ, with another one than their own, and with
their organs dealt out anew among them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError, nearest
from hemalum.experiments.label_maps import LabelMaps, is_label_folder
from hemalum.experiments.segmenters import CLASSICAL
from hemalum.models.model import Model, load_model

TRUE, UNKNOWN, WRONG, SHUFFLED = ORGAN_RULES = ("true", "unknown", "wrong", "shuffled")

Organs = dict[str, str | None]  # by image id


def assign_organs(rule: str, known: Sequence[str], images: Mapping[str, str | None], seed: int = 0) -> Organs:
    """The organ that a model which knows `known` is given for each of `images`, whose own organs these are, by id.

    `true`: its own. `unknown`: none. `wrong`: one of the known that is not its own, each as likely. `shuffled`: that
    of an image drawn without putting back, its own by chance. The same `seed` gives the same.
    Raises HemalumError for another rule, or where there is no wrong one.
    """
    check_rule(rule)
    rng = np.random.default_rng(seed)
    organs = list(images.values())
    if rule == UNKNOWN:
        return dict.fromkeys(images)
    if rule == SHUFFLED:
        return {id: organs[index] for id, index in zip(images, rng.permutation(len(organs)), strict=True)}
    if rule == TRUE:
        return dict(images)
    assigned: Organs = {}
    for id, true in images.items():
        others = [organ for organ in known if true is None or organ.casefold() != true.strip().casefold()]
        if not others:
            raise HemalumError(f"organs '{WRONG}': the model knows '{known[0]}' alone, there is no other to give")
        assigned[id] = others[rng.integers(len(others))]
    return assigned


def check_rule(rule: str) -> None:
    """Raise HemalumError, naming the nearest, unless it is one of `ORGAN_RULES`."""
    if rule not in ORGAN_RULES:
        raise HemalumError(f"organs '{rule}'{nearest(rule, ORGAN_RULES)}: want one of {', '.join(ORGAN_RULES)}")


def assign_to(rule: str, model: Any, data: Any) -> tuple[Any, Organs | None]:
    """The model, loaded, and what it is given for each image of a dataset by a rule; None: each image's own organ.

    `model` and `data` are what `evaluate` takes. Raises HemalumError for a rule other than `true` where the model
    tells no organs apart or is set to one, or the data are not a dataset.
    """
    check_rule(rule)
    if rule == TRUE:
        return model, None
    without = isinstance(model, LabelMaps) or model == CLASSICAL or is_label_folder(model)
    if without or (callable(model) and not isinstance(model, Model)):
        name = model if isinstance(model, str) else getattr(model, "name", getattr(model, "__name__", str(model)))
        raise HemalumError(f"'{name}' tells no organs apart: leave organs '{rule}' out")
    loaded = load_model(model)
    if not loaded.card.organs:
        raise HemalumError(f"model '{loaded.card.name}' tells no organs apart: leave organs '{rule}' out")
    if loaded.card.organ is not None:
        raise HemalumError(
            f"model '{loaded.card.name}' is set to {loaded.card.organ} for all images: take the one that is not, or "
            f"leave organs '{rule}' out"
        )
    if not isinstance(data, Dataset):
        raise HemalumError(f"organs '{rule}' needs a dataset, whose images have organs: give its folder")
    return loaded, assign_organs(rule, loaded.card.organs, {row.id: row.organ for row in data.rows})


def count_known(known: Sequence[str], images: Sequence[str | None]) -> dict[str, int]:
    """How many images come with an organ that a model knows, and how many without: `known`, `unknown`."""
    names = {organ.casefold() for organ in known}
    count = sum(organ is not None and organ.strip().casefold() in names for organ in images)
    return {"known": count, "unknown": len(images) - count}
