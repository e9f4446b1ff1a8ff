"""Splits by group (patient, organ, source image), never by patch, and as published: deterministic, hashed, stored."""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hemalum.errors import HemalumError, counted, printable

log = logging.getLogger(__name__)

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
VAL_SHARE = 0.1  # of all images, as in the shares that are the default elsewhere


class Member(NamedTuple):
    """What a split needs to know of a sample.

    `stratum` is what every part should hold (or None); `source`, `part` and `fold` are those of the Sample.
    """

    id: str
    group: str
    stratum: str | None = None
    source: str = ""
    part: Part | None = None
    fold: int | None = None


def split_by_group(
    members: Sequence[Member],
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    *,
    test_groups: Iterable[str] | None = None,
    seed: int = 0,
) -> dict[str, Part]:
    """Give every sample id a part so that a group is never in two.

    `fractions` are the shares of samples in (train, val, test). Groups are put in an order fixed by `seed`
    and their names alone, then fill test and val up to their share; the rest is train. Within each stratum
    the same is done, so that each part holds every stratum that has enough groups: with three groups every
    part with a share gets one, with two train and val (or test) do, with one train. A group that has samples
    of several strata counts for the one it has most of. `test_groups` names the test groups outright; the
    others are then divided between train and val.

    Raises HemalumError for fractions that are negative or do not sum to 1, repeated ids, unknown test groups.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or fractions[0] == 0:
        raise HemalumError(f"split {fractions}: want three shares (train, val, test) that sum to 1, train > 0")
    repeated = [name for name, count in Counter(m.id for m in members).items() if count > 1]
    if repeated:
        raise HemalumError(f"sample id {repeated[0]} occurs more than once; ids must be unique to be split")
    sizes = Counter(member.group for member in members)
    parts: dict[str, Part] = {}
    if test_groups is not None:
        named = set(test_groups)
        unknown = sorted(named - set(sizes))
        if unknown:
            raise HemalumError(f"test group {unknown[0]} is not in the data; groups are {_few(sorted(sizes))}")
        parts.update(dict.fromkeys(named, "test"))
        fractions = (fractions[0], fractions[1], 0.0)
    for groups in _by_stratum(members, skip=parts).values():
        parts.update(_fill(groups, sizes, fractions, seed))
    return {member.id: parts[member.group] for member in members}


def split_by_counts(members: Sequence[Member], counts: tuple[int, int, int]) -> dict[str, Part]:
    """Give every sample id a part so that a group is never in two and the parts come nearest to `counts`.

    `counts` are samples in (train, val, test); where the data has another number of samples in all, they are
    scaled to it. Groups are taken in an order that their names alone fix; test is filled first, then val.
    """
    sizes = Counter(member.group for member in members)
    order = sorted(sizes, key=lambda group: hashlib.sha256(group.encode()).digest())
    scale = len(members) / sum(counts)
    parts: dict[str, Part] = {}
    for part, count in (("test", counts[2]), ("val", counts[1])):
        left = [group for group in order if group not in parts]
        for group in _nearest_sum(left, sizes, round(count * scale)):
            parts[group] = "test" if part == "test" else "val"
    return {member.id: parts.get(member.group, "train") for member in members}


def _nearest_sum(groups: Sequence[str], sizes: Mapping[str, int], wanted: int) -> list[str]:
    """Groups whose sizes sum up nearest to `wanted`; of equally near sums the one that is found first."""
    # each sum that can be reached, with the group that reached it first and the sum before it
    reached: dict[int, tuple[str, int] | None] = {0: None}
    for group in groups:
        for total in list(reached):
            larger = total + sizes[group]
            if larger <= 2 * wanted and larger not in reached:
                reached[larger] = (group, total)
        if wanted in reached:
            break
    total = min(reached, key=lambda total: (abs(total - wanted), total))
    chosen: list[str] = []
    while (step := reached[total]) is not None:
        chosen.append(step[0])
        total = step[1]
    return chosen


def split_hash(parts: Mapping[str, str]) -> str:
    """sha256 of the sorted "id:part" lines: equal exactly when the split is."""
    lines = "\n".join(sorted(f"{name}:{part}" for name, part in parts.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _by_stratum(members: Sequence[Member], skip: Mapping[str, Part]) -> dict[str, list[str]]:
    strata: dict[str, Counter[str]] = defaultdict(Counter)
    for member in members:
        if member.group not in skip:
            strata[member.group][member.stratum or ""] += 1
    groups: dict[str, list[str]] = defaultdict(list)
    for group, counts in sorted(strata.items()):
        most = min(counts, key=lambda name: (-counts[name], name))
        groups[most].append(group)
    return dict(sorted(groups.items()))


def _fill(
    groups: Sequence[str], sizes: Mapping[str, int], fractions: tuple[float, float, float], seed: int
) -> dict[str, Part]:
    """Walk the groups in seeded order; each goes to test, then val, while that brings the part nearer."""
    left = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    total = sum(sizes[group] for group in groups)
    wanted: list[tuple[Part, float]] = [("test", fractions[2]), ("val", fractions[1])]
    wanted = [(part, fraction / sum(fractions)) for part, fraction in wanted if fraction > 0]
    parts: dict[str, Part] = {}
    for number, (part, fraction) in enumerate(wanted):
        # train and the parts still to come keep one group each
        spare = len(left) - (len(wanted) - number)
        missing = total * fraction
        taken: list[str] = []
        for group in left:
            if len(taken) < spare and sizes[group] <= 2 * missing:
                taken.append(group)
                missing -= sizes[group]
        if not taken and spare > 0:
            # every group is larger than twice the share: the smallest comes nearest
            taken = [min(left, key=lambda group: sizes[group])]
        parts.update(dict.fromkeys(taken, part))
        left = [group for group in left if group not in parts]
    parts.update(dict.fromkeys(left, "train"))
    return parts


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


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
        assigned = rule(members, fold)
        parts = {member.id: assigned.get(member.id) for member in members}
    for name, part in parts.items():
        if part not in PARTS:
            raise HemalumError(f"image {name}: the published split does not name it; split by shares instead")
    published: dict[str, Part] = {name: part for name, part in parts.items() if part is not None}
    note = None
    if "val" not in published.values():
        train = [member for member in members if published[member.id] == "train"]
        share = min(VAL_SHARE * len(members) / max(len(train), 1), 0.5)
        if len({member.group for member in train}) > 1:
            published |= split_by_group(train, (1 - share, share, 0.0), seed=seed)
            count = sum(part == "val" for part in published.values())
            note = f"val: {counted(count, 'image')} cut from the published train part by group, seed {seed}"
    apart = groups_apart((member.group, published[member.id]) for member in members)
    return PublishedSplit(published, note, list(apart))


def one_fold_tests(members: Sequence[Member], fold: int) -> dict[str, Part]:
    """Fold `fold` is the test part, the others train; images without a fold are left out."""
    return {m.id: "test" if m.fold == fold else "train" for m in members if m.fold is not None}


def groups_apart(parts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Of each image's group and part: the groups that are in more than one part, with those; all by name."""
    parts_by_group: dict[str, set[str]] = defaultdict(set)
    for group, part in parts:
        parts_by_group[group].add(part)
    return {group: sorted(names) for group, names in sorted(parts_by_group.items()) if len(names) > 1}


def warn_of_divided(pieces: Iterable[tuple[str, str]], dst: Path) -> None:
    """Say where pieces, each the name of its image or slide and its part, of one image are in several parts.

    Scores are then of tissue that the model has learned from.
    """
    parts: dict[str, set[str]] = {}
    for source, part in pieces:
        parts.setdefault(source, set()).add(part)
    divided = [source for source, names in parts.items() if len(names) > 1]
    if divided:
        log.warning(
            "%s: pieces of %s (%s) are in more than one of train, val and test: scores are then of tissue that the "
            "model has learned from; --group source keeps them together",
            dst, counted(len(divided), "image"), printable(divided[0]),
        )  # fmt: skip
