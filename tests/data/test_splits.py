"""Splits: groups never straddle, the result depends on names and seed alone."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemalum.data.splits import Member, split_by_group, split_hash
from hemalum.errors import HemalumError

members_strategy = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from([None, "a", "b"])), min_size=1, max_size=60
).map(lambda items: [Member(f"s{i}", f"g{group}", stratum) for i, (group, stratum) in enumerate(items)])


@given(members_strategy, st.integers(0, 5))
def test_a_group_is_in_one_part(members, seed):
    parts = split_by_group(members, seed=seed)
    assert set(parts) == {member.id for member in members}
    for group in {member.group for member in members}:
        assert len({parts[member.id] for member in members if member.group == group}) == 1


@given(members_strategy, st.integers(0, 5), st.randoms())
def test_order_of_the_samples_is_without_effect(members, seed, random):
    shuffled = list(members)
    random.shuffle(shuffled)
    one, two = split_by_group(members, seed=seed), split_by_group(shuffled, seed=seed)
    assert one == two
    assert split_hash(one) == split_hash(two)


@given(members_strategy)
def test_train_is_never_empty(members):
    assert "train" in split_by_group(members).values()


@given(st.integers(3, 40), st.integers(0, 9))
def test_three_groups_are_enough_for_every_part(count, seed):
    members = [Member(f"s{i}", f"g{i}") for i in range(count)]
    assert set(split_by_group(members, seed=seed).values()) == {"train", "val", "test"}


def test_shares_are_met_with_single_images():
    parts = split_by_group([Member(str(i), str(i)) for i in range(200)])
    assert Counter(parts.values()) == {"train": 140, "val": 20, "test": 40}


def test_shares_are_met_in_each_stratum():
    members = [Member(f"{stain}{i}", f"{stain}{i}", stain) for stain, n in (("a", 100), ("b", 10)) for i in range(n)]
    parts = split_by_group(members)
    assert Counter(parts[f"a{i}"] for i in range(100)) == {"train": 70, "val": 10, "test": 20}
    assert Counter(parts[f"b{i}"] for i in range(10)) == {"train": 7, "val": 1, "test": 2}


def test_one_group_larger_than_its_share():
    members = [Member(f"{group}{i}", group) for group, n in (("a", 50), ("b", 45), ("c", 40)) for i in range(n)]
    parts = split_by_group(members)
    assert set(parts.values()) == {"train", "val", "test"}


def test_two_groups_are_train_and_val():
    parts = split_by_group([Member("x", "a"), Member("y", "b")])
    assert sorted(parts.values()) == ["train", "val"]


def test_no_test_share_no_test_part():
    parts = split_by_group([Member(str(i), str(i)) for i in range(20)], (0.8, 0.2, 0.0))
    assert Counter(parts.values()) == {"train": 16, "val": 4}


def test_the_seed_matters():
    members = [Member(str(i), str(i)) for i in range(50)]
    assert split_by_group(members, seed=0) != split_by_group(members, seed=1)


def test_named_test_groups():
    members = [Member(str(i), f"g{i % 10}") for i in range(100)]
    parts = split_by_group(members, test_groups=["g3", "g7"])
    assert {m.group for m in members if parts[m.id] == "test"} == {"g3", "g7"}
    # 0.1 of 0.8 of the remaining 80 samples is 10: one group
    assert Counter(parts.values()) == {"train": 70, "val": 10, "test": 20}


def test_hash_is_that_of_the_stated_lines():
    expected = hashlib.sha256(b"a:test\nb:train\nc:val").hexdigest()
    assert split_hash({"c": "val", "a": "test", "b": "train"}) == expected
    assert split_hash({"c": "train", "a": "test", "b": "train"}) != expected


def test_adding_no_group_of_another_stratum_moves_a_group():
    """A stratum is split by itself: new images of another stain leave the old ones where they were."""
    old = [Member(f"a{i}", f"a{i}", "a") for i in range(30)]
    new = [Member(f"b{i}", f"b{i}", "b") for i in range(9)]
    before, after = split_by_group(old), split_by_group(old + new)
    assert all(after[name] == part for name, part in before.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": (0.5, 0.1, 0.2)}, "split (0.5, 0.1, 0.2): want three shares (train, val, test) that sum"),
        ({"fractions": (1.2, -0.1, -0.1)}, "split (1.2, -0.1, -0.1): want three shares"),
        ({"fractions": (0.0, 0.5, 0.5)}, "split (0.0, 0.5, 0.5): want three shares"),
        ({"test_groups": ["nobody"]}, "test group nobody is not in the data; groups are g0, g1"),
    ],
)
def test_faults(options, message):
    with pytest.raises(HemalumError) as error:
        split_by_group([Member("a", "g0"), Member("b", "g1")], **options)
    assert str(error.value).startswith(message)


def test_repeated_ids():
    with pytest.raises(HemalumError, match="sample id a occurs more than once"):
        split_by_group([Member("a", "g0"), Member("a", "g1")])
