"""The recipe's network, built for the data; what does not fit together is refused before any training."""

import logging
from collections.abc import Sequence

from torch import nn

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.instances.representations import BY_CLASS, TYPED, find_representation
from hemalum.models.card import NetworkSpec
from hemalum.networks import build_network, takes
from hemalum.training.recipe import Recipe
from hemalum.training.stream import Facts

log = logging.getLogger(__name__)


def check_losses(recipe: Recipe) -> None:
    """Raise HemalumError unless the representations are known and each phase's loss fits the one that is trained."""
    placeholder = ("class",) if recipe.representation in BY_CLASS else ()
    kinds: set[str] = set()
    for name in (recipe.keep, recipe.representation):
        if name is not None:
            try:
                kinds = {head.kind for head in find_representation(name, placeholder).heads}
            except HemalumError as error:
                raise HemalumError(f"recipe {recipe.name}: {error}") from error
    for phase in recipe.phases:
        if phase.loss.only is not None and not kinds <= phase.loss.only:
            raise HemalumError(
                f"recipe {recipe.name}: loss '{phase.loss.name}' does not fit representation "
                f"'{recipe.representation}', whose maps are {', '.join(sorted(kinds))}; it takes "
                f"{', '.join(sorted(phase.loss.only))}"
            )
        if phase.loss.needs and recipe.finer > 1:
            raise HemalumError(
                f"recipe {recipe.name}: loss '{phase.loss.name}' needs maps on the network's grid: finer must be 1"
            )


def gather_facts(recipe: Recipe, datasets: Sequence[Dataset]) -> Facts:
    """What the recipe's network needs to know of the data: classes, and organs where it tells them apart.

    Where representation `typed` is trained, sets without classes may be among them. Raises HemalumError when classes
    are wanted and a dataset has none, or two name others.
    """
    organs: tuple[str, ...] = ()
    if takes(recipe.network.name, "organs"):
        rows = [row for dataset in datasets for row in dataset.split("train").rows]
        found = {row.organ.strip().casefold(): row.organ.strip() for row in rows if row.organ}
        organs = tuple(sorted(found.values()) if recipe.organs == "auto" else recipe.organs)
        unlisted = sorted(found.keys() - {organ.casefold() for organ in organs})
        if unlisted:
            log.warning(
                "recipe %s does not list %s: their images are trained on as of an unknown organ",
                recipe.name,
                ", ".join(found[name] for name in unlisted),
            )
    if recipe.representation not in BY_CLASS:
        return Facts(organs=organs)
    typed = recipe.representation == TYPED
    if recipe.classes == "nucleus" and typed:
        raise HemalumError(
            f"recipe {recipe.name}: representation '{TYPED}' tells classes apart, and classes: nucleus takes all "
            "nuclei as one: take representation distance"
        )
    if recipe.classes == "nucleus":
        return Facts(classes=("nucleus",), organs=organs, one_class=True)
    with_classes = _sets_with_classes(recipe, datasets)
    first = with_classes[0]
    for dataset in with_classes:
        if set(_class_names(dataset)) != set(_class_names(first)):
            raise HemalumError(
                f"{first.path} and {dataset.path} name different classes: {', '.join(_class_names(first))}; "
                f"{', '.join(_class_names(dataset))}"
            )
    return Facts(classes=tuple(_class_names(first)), organs=organs)


def _sets_with_classes(recipe: Recipe, datasets: Sequence[Dataset]) -> list[Dataset]:
    """The datasets that classes are learnt from: all of them, or where `typed` is trained at least one."""
    typed = recipe.representation == TYPED
    result: list[Dataset] = []
    others: list[Dataset] = []
    for dataset in datasets:
        with_nuclei = [row.classes is not None for row in dataset.rows if row.nuclei]
        enough = any(with_nuclei) if typed else all(with_nuclei)
        (result if _class_names(dataset) and enough else others).append(dataset)
    if others and not typed:
        raise HemalumError(
            f"recipe {recipe.name} tells classes apart and {others[0].path} has none: take another recipe, or "
            "classes: nucleus, which takes all nuclei as one"
        )
    if not result:
        paths = ", ".join(str(dataset.path) for dataset in others)
        raise HemalumError(
            f"recipe {recipe.name} tells classes apart and no dataset has any ({paths}): one with classes must be "
            "among them, or take representation distance"
        )
    if others:
        log.info(
            "recipe %s learns classes from %s; nuclei of %s have none and count in the other maps alone",
            recipe.name,
            ", ".join(dataset.info.name for dataset in result),
            ", ".join(dataset.info.name for dataset in others),
        )
    return result


def _class_names(dataset: Dataset) -> list[str]:
    classes = dataset.info.classes or {}
    return [classes[id] for id in sorted(classes) if id > 0]


def build_for(recipe: Recipe, facts: Facts) -> tuple[nn.Module, NetworkSpec]:
    """Build the recipe's network for the data, and give it as the card says it: with all options that follow.

    Raises HemalumError when there is no such network or its options do not fit.
    """
    options = dict(recipe.network.options)
    if recipe.input != "RGB":
        options.setdefault("inputs", 1)
    if facts.organs:
        options.setdefault("organs", len(facts.organs))
    if facts.embedding and takes(recipe.network.name, "embedding"):
        options.setdefault("embedding", facts.embedding)
    logits = find_representation(recipe.representation, facts.classes).logits
    network = build_network(recipe.network.name, logits, options)
    options.pop("pretrained", None)  # the model file holds all weights: no need to fetch others under them
    return network, NetworkSpec(name=recipe.network.name, options=options)


def find_window(recipe: Recipe, network: nn.Module, stride: int) -> int | None:
    """The side of every input of the trained network, in px; None where it takes any size.

    Raises HemalumError when the recipe's tiles do not fit the network.
    """
    size = getattr(network, "size", None)
    if size is not None and recipe.tile != size:
        raise HemalumError(
            f"recipe {recipe.name}: tile is {recipe.tile}, its network takes {size} x {size} px: make them equal"
        )
    if recipe.tile % stride:
        raise HemalumError(f"recipe {recipe.name}: tile {recipe.tile} is not a multiple of the network's {stride}")
    wants = "embedding" in getattr(network, "conditions", ())
    if wants != (recipe.sam is not None):
        what = "needs an embedding: give 'sam' with an encoder" if wants else "takes no embedding: leave out 'sam'"
        raise HemalumError(f"recipe {recipe.name}: its network {what}")
    if recipe.sam is not None:
        field = recipe.sam.field or recipe.tile
        if field % stride:
            raise HemalumError(f"recipe {recipe.name}: sam.field {field} is not a multiple of the network's {stride}")
        return field
    return recipe.tile if size is not None or getattr(network, "global_context", False) else None
