"""The order in which fields are looked at: against sorting by loops, and the reasons in words."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemalum.errors import HemalumError
from hemalum.experiments.selection import ImageUncertainty, Top, choose_uncertain
from hemalum.review import RANKINGS, Field, Queued, rank_fields, top_of_strata


def field(
    name: str, stratum: str = "", entropy: float = 0.1, disagreement: float = 0.1,
    areas: tuple[float, ...] = (), solidity: tuple[float, ...] | None = None, of_nuclei: bool = False,
) -> Field:  # fmt: skip
    shape = np.array([0.9] * len(areas) if solidity is None else solidity)
    return Field(name, stratum, entropy, disagreement, np.array(areas, float), shape, of_nuclei=of_nuclei)


def names(queue: list[Queued]) -> list[str]:
    return [one.field.name for one in queue]


FIELDS = [
    field("a", "liver", 0.2), field("b", "liver", 0.5), field("c", "liver", math.nan), field("d", "brain", 0.3),
    field("e", "liver", 0.4), field("f", "brain", 0.3), field("g", "", 0.01),
]  # fmt: skip


def test_the_queue_by_hand() -> None:
    queue = rank_fields(FIELDS)
    # no stratum, brain, liver take turns; ties by name; what nobody knows last
    assert names(queue) == ["g", "d", "b", "f", "e", "a", "c"]
    assert [(one.rank, one.of) for one in queue] == [(1, 1), (1, 2), (1, 4), (2, 2), (2, 4), (3, 4), (4, 4)]
    assert names(rank_fields(FIELDS, stratified=False)) == ["b", "e", "d", "f", "a", "g", "c"]
    assert names(top_of_strata(queue, 1)) == ["g", "d", "b"]
    assert names(top_of_strata(queue, "50%")) == ["g", "d", "b", "e"]
    assert rank_fields([]) == []


fields = st.lists(
    st.tuples(st.sampled_from(["", "brain", "liver", "skin"]), st.integers(0, 5), st.booleans()), max_size=20
)


@settings(max_examples=60, deadline=None)
@given(fields, st.sampled_from(RANKINGS), st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_order_hangs_on_nothing_but_the_fields(
    rows: list[tuple[str, int, bool]], by: str, seed: int, rng: random.Random
) -> None:
    made = [
        field(f"i{k}", stratum, math.nan if unknown else value / 10, math.nan if unknown else value / 10)
        for k, (stratum, value, unknown) in enumerate(rows)
    ]
    queue = rank_fields(made, by, seed=seed)
    assert sorted(names(queue)) == sorted(one.name for one in made)
    mixed = list(made)
    rng.shuffle(mixed)
    assert names(rank_fields(mixed, by, seed=seed)) == names(queue)
    # strata take turns: of each as many have come as of any other, unless it has no more
    for turn in range(len(queue)):
        seen: dict[str, int] = {}
        for one in queue[: turn + 1]:
            seen[one.field.stratum] = seen.get(one.field.stratum, 0) + 1
            assert seen[one.field.stratum] == one.rank
        for one in queue:
            assert seen.get(one.field.stratum, 0) >= min(max(seen.values()) - 1, one.of)
    if by == "entropy":  # what ClinSegNet chooses, organ by organ
        images = [ImageUncertainty(one.name, one.stratum or None, one.entropy) for one in made]
        for top in (1, "30%"):
            mine = sorted(names(top_of_strata(queue, top)))
            assert mine == sorted(image.id for image in choose_uncertain(images, Top.of(top)))


def test_random_is_seeded_and_does_not_move_when_fields_come() -> None:
    made = [field(f"i{k}") for k in range(60)]
    first = names(rank_fields(made, "random", seed=1))
    assert first == names(rank_fields(made, "random", seed=1))
    assert first != names(rank_fields(made, "random", seed=2))
    assert first != names(rank_fields(made))
    more = names(rank_fields([*made, field("new")], "random", seed=1))
    assert [name for name in more if name != "new"] == first
    # each is as often in the first half as in the second
    early = np.array(
        [[names(rank_fields(made, "random", seed=s)).index(f"i{k}") < 30 for k in range(5)] for s in range(200)]
    )
    assert early.mean(axis=0) == pytest.approx([0.5] * 5, abs=0.12)


def test_outliers_are_those_of_the_stratum() -> None:
    usual = (40.0, 42.0, 44.0, 46.0, 48.0)
    liver = [field("a", "liver", areas=usual), field("b", "liver", areas=(*usual, 900.0, 2.0, 1.0))]
    # large nuclei are usual in this one; one nucleus is indented
    skin = [
        field("c", "skin", areas=(900.0, 910.0, 920.0, 930.0, 940.0)),
        field(
            "d", "skin", areas=(900.0, 905.0, 915.0, 925.0, 935.0, 920.0), solidity=(0.9, 0.91, 0.92, 0.9, 0.91, 0.4)
        ),
    ]
    few = [field("e", "spleen", areas=(1.0, 1000.0))]
    queue = rank_fields([*liver, *skin, *few], "outliers")
    assert names(queue) == ["b", "d", "e", "a", "c"]
    reasons = {one.field.name: one.reason for one in queue}
    assert reasons["b"].startswith("of 8 nuclei 1 larger, 2 smaller than usual in liver, up to ")
    assert reasons["b"].endswith(" robust SD; 1st of 2 in liver")
    assert reasons["d"].startswith("of 6 nuclei 1 more uneven in outline than usual in skin, up to ")
    assert reasons["a"] == "5 nuclei, none of unusual size or shape; 2nd of 2 in liver"
    assert reasons["e"] == "too few nuclei to say what is usual in spleen; 1st of 1 in spleen"


def test_reasons_in_words() -> None:
    made = [
        field("a", "liver", 0.2142, 0.25), field("b", "liver", math.nan, math.nan),
        field("c", "slide", 0.3, of_nuclei=True),
    ]  # fmt: skip
    sure = {one.field.name: one.reason for one in rank_fields(made)}
    assert sure == {
        "a": "uncertainty 31% per pixel (100% is a coin toss); 1st of 2 in liver",
        "b": "how sure the model is here is not known; 2nd of 2 in liver",
        "c": "uncertainty 43% per nucleus (100% is a coin toss); 1st of 1 in slide",
    }
    flips = {one.field.name: one.reason for one in rank_fields(made, "disagreement", stratified=False)}
    assert flips["a"] == "agreement of its nuclei with those of its mirror images (PQ) 0.750; 1st of 3"
    assert flips["b"] == "whether its mirror images have the same nuclei is not known; 3rd of 3"
    drawn = rank_fields([field(f"i{k}") for k in range(25)], "random", seed=7)
    assert drawn[0].reason == "drawn at random (seed 7); 1st of 25"
    assert [one.reason.split("; ")[1].split(" ")[0] for one in drawn[10:13]] == ["11th", "12th", "13th"]
    assert drawn[21].reason.endswith("; 22nd of 25")


@pytest.mark.fault
def test_what_cannot_be_ranked() -> None:
    with pytest.raises(
        HemalumError, match=r"ranking 'entropie': want entropy, disagreement, outliers, random, did you"
    ):
        rank_fields(FIELDS, "entropie")
    with pytest.raises(HemalumError, match="two fields are called 'a': each needs a name of its own"):
        rank_fields([*FIELDS, field("a", "skin")])
    with pytest.raises(HemalumError, match="top '0': want a number of images per organ"):
        top_of_strata(rank_fields(FIELDS), 0)
