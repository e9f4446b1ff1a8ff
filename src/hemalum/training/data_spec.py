"""What a network needs to know of the data that it is trained on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.models.network import option_defaults
from hemalum.targets.representations import BY_CLASS, TYPED
from hemalum.training.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DataSpec:
    """Names of classes and organs in order, and the `conditions` that the network takes beside pixels.

    `classes` are by the dataset's own ids; with `one_class` all nuclei are of one. `embedding_channels` is how many
    SAM's embedding has, 0 where there is none.
    """

    classes: tuple[str, ...] = ()
    organs: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    one_class: bool = False
    embedding_channels: int = 0

    def class_map(self, dataset: Dataset) -> NDArray[np.int32] | None:
        """The number among `classes`, from 1, of each of a dataset's class ids; 0 for what is not among them.

        None where there are no classes.
        """
        if not self.classes:
            return None
        if self.one_class:
            return np.ones(256, np.int32)
        numbers = np.zeros(256, np.int32)
        for id, name in (dataset.info.classes or {}).items():
            numbers[id] = self.classes.index(name) + 1 if name in self.classes else 0
        return numbers

    def find_organ(self, name: str | None) -> int:
        """The number of an organ, -1 for one that is not among them; upper and lower case are one."""
        numbers = {organ.casefold(): number for number, organ in enumerate(self.organs)}
        return -1 if name is None else numbers.get(name.strip().casefold(), -1)

    def find_unseen(self, datasets: Sequence[Dataset]) -> list[str]:
        """Organs of validation and test images that are not among `organs`, sorted."""
        rows = [row for dataset in datasets for row in dataset.rows if row.split != "train" and row.organ]
        return sorted({row.organ.strip() for row in rows if row.organ and self.find_organ(row.organ) < 0})

    def with_conditions(self, conditions: tuple[str, ...]) -> "DataSpec":
        """The same for a network that takes these; one built to tell no organs apart has none in its card."""
        return replace(self, conditions=conditions, organs=self.organs if "organ" in conditions else ())


def gather_data_spec(recipe: Recipe, datasets: Sequence[Dataset], embedding_channels: int = 0) -> DataSpec:
    """What the recipe's network needs to know of the data: classes, and organs where it tells them apart.

    Where representation `typed` is trained, sets without classes may be among them. Raises HemalumError when classes
    are wanted and a dataset has none, or two name others.
    """
    spec = DataSpec(organs=_gather_organs(recipe, datasets), embedding_channels=embedding_channels)
    if recipe.representation not in BY_CLASS:
        return spec
    if recipe.classes == "nucleus":
        if recipe.representation == TYPED:
            raise HemalumError(
                f"recipe {recipe.name}: representation '{TYPED}' tells classes apart, and classes: nucleus takes all "
                "nuclei as one: take representation distance"
            )
        return replace(spec, classes=("nucleus",), one_class=True)
    with_classes = _find_sets_with_classes(recipe, datasets)
    first = with_classes[0]
    for dataset in with_classes:
        if set(dataset.class_names.values()) != set(first.class_names.values()):
            raise HemalumError(
                f"{first.path} and {dataset.path} name different classes: {', '.join(first.class_names.values())}; "
                f"{', '.join(dataset.class_names.values())}"
            )
    return replace(spec, classes=tuple(first.class_names.values()))


def _gather_organs(recipe: Recipe, datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """The organs that the recipe's network tells apart; none for most networks."""
    if "organs" not in option_defaults(recipe.network.name):
        return ()
    rows = [row for dataset in datasets for row in dataset.split("train").rows]
    present = {row.organ.strip().casefold(): row.organ.strip() for row in rows if row.organ}
    organs = tuple(sorted(present.values()) if recipe.organs == "auto" else recipe.organs)
    unlisted = sorted(present.keys() - {organ.casefold() for organ in organs})
    if unlisted:
        log.warning(
            "recipe %s does not list %s: their images are trained on as of an unknown organ",
            recipe.name,
            ", ".join(present[name] for name in unlisted),
        )
    return organs


def _find_sets_with_classes(recipe: Recipe, datasets: Sequence[Dataset]) -> list[Dataset]:
    """The datasets that classes are learned from: all of them, or where `typed` is trained at least one."""
    typed = recipe.representation == TYPED
    with_classes: list[Dataset] = []
    others: list[Dataset] = []
    for dataset in datasets:
        with_nuclei = [row.classes is not None for row in dataset.rows if row.nuclei]
        enough = any(with_nuclei) if typed else all(with_nuclei)
        (with_classes if dataset.class_names and enough else others).append(dataset)
    if others and not typed:
        raise HemalumError(
            f"recipe {recipe.name} tells classes apart and {others[0].path} has none: take another recipe, or "
            "classes: nucleus, which takes all nuclei as one"
        )
    if not with_classes:
        paths = ", ".join(str(dataset.path) for dataset in others)
        raise HemalumError(
            f"recipe {recipe.name} tells classes apart and no dataset has any ({paths}): one with classes must be "
            "among them, or take representation distance"
        )
    if others:
        log.info(
            "recipe %s learns classes from %s; nuclei of %s have none and count in the other maps alone",
            recipe.name,
            ", ".join(dataset.info.name for dataset in with_classes),
            ", ".join(dataset.info.name for dataset in others),
        )
    return with_classes
