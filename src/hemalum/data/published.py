"""The parts as the publication made them, and what it leaves open."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from hemalum.data.splits import PARTS, Member, Part, split_by_group
from hemalum.errors import HemalumError

VAL_SHARE = 0.1  # of all images, as in the shares that are the default elsewhere


class PublishedSplit(NamedTuple):
    """Parts by sample id; `note` says what was decided here; `apart` are the groups found in two parts."""

    parts: dict[str, Part]
    note: str | None
    apart: list[str]


def published_split(
    members: Sequence[Member],
    rule: Callable[[Sequence[Member], int], Mapping[str, Part]] | None = None,
    fold: int = 0,
    *,
    seed: int = 0,
) -> PublishedSplit:
    """The publication's parts: those of `rule(members, fold)`, or each member's own `part`.

    Where there is a test part but none for validation, val is cut from train by group, with `seed`, until
    it holds about a tenth of all images; `note` says so. The test part is never touched.

    Raises HemalumError when an image has no part.
    """
    parts: dict[str, Part | None] = {member.id: member.part for member in members}
    if rule is not None:
        given = rule(members, fold)
        parts = {member.id: given.get(member.id) for member in members}
    for name, part in parts.items():
        if part not in PARTS:
            raise HemalumError(f"image {name}: the published split does not name it; split by shares instead")
    found: dict[str, Part] = {name: part for name, part in parts.items() if part is not None}
    note = None
    if "val" not in found.values():
        train = [member for member in members if found[member.id] == "train"]
        share = min(VAL_SHARE * len(members) / max(len(train), 1), 0.5)
        if len({member.group for member in train}) > 1:
            found |= split_by_group(train, (1 - share, share, 0.0), seed=seed)
            count = sum(part == "val" for part in found.values())
            images = f"{count} image{'s' if count > 1 else ''}"
            note = f"val: {images} cut from the published train part by group, seed {seed}"
    return PublishedSplit(found, note, groups_apart(members, found))


def one_fold_tests(members: Sequence[Member], fold: int) -> dict[str, Part]:
    """Fold `fold` is the test part, the others train; images without a fold are left out."""
    return {m.id: "test" if m.fold == fold else "train" for m in members if m.fold is not None}


def groups_apart(members: Sequence[Member], parts: Mapping[str, str]) -> list[str]:
    """Names of the groups that are in more than one part, sorted."""
    places: dict[str, set[str]] = defaultdict(set)
    for member in members:
        places[member.group].add(parts[member.id])
    return sorted(group for group, names in places.items() if len(names) > 1)
