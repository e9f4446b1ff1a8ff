"""Which training images keep their labels: a fraction or a number of them, drawn reproducibly, or those of a list."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from hemalum.data.dataset import Dataset
from hemalum.data.label_pixels import read_label_map
from hemalum.data.splits import Member
from hemalum.errors import HemalumError, counted, near_misses, one_line
from hemalum.settings import Seed, Strict
from hemalum.tables import as_posix, decode, is_excel, plain_name, read_table

_DRAWS = 100  # how often a draw that lacks a class is drawn again
_LARGEST_LIST = 16 * 2**20  # bytes of a list of images
WHICH = ("fraction", "count", "file")  # one of them says which images are labeled


class LabeledImages(Strict):
    """The labeled part of each dataset's training images; the rest are used without their truth, or not at all.

    A fraction, a count or a file alone, as `1/8`, `40` or `labeled.txt`, stands for the mapping that holds it.
    What is drawn does not depend on the training's own seed, so that runs of several seeds learn from the same
    images, unless `draws` has them take turns.
    """

    fraction: str | None = Field(
        None, pattern=r"^1/[1-9]\d*$", description="1/4, 1/8 …, of the training images, rounded down; 1/1: all"
    )
    count: int | None = Field(None, ge=1, description="so many of the training images (or groups)")
    file: str | None = Field(
        None, min_length=1, description="text file with the id of a training image in each line, or DATASET/ID"
    )
    by: Literal["image", "group"] = Field(
        "image", description="what is drawn; a group is labeled whole or not at all"
    )
    draw: Literal["stratified", "random"] = Field(
        "stratified",
        description="stratified: organs in proportion, drawn again until every class has an image; random: neither",
    )
    seed: Seed = 0
    draws: int = Field(
        1, ge=1, le=1000, description="trainings take turns at so many draws: seed + (the training's seed mod draws)"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_one_word(cls, content: Any) -> Any:
        if isinstance(content, str):
            return {"fraction" if re.fullmatch(r"[\d.]+/[\d.]*", content) else "file": content}
        return {"count": content} if type(content) is int else content

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        which = [name for name in WHICH if getattr(self, name) is not None]
        if len(which) != 1:
            raise ValueError(f"want one of {', '.join(WHICH)}, as 1/8, 40 or labeled.txt; given: {which or 'none'}")
        if self.file is not None:
            fields = type(self).model_fields
            idle = [key for key in ("by", "draw", "seed", "draws") if getattr(self, key) != fields[key].default]
            if idle:
                raise ValueError(f"'{idle[0]}' is for a draw, and 'file' names the labeled images: leave it out")
        return self

    @classmethod
    def says_which(cls, content: Any) -> bool:
        """Whether what a recipe writes says which images are labeled, and not only how they are drawn."""
        return not isinstance(content, Mapping) or any(name in content for name in WHICH)

    def key(self, training_seed: int, attempt: int) -> str:
        """What the draw is a function of, for a training of this seed."""
        return f"{self.seed + training_seed % self.draws}:{attempt}"

    @property
    def text(self) -> str:
        """What is labeled, in words, for messages."""
        if self.file is not None:
            return f"list {self.file}"
        return f"fraction {self.fraction}" if self.fraction is not None else f"count {self.count}"


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
    dataset: Dataset, settings: LabeledImages, present: NDArray[np.bool_], classes: Sequence[str],
    training_seed: int = 0,
) -> tuple[Dataset, Dataset]:  # fmt: skip
    """The labeled images of a dataset's training part and the others; see `draw_labeled` and `read_list`."""
    if settings.file is not None:
        ids = read_list(Path(settings.file), dataset)
        chosen = {index for index, row in enumerate(dataset.rows) if row.id in ids}
    else:
        members = [Member(row.id, row.group, row.organ) for row in dataset.rows]
        chosen = set(draw_labeled(members, settings, present, classes, training_seed))
    labeled = tuple(row for index, row in enumerate(dataset.rows) if index in chosen)
    others = tuple(row for index, row in enumerate(dataset.rows) if index not in chosen)
    return replace(dataset, rows=labeled), replace(dataset, rows=others)


def read_list(path: Path, dataset: Dataset) -> set[str]:
    """The ids of a dataset's training images that a text file names, one in each line; `#` begins a comment.

    A table with a column `id` names them as well, such as rows of the dataset's own index.csv. A line may be
    DATASET/ID, where several datasets are trained on; those of other datasets are passed over. Raises HemalumError
    for a file that cannot be read, an id that is none of the training images, and one that names none.
    """
    lines = _read_lines(path)
    known, name = {row.id for row in dataset.rows}, dataset.info.name
    ids: set[str] = set()
    for number, line in lines:
        word = as_posix(line.partition("#")[0])
        other, slash, _ = word.partition("/")
        if not word or (word not in known and slash and other != name):
            continue
        id = word if word in known else word.removeprefix(f"{name}/")
        if id not in known:
            raise HemalumError(
                f"{path}, line {number}: '{id}' is none of the training images of {name}{near_misses(id, known)}"
            )
        ids.add(id)
    if not ids:
        raise HemalumError(f"{path}: names no training image of {name}: one id in each line, as in its index.csv")
    return ids


def _read_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of each line, or of each row's id."""
    try:
        if path.stat().st_size > _LARGEST_LIST:
            raise HemalumError(f"{path}: more than {_LARGEST_LIST // 2**20} MB, which is no list of images")
        data = path.read_bytes()
    except FileNotFoundError:
        raise HemalumError(f"labeled: no such list of images: {path}") from None
    except OSError as error:
        raise HemalumError(f"{path}: is not a readable text file ({one_line(error)})") from error
    lines = [] if is_excel(data) else decode(data, path).splitlines()
    first = re.split("[,;\t|]", lines[0]) if lines else ["id"]
    if "id" in (plain_name(name.strip('"')) for name in first):
        return [(row.number, row["id"]) for row in read_table(path, ("id",))]
    return list(enumerate(lines, start=1))


def draw_labeled(
    members: Sequence[Member], settings: LabeledImages, present: NDArray[np.bool_], classes: Sequence[str],
    training_seed: int = 0,
) -> list[int]:  # fmt: skip
    """Give the indices of the labeled images among `members`, sorted.

    Stratified, every k-th image (or group) is taken of a list that is sorted by stratum and shuffled within, from a
    start drawn at random: strata come in proportion, and each image is as likely as another. A draw in which a class
    of the training images has none is drawn again. At random, images (or groups) are drawn alike, whatever they hold.
    `present` (images, classes) says which image holds which class. Raises HemalumError for a count that there is not,
    and when none of 100 stratified draws holds every class.
    """
    if not members:
        return []
    if settings.draw == "random":
        return _draw(members, settings, settings.key(training_seed, 0))
    wanted: NDArray[np.bool_] = np.asarray(present.any(axis=0))
    lacking: list[str] = []
    for attempt in range(_DRAWS):
        chosen = _draw(members, settings, settings.key(training_seed, attempt))
        lacks: NDArray[np.bool_] = wanted & ~present[chosen].any(axis=0)
        if not lacks.any():
            return chosen
        lacking += [name for name, lack in zip(classes, lacks, strict=True) if lack]
    rarest = Counter(lacking).most_common(1)[0][0]
    raise HemalumError(
        f"labeled {settings.text} leaves class '{rarest}' without an image: it is {len(chosen)} of "
        f"{len(members)} images, and {int(present[:, list(classes).index(rarest)].sum())} hold that class; "
        "label more"
    )


def _draw(members: Sequence[Member], settings: LabeledImages, key: str) -> list[int]:
    units: dict[str, list[int]] = {}
    for index, member in enumerate(members):
        units.setdefault(member.group if settings.by == "group" else member.id, []).append(index)
    count = settings.count
    if count is None:
        count = max(1, len(units) // int(str(settings.fraction).removeprefix("1/")))
    elif count > len(units):
        raise HemalumError(f"labeled count {count}: there are {counted(len(units), f'training {settings.by}')}")
    if settings.draw == "random":
        taken = sorted(units, key=lambda name: _hash(key, name))[:count]
    else:
        strata = {name: members[indices[0]].stratum or "" for name, indices in units.items()}
        order = sorted(units, key=lambda name: (_hash(key, strata[name]), _hash(key, name)))
        start = int.from_bytes(_hash(key, "start")[:6], "big") / 2**48
        taken = [order[int((number + start) * len(order) / count)] for number in range(count)]
    return sorted(index for name in taken for index in units[name])


def _hash(key: str, name: str) -> bytes:
    return hashlib.sha256(f"{key}:{name}".encode()).digest()
