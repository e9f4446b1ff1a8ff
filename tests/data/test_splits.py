"""Splits: groups never straddle; names and seed alone decide, or the publication, completed by group and recorded."""

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.data.readers import READERS, Reader
from hemalum.data.sample import Sample
from hemalum.data.splits import (
    Member,
    Part,
    one_fold_tests,
    published_split,
    split_by_counts,
    split_by_group,
    split_hash,
    warn_of_divided,
)
from hemalum.errors import HemalumError

ROOT = Path(__file__).resolve().parents[2]

members_strategy = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from([None, "a", "b"])), min_size=1, max_size=60
).map(lambda items: [Member(f"s{i}", f"g{group}", stratum) for i, (group, stratum) in enumerate(items)])


@given(members_strategy, st.integers(0, 5))
def test_a_group_is_in_one_part(members: list[Member], seed: int) -> None:
    parts = split_by_group(members, seed=seed)
    assert set(parts) == {member.id for member in members}
    for group in {member.group for member in members}:
        assert len({parts[member.id] for member in members if member.group == group}) == 1


@given(members_strategy, st.integers(0, 5), st.randoms())
def test_order_of_the_samples_is_without_effect(members: list[Member], seed: int, random: Random) -> None:
    shuffled = list(members)
    random.shuffle(shuffled)
    one, two = split_by_group(members, seed=seed), split_by_group(shuffled, seed=seed)
    assert one == two
    assert split_hash(one) == split_hash(two)


@given(members_strategy)
def test_train_is_never_empty(members: list[Member]) -> None:
    assert "train" in split_by_group(members).values()


@given(st.integers(3, 40), st.integers(0, 9))
def test_three_groups_are_enough_for_every_part(count: int, seed: int) -> None:
    members = [Member(f"s{i}", f"g{i}") for i in range(count)]
    assert set(split_by_group(members, seed=seed).values()) == {"train", "val", "test"}


def test_shares_are_met_with_single_images() -> None:
    parts = split_by_group([Member(str(i), str(i)) for i in range(200)])
    assert Counter(parts.values()) == {"train": 140, "val": 20, "test": 40}


def test_shares_are_met_in_each_stratum() -> None:
    members = [Member(f"{stain}{i}", f"{stain}{i}", stain) for stain, n in (("a", 100), ("b", 10)) for i in range(n)]
    parts = split_by_group(members)
    assert Counter(parts[f"a{i}"] for i in range(100)) == {"train": 70, "val": 10, "test": 20}
    assert Counter(parts[f"b{i}"] for i in range(10)) == {"train": 7, "val": 1, "test": 2}


def test_one_group_larger_than_its_share() -> None:
    members = [Member(f"{group}{i}", group) for group, n in (("a", 50), ("b", 45), ("c", 40)) for i in range(n)]
    parts = split_by_group(members)
    assert set(parts.values()) == {"train", "val", "test"}


def test_two_groups_are_train_and_val() -> None:
    parts = split_by_group([Member("x", "a"), Member("y", "b")])
    assert sorted(parts.values()) == ["train", "val"]


def test_no_test_share_no_test_part() -> None:
    parts = split_by_group([Member(str(i), str(i)) for i in range(20)], (0.8, 0.2, 0.0))
    assert Counter(parts.values()) == {"train": 16, "val": 4}


def test_the_seed_matters() -> None:
    members = [Member(str(i), str(i)) for i in range(50)]
    assert split_by_group(members, seed=0) != split_by_group(members, seed=1)


def test_named_test_groups() -> None:
    members = [Member(str(i), f"g{i % 10}") for i in range(100)]
    parts = split_by_group(members, test_groups=["g3", "g7"])
    assert {m.group for m in members if parts[m.id] == "test"} == {"g3", "g7"}
    # 0.1 of 0.8 of the remaining 80 samples is 10: one group
    assert Counter(parts.values()) == {"train": 70, "val": 10, "test": 20}


def test_hash_is_that_of_the_stated_lines() -> None:
    expected = hashlib.sha256(b"a:test\nb:train\nc:val").hexdigest()
    assert split_hash({"c": "val", "a": "test", "b": "train"}) == expected
    assert split_hash({"c": "train", "a": "test", "b": "train"}) != expected


def test_adding_no_group_of_another_stratum_moves_a_group() -> None:
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
def test_faults(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HemalumError) as error:
        split_by_group([Member("a", "g0"), Member("b", "g1")], **options)
    assert str(error.value).startswith(message)


@pytest.mark.fault
def test_repeated_ids() -> None:
    with pytest.raises(HemalumError, match="sample id a occurs more than once"):
        split_by_group([Member("a", "g0"), Member("a", "g1")])


# --- as published


def published_members(groups: str, parts: str) -> list[Member]:
    """Members named by their number, with the letters' groups and the parts r(train), v(al), t(est), or -."""
    names: dict[str, Part | None] = {"r": "train", "v": "val", "t": "test", "-": None}
    return [
        Member(str(number), group, part=names[part])
        for number, (group, part) in enumerate(zip(groups, parts, strict=True))
    ]


def test_parts_of_the_files_are_kept_and_val_is_cut_by_group() -> None:
    made = published_split(published_members("aabbccddee" * 2, "rrrrrrrrtt" * 2))
    assert [name for name, part in made.parts.items() if part == "test"] == ["8", "9", "18", "19"]
    assert made.apart == []
    val = [name for name, part in made.parts.items() if part == "val"]
    assert len(val) == 4  # a tenth of 20 is 2, and no group has fewer than 4
    assert made.note == "val: 4 images cut from the published train part by group, seed 0"
    assert published_split(published_members("aabbccddee" * 2, "rrrrrrrrtt" * 2)) == made


def test_a_published_val_part_is_kept() -> None:
    made = published_split(published_members("abcd", "rrvt"))
    assert (list(made.parts.values()), made.note) == (["train", "train", "val", "test"], None)


def test_one_group_of_training_images_is_not_cut() -> None:
    assert published_split(published_members("aab", "rrt")).parts == {"0": "train", "1": "train", "2": "test"}


def test_groups_in_two_parts_are_named() -> None:
    assert published_split(published_members("abab", "rrvt")).apart == ["a", "b"]


@pytest.mark.fault
def test_an_image_without_a_part_is_refused() -> None:
    with pytest.raises(HemalumError, match="image 1: the published split does not name it; split by shares"):
        published_split(published_members("ab", "r-"))


def test_one_fold_tests() -> None:
    folds = [Member(str(n), str(n), fold=n % 3 + 1) for n in range(6)]
    assert one_fold_tests(folds, 2) == {
        "0": "train", "1": "test", "2": "train", "3": "train", "4": "test", "5": "train",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_met_where_groups_allow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.multinomial(4981 - 238, np.ones(238) / 238) + 1
    patches = [Member(f"{group}-{n}", f"image{group}") for group, size in enumerate(sizes) for n in range(size)]
    parts = split_by_counts(patches, (3842, 499, 640))
    assert Counter(parts.values()) == {"train": 3842, "val": 499, "test": 640}
    assert len({(member.group, parts[member.id]) for member in patches}) == 238


def test_counts_come_near_where_groups_do_not_allow() -> None:
    patches = [Member(f"{group}-{n}", group) for group in "abcde" for n in range(7)]
    counts = Counter(split_by_counts(patches, (25, 4, 6)).values())
    assert counts == {"train": 21, "val": 7, "test": 7}


# --- published splits through the import


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, grid_labels: np.ndarray) -> Callable[..., None]:
    """A function that registers the format "made" with images of the given groups, parts and folds."""

    def register(rows: list[tuple[str, Part | None, int | None]], **fields: Any) -> None:
        def read(path: Path) -> Iterator[Sample]:
            for number, (group, part, fold) in enumerate(rows):
                image = np.random.default_rng(number).integers(0, 256, (52, 52, 3), dtype=np.uint8)
                yield Sample(
                    image=image, instances=grid_labels, id=f"i{number}", source=f"i{number}", group=group,
                    part=part, fold=fold, mpp=fields.get("mpps", {}).get(number),
                )  # fmt: skip

        kept = {name: value for name, value in fields.items() if name != "mpps"}
        monkeypatch.setitem(READERS, "made", replace(Reader("Made up", read, "patient"), **kept))

    return register


RULE = {"published_rule": "as in the files"}
SOUND = [("a", "train", None), ("b", "train", None), ("c", "val", None), ("d", "test", None)]


def test_published_is_the_default_and_is_recorded(reader: Callable[..., None], tmp_path: Path) -> None:
    reader(SOUND, **RULE)
    dataset = import_dataset("made", tmp_path, tmp_path / "set")
    assert [row.split for row in dataset.rows] == ["train", "train", "val", "test"]
    split = yaml.safe_load((tmp_path / "set" / "dataset.yaml").read_text())["split"]
    assert split["published"] == "as in the files"
    assert split["by"] == "patient"
    assert "fractions" not in split
    assert Dataset.open(tmp_path / "set").info.split.sha256 == split["sha256"]


def test_shares_are_taken_when_asked_for(reader: Callable[..., None], tmp_path: Path) -> None:
    reader(SOUND, **RULE)
    dataset = import_dataset("made", tmp_path, tmp_path / "set", split=(0.5, 0.25, 0.25), stratify=None)
    assert dataset.info.split.published is None
    expected = split_by_group([Member(f"i{n}", g) for n, g in enumerate("abcd")], (0.5, 0.25, 0.25))
    assert {row.id: row.split for row in dataset.rows} == expected


def test_what_crosses_groups_is_taken_only_when_asked_for(
    reader: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    reader(
        [(group, part, None) for group, part in zip("abcdab", ["train"] * 3 + ["val", "test", "test"], strict=True)],
        **RULE,
    )
    dataset = import_dataset("made", tmp_path, tmp_path / "a")
    assert dataset.info.split.published is None
    assert "not split as published (2 groups in several parts, e.g. 'a'); shares 0.7, 0.1, 0.2" in caplog.text
    dataset = import_dataset("made", tmp_path, tmp_path / "b", split="published")
    assert [row.split for row in dataset.rows] == ["train"] * 3 + ["val", "test", "test"]
    assert dataset.info.split.note == "2 groups in several parts, e.g. 'a'"
    assert "does not keep groups together" in caplog.text
    reader([("a", "train", None), *SOUND[1:], ("a", "test", None)], **RULE)
    dataset = import_dataset("made", tmp_path, tmp_path / "c", split="published")
    assert dataset.info.split.note == "1 group in several parts, e.g. 'a'"


def test_half_a_publication_is_split_by_shares(
    reader: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    reader([(group, "train", None) for group in "abcde"], **RULE)
    dataset = import_dataset("made", tmp_path, tmp_path / "set")
    assert dataset.info.split.published is None
    assert dataset.info.split.counts["test"] > 0
    assert "a part of the publication is not here" in caplog.text


@pytest.mark.fault
def test_images_without_a_part_stop_only_who_asked(reader: Callable[..., None], tmp_path: Path) -> None:
    reader([*SOUND, ("e", None, None)], **RULE)
    assert import_dataset("made", tmp_path, tmp_path / "a").info.split.published is None
    with pytest.raises(HemalumError, match="image i4: the published split does not name it"):
        import_dataset("made", tmp_path, tmp_path / "b", split="published")


def test_folds(reader: Callable[..., None], tmp_path: Path) -> None:
    reader([(str(n), None, n % 3 + 1) for n in range(9)], **RULE, folds=3, published=one_fold_tests)
    first = import_dataset("made", tmp_path, tmp_path / "a")
    assert first.info.split.fold == 1
    third = import_dataset("made", tmp_path, tmp_path / "b", fold=3)
    assert [row.id for row in third.rows if row.split == "test"] == ["i2", "i5", "i8"]
    assert (third.info.split.fold, third.info.split.counts) == (3, {"train": 5, "val": 1, "test": 3})


@pytest.mark.fault
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"fold": 4}, "fold 4: format made has folds 1 to 3"),
        ({"fold": 1, "split": (0.7, 0.1, 0.2)}, "folds belong to the published split; leave out the shares or the"),
        ({"split": "random"}, "split 'random': give three shares (train, val, test), or 'published'"),
        ({"split": "published", "test_groups": ["a"]}, "names its test part itself; leave out the test groups"),
    ],
)
def test_arguments_that_do_not_go_together(
    reader: Callable[..., None], tmp_path: Path, error_line: Callable[..., str], arguments: dict[str, Any], line: str
) -> None:
    reader(SOUND, **RULE, folds=3)
    assert line in error_line(lambda: import_dataset("made", tmp_path, tmp_path / "set", **arguments))


@pytest.mark.fault
def test_formats_without_a_published_split(
    make_folder: Callable[..., Path], tmp_path: Path, error_line: Callable[..., str]
) -> None:
    root = make_folder(3)
    line = error_line(lambda: import_dataset("folder", root, tmp_path / "set", split="published"))
    assert line.startswith("format folder has no published split; formats that have one: ")
    assert "pannuke" in line
    line = error_line(lambda: import_dataset("folder", root, tmp_path / "set", fold=1))
    assert line == "fold 1: format folder has no published folds"


def test_dataset_folders_of_earlier_versions_open(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    import_dataset("folder", make_folder(5), tmp_path / "set")
    file = tmp_path / "set" / "dataset.yaml"
    content = yaml.safe_load(file.read_text())
    assert set(content["split"]) == {"by", "fractions", "seed", "sha256", "counts"}  # what they wrote
    assert Dataset.open(tmp_path / "set").info.split.published is None


def test_mixed_scales_are_said(reader: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader(SOUND, **RULE, mpps={0: 0.25, 1: 0.25, 2: 0.5})
    import_dataset("made", tmp_path, tmp_path / "set")
    assert "the images differ in scale: mpp 0.25 (2 images), 0.5 (1 image), none (1 image)" in caplog.text
    caplog.clear()
    import_dataset("made", tmp_path, tmp_path / "b", mpp=0.5)
    assert "differ in scale" not in caplog.text


def test_the_documented_command_gives_the_recorded_split(real_data: Path) -> None:
    """That of docs/systems/clin_seg_net.md, on the human images of NuInsSeg that the figures were made with."""
    page = (ROOT / "docs" / "systems" / "clin_seg_net.md").read_text(encoding="utf-8")
    command = re.search(r"import nuinsseg SRC\s+\S+ --option species=human --group image --seed (\d+)", page)
    assert command is not None
    with (real_data / "nuinsseg_human" / "index.csv").open() as stream:
        names = [Path(line["image"]).stem for line in csv.DictReader(stream)]
    members = [Member(name, name, stratum="H&E") for name in names]
    parts = split_by_group(members, (0.7, 0.1, 0.2), seed=int(command[1]))
    record = json.loads((ROOT / "benchmarks/results/systems/clin_seg_net.json").read_text())
    assert split_hash(parts) == record["data"]["split_sha256"]
    assert f"{split_hash(parts)[:16]} for the {len(names)} human images" in page


@pytest.mark.fault
def test_pieces_of_one_slide_in_several_parts_are_said(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_divided([("a.svs", "train"), ("a.svs", "train"), ("b.svs", "test")], Path("data"))
    assert caplog.messages == []
    warn_of_divided([("a.svs", "train"), ("a.svs", "val"), ("b.svs", "test")], Path("data"))
    assert caplog.messages == [
        "data: pieces of 1 image (a.svs) are in more than one of train, val and test: scores are then of tissue that "
        "the model has learned from; --group source keeps them together"
    ]
