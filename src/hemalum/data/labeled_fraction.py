"""Which training images keep their labels: a fraction, drawn reproducibly, that leaves no class without an image."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hemalum.data.dataset import Dataset
from hemalum.data.image import read_label_map
from hemalum.data.splits import Member
from hemalum.errors import HemalumError
from hemalum.settings import Seed, Strict

_DRAWS = 100  # how often a draw that lacks a class is drawn again


class LabeledFraction(Strict):
    """The labeled share of each dataset's training images; the rest are used without their truth, or not at all.

    It does not depend on the training's own seed, so that runs of several seeds learn from the same images.
    """

    fraction: str = Field(pattern=r"^1/[1-9]\d*$", description="1/4, 1/8 …, of the training images, rounded down")
    by: Literal["image", "group"] = Field(
        "image", description="what is drawn; a group is labeled whole or not at all"
    )
    seed: Seed = 0


def present_classes(dataset: Dataset, class_map: NDArray[np.int32] | None, count: int) -> NDArray[np.bool_]:
    """(images, count) bool: which classes each image holds a nucleus of; only class maps are read.

    `class_map` holds the class from 1 of each of the dataset's class ids, 0 for none; None: all nuclei are of one.
    """
    present = np.zeros((len(dataset), count), bool)
    for row, image_classes in zip(dataset.rows, present, strict=True):
        if not row.nuclei:
            continue
        if class_map is None or row.classes is None:
            class_ids = np.array([1 if class_map is None else class_map[0]])
        else:
            ids = np.unique(read_label_map(dataset.path / row.classes))
            class_ids = class_map[ids[ids > 0]]
        image_classes[class_ids[class_ids > 0] - 1] = True
    return present


def divide(
    dataset: Dataset, settings: LabeledFraction, present: NDArray[np.bool_], classes: Sequence[str]
) -> tuple[Dataset, Dataset]:
    """A dataset's labeled images and the others; see `draw_labeled`."""
    members = [Member(row.id, row.group, row.organ) for row in dataset.rows]
    chosen = set(draw_labeled(members, settings, present, classes))
    labeled = tuple(row for index, row in enumerate(dataset.rows) if index in chosen)
    others = tuple(row for index, row in enumerate(dataset.rows) if index not in chosen)
    return replace(dataset, rows=labeled), replace(dataset, rows=others)


def draw_labeled(
    members: Sequence[Member], settings: LabeledFraction, present: NDArray[np.bool_], classes: Sequence[str]
) -> list[int]:
    """Give the indices of the labeled images among `members`, sorted.

    Every k-th image (or group) is taken of a list that is sorted by stratum and shuffled within, from a start drawn
    at random: strata come in proportion, and each image is as likely as another. A draw in which a class of the
    training images has none is drawn again. `present` (images, classes) says which image holds which class.
    Raises HemalumError when none of 100 draws holds every class.
    """
    if not members:
        return []
    wanted: NDArray[np.bool_] = np.asarray(present.any(axis=0))
    lacking: list[str] = []
    for attempt in range(_DRAWS):
        chosen = _draw(members, settings, f"{settings.seed}:{attempt}")
        lacks: NDArray[np.bool_] = wanted & ~present[chosen].any(axis=0)
        if not lacks.any():
            return chosen
        lacking += [name for name, lack in zip(classes, lacks, strict=True) if lack]
    rarest = Counter(lacking).most_common(1)[0][0]
    raise HemalumError(
        f"labeled fraction {settings.fraction} leaves class '{rarest}' without an image: it is {len(chosen)} of "
        f"{len(members)} images, and {int(present[:, list(classes).index(rarest)].sum())} hold that class; "
        "label a larger fraction"
    )


def _draw(members: Sequence[Member], settings: LabeledFraction, key: str) -> list[int]:
    units: dict[str, list[int]] = {}
    for index, member in enumerate(members):
        units.setdefault(member.group if settings.by == "group" else member.id, []).append(index)
    strata = {name: members[indices[0]].stratum or "" for name, indices in units.items()}
    order = sorted(units, key=lambda name: (_hash(key, strata[name]), _hash(key, name)))
    count = max(1, len(order) // int(settings.fraction.removeprefix("1/")))
    start = int.from_bytes(_hash(key, "start")[:6], "big") / 2**48
    taken = [order[int((number + start) * len(order) / count)] for number in range(count)]
    return sorted(index for name in taken for index in units[name])


def _hash(key: str, name: str) -> bytes:
    return hashlib.sha256(f"{key}:{name}".encode()).digest()
