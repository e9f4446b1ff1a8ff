"""`combined`: several dataset folders as one, such as a public set and your own H&E/IHC pairs.

    SRC/nuinsseg_human/dataset.yaml …   SRC/ihc_pairs/dataset.yaml …

Every image keeps its part, scale, organ and stain; its id, source and group get the name of its set in front.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hemalum.data.dataset import INFO_FILE, Dataset
from hemalum.data.readers.reader import Reader
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError, nearest


def read(path: Path | str, *, names: Sequence[str] | str | None = None) -> Iterator[Sample]:
    """Yield the samples of all sets, in the order of `names`, or of their folders' names.

    `names` are folders in `path` (in a string with commas between); without it, all that are dataset folders are
    taken. A set without classes may stand beside one with classes. Raises HemalumError for fewer than two sets, for
    sets whose classes differ, and for a set that is combined itself and was not named.
    """
    for dataset in open_sets(path, names):
        name = dataset.path.name
        for row, sample in zip(dataset.rows, dataset, strict=True):
            yield replace(
                sample,
                id=f"{name}_{row.id}",
                source=f"{name}/{row.source}",
                group=f"{name}/{row.group}",
                part=row.split,
            )


def open_sets(path: Path | str, names: Sequence[str] | str | None = None) -> list[Dataset]:
    """The dataset folders of `path` that are combined. Raises HemalumError as `read` does."""
    path = Path(path)
    there = sorted(file.parent.name for file in path.glob(f"*/{INFO_FILE}"))
    if isinstance(names, str):
        names = names.split(",")
    chosen = there if names is None else [name.strip() for name in names]
    for name in chosen:
        if name not in there:
            raise HemalumError(f"{path}: no dataset folder '{name}'{nearest(name, there)}")
    if len(set(chosen)) < len(chosen):
        raise HemalumError(f"names {', '.join(chosen)}: a set is named twice")
    if len(set(chosen)) < 2:
        listed = ", ".join(chosen) or "none"
        raise HemalumError(f"{path}: want two dataset folders or more, each with {INFO_FILE}; there is {listed}")
    sets = [Dataset.open(path / name) for name in chosen]
    combined = [dataset.path for dataset in sets if dataset.info.source_format == "combined"]
    if names is None and combined:
        raise HemalumError(f"{combined[0]}: is combined from others; name the sets to take, --option names=A,B")
    classed = [dataset for dataset in sets if dataset.class_names]
    for other in classed[1:]:
        if other.class_names != classed[0].class_names:
            raise HemalumError(
                f"{other.path}: its classes are {_listed(other)}, those of {classed[0].path} {_listed(classed[0])}: "
                "sets with different classes cannot be one"
            )
    return sets


def facts_for(*, path: Path | str, names: Sequence[str] | str | None = None) -> Mapping[str, Any]:
    """License, citation and classes of all sets together."""
    sets = open_sets(path, names)
    facts: dict[str, Any] = {
        key: "; ".join(
            f"{dataset.path.name}: {getattr(dataset.info, key)}" for dataset in sets if getattr(dataset.info, key)
        )
        for key in ("citation", "mpp_note")
    }
    facts["license"] = "; ".join(f"{dataset.path.name}: {dataset.info.license or 'not stated'}" for dataset in sets)
    facts["title"] = " and ".join(dataset.info.title or dataset.info.name for dataset in sets)
    facts["classes"] = next((dataset.info.classes for dataset in sets if dataset.class_names), {})
    return facts


def _listed(dataset: Dataset) -> str:
    return ", ".join(f"{number} {name}" for number, name in dataset.class_names.items())


READER: Reader = Reader(
    title="Several dataset folders as one",
    read=read,
    group="as in each set",
    license="those of the sets",
    facts_for=facts_for,
    markers=(f"*/{INFO_FILE}",),
    published_rule="each set's own parts",
)
