"""In what order an expert looks at fields: the least sure of each stratum first, strata in turn, with the reason."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from hemalum.errors import HemalumError, counted, nearest
from hemalum.experiments import Top
from hemalum.review.uncertainty import FEWEST, OUTLIER, Field, outlier_scores

Ranking = Literal["entropy", "disagreement", "outliers", "random"]
RANKINGS: tuple[Ranking, ...] = get_args(Ranking)


@dataclass(frozen=True, slots=True, eq=False)
class Queued:
    """A field in the queue: its `rank` from 1 among the `of` fields of its stratum, and why it is there, in words."""

    field: Field
    rank: int
    of: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Outliers:
    """Nuclei of a field that are unusual in its stratum, by what is unusual most, and how far off the first is."""

    larger: int
    smaller: int
    uneven: int
    farthest: float

    @property
    def count(self) -> int:
        return self.larger + self.smaller + self.uneven


def rank_fields(
    fields: Iterable[Field], by: str = "entropy", *, seed: int = 0, stratified: bool = True
) -> list[Queued]:
    """All fields in the order in which they should be looked at.

    Within each stratum they are ranked `by` the entropy, the disagreement of other looks, the number of nuclei of
    unusual size or shape, or at `random`, as a control; the strata then take turns, in order of their names: the
    first of each, the second of each, and so on. Without `stratified` all are one stratum. What nobody knows the
    value of comes last; ties go by name. The order depends on nothing but the fields and the seed, at random also
    not on which other fields there are.

    Raises HemalumError for another ranking, and for two fields with one name.
    """
    if by not in RANKINGS:
        raise HemalumError(f"ranking '{by}': want {', '.join(RANKINGS)}{nearest(by, RANKINGS)}")
    strata: dict[str, list[Field]] = defaultdict(list)
    names: set[str] = set()
    for field in fields:
        if field.name in names:
            raise HemalumError(f"two fields are called '{field.name}': each needs a name of its own")
        names.add(field.name)
        strata[field.stratum if stratified else ""].append(field)
    ranked = [_rank(strata[name], by, seed, name) for name in sorted(strata)]
    longest = max(map(len, ranked), default=0)
    return [part[turn] for turn in range(longest) for part in ranked if turn < len(part)]


def top_of_strata(queue: Sequence[Queued], top: int | str | Top) -> list[Queued]:
    """The first of each stratum, a number of them or a share as "10%", rounded up; in the order of the queue.

    Of all strata together the first k are queue[:k]. Raises HemalumError for another `top`.
    """
    wanted = Top.of(top)
    return [one for one in queue if one.rank <= wanted.within(one.of)]


def _rank(fields: Sequence[Field], by: str, seed: int, stratum: str) -> list[Queued]:
    """The fields of one stratum, the first to look at first."""
    fields = sorted(fields, key=lambda field: field.name)
    outliers = _outliers(fields) if by == "outliers" else []
    keys: list[tuple[float | str, ...]]
    if by == "random":
        drawn = (f"{seed}/{field.name}".encode("utf-8", "surrogateescape") for field in fields)
        keys = [(hashlib.sha256(name).hexdigest(),) for name in drawn]
    elif by == "outliers":
        keys = [(-one.count, -one.farthest) for one in outliers]
    else:
        values = [field.entropy if by == "entropy" else field.disagreement for field in fields]
        keys = [(1.0, 0.0) if math.isnan(value) else (0.0, -value) for value in values]
    known = sum(field.area.size for field in fields) >= FEWEST
    order = sorted(range(len(fields)), key=lambda index: keys[index])  # stable: ties stay by name
    where = f" in {stratum}" if stratum else ""
    queue = []
    for rank, index in enumerate(order, 1):
        field = fields[index]
        if by == "random":
            what = f"drawn at random (seed {seed})"
        elif by == "outliers":
            what = _outlier_reason(outliers[index], field.area.size, stratum, known=known)
        else:
            what = _entropy_reason(field) if by == "entropy" else _disagreement_reason(field)
        queue.append(Queued(field, rank, len(fields), f"{what}; {_ordinal(rank)} of {len(fields)}{where}"))
    return queue


def _outliers(fields: Sequence[Field]) -> list[_Outliers]:
    """Unusual nuclei of each field, among the nuclei of all of them."""
    if not fields:
        return []
    areas, solidities = outlier_scores(
        np.concatenate([field.area for field in fields]), np.concatenate([field.solidity for field in fields])
    )
    unusual, start = [], 0
    for field in fields:
        stop = start + field.area.size
        # a nucleus can be larger, smaller or more uneven than usual; none is too even
        off = np.nan_to_num(np.stack([areas[start:stop], -areas[start:stop], -solidities[start:stop]]), nan=0.0)
        most = off.max(axis=0, initial=0.0)
        larger, smaller, uneven = np.bincount(off.argmax(axis=0)[most >= OUTLIER], minlength=3).tolist()
        unusual.append(_Outliers(larger, smaller, uneven, float(most.max(initial=0.0))))
        start = stop
    return unusual


def _entropy_reason(field: Field) -> str:
    if math.isnan(field.entropy):
        return "how sure the model is here is not known"
    of = "per nucleus" if field.of_nuclei else "per pixel"
    return f"uncertainty {field.entropy / math.log(2):.0%} {of} (100% is a coin toss)"


def _disagreement_reason(field: Field) -> str:
    if math.isnan(field.disagreement):
        return "whether its mirror images have the same nuclei is not known"
    return f"agreement of its nuclei with those of its mirror images (PQ) {1 - field.disagreement:.3f}"


def _outlier_reason(outliers: _Outliers, nuclei: int, stratum: str, *, known: bool) -> str:
    usual = f"usual in {stratum}" if stratum else "usual"
    if not known:
        return f"too few nuclei to say what is {usual}"
    if not outliers.count:
        return f"{counted(nuclei, 'nucleus')}, none of unusual size or shape"
    counts = {"larger": outliers.larger, "smaller": outliers.smaller, "more uneven in outline": outliers.uneven}
    parts = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return f"of {counted(nuclei, 'nucleus')} {parts} than {usual}, up to {outliers.farthest:.1f} robust SD"


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
