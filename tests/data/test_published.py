"""Published splits: taken where asked or where they keep groups together, completed by group, recorded."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import yaml

from hemalum.data.dataset import Dataset
from hemalum.data.formats import READERS, Reader, looks_like
from hemalum.data.importing import import_dataset
from hemalum.data.published import one_fold_tests, published_split
from hemalum.data.sample import Sample
from hemalum.data.splits import Member, split_by_counts, split_by_group
from hemalum.errors import HemalumError


def members(groups: str, parts: str) -> list[Member]:
    """Members named by their number, with the letters' groups and the parts r(train), v(al), t(est), or -."""
    names = {"r": "train", "v": "val", "t": "test", "-": None}
    return [
        Member(str(number), group, part=names[part])
        for number, (group, part) in enumerate(zip(groups, parts, strict=True))
    ]


def test_parts_of_the_files_are_kept_and_val_is_cut_by_group():
    made = published_split(members("aabbccddee" * 2, "rrrrrrrrtt" * 2))
    assert [name for name, part in made.parts.items() if part == "test"] == ["8", "9", "18", "19"]
    assert made.apart == []
    val = [name for name, part in made.parts.items() if part == "val"]
    assert len(val) == 4  # a tenth of 20 is 2, and no group has fewer than 4
    assert made.note == "val: 4 images cut from the published train part by group, seed 0"
    assert published_split(members("aabbccddee" * 2, "rrrrrrrrtt" * 2)) == made


def test_a_published_val_part_is_kept():
    made = published_split(members("abcd", "rrvt"))
    assert (list(made.parts.values()), made.note) == (["train", "train", "val", "test"], None)


def test_one_group_of_training_images_is_not_cut():
    assert published_split(members("aab", "rrt")).parts == {"0": "train", "1": "train", "2": "test"}


def test_groups_in_two_parts_are_named():
    assert published_split(members("abab", "rrvt")).apart == ["a", "b"]


def test_an_image_without_a_part_is_refused():
    with pytest.raises(HemalumError, match="image 1: the published split does not name it; split by shares"):
        published_split(members("ab", "r-"))


def test_one_fold_tests():
    folds = [Member(str(n), str(n), fold=n % 3 + 1) for n in range(6)]
    assert one_fold_tests(folds, 2) == {
        "0": "train", "1": "test", "2": "train", "3": "train", "4": "test", "5": "train",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_met_where_groups_allow(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.multinomial(4981 - 238, np.ones(238) / 238) + 1
    patches = [Member(f"{group}-{n}", f"image{group}") for group, size in enumerate(sizes) for n in range(size)]
    parts = split_by_counts(patches, (3842, 499, 640))
    assert Counter(parts.values()) == {"train": 3842, "val": 499, "test": 640}
    assert len({(member.group, parts[member.id]) for member in patches}) == 238


def test_counts_come_near_where_groups_do_not_allow():
    patches = [Member(f"{group}-{n}", group) for group in "abcde" for n in range(7)]
    counts = Counter(split_by_counts(patches, (25, 4, 6)).values())
    assert counts == {"train": 21, "val": 7, "test": 7}


# --- through the import


@pytest.fixture
def reader(monkeypatch, grid_labels):
    """A function that registers the format "made" with images of the given groups, parts and folds."""

    def register(rows: list[tuple[str, str | None, int | None]], **fields: object) -> None:
        def read(path):
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


def test_published_is_the_default_and_is_recorded(reader, tmp_path):
    reader(SOUND, **RULE)
    dataset = import_dataset("made", tmp_path, tmp_path / "set")
    assert [row.split for row in dataset.rows] == ["train", "train", "val", "test"]
    split = yaml.safe_load((tmp_path / "set" / "dataset.yaml").read_text())["split"]
    assert split["published"] == "as in the files"
    assert split["by"] == "patient"
    assert "fractions" not in split
    assert Dataset.open(tmp_path / "set").info.split.sha256 == split["sha256"]


def test_shares_are_taken_when_asked_for(reader, tmp_path):
    reader(SOUND, **RULE)
    dataset = import_dataset("made", tmp_path, tmp_path / "set", split=(0.5, 0.25, 0.25), stratify=None)
    assert dataset.info.split.published is None
    expected = split_by_group([Member(f"i{n}", g) for n, g in enumerate("abcd")], (0.5, 0.25, 0.25))
    assert {row.id: row.split for row in dataset.rows} == expected


def test_what_crosses_groups_is_taken_only_when_asked_for(reader, tmp_path, caplog):
    caplog.set_level("INFO")
    reader(
        [(group, part, None) for group, part in zip("abcdab", ["train"] * 3 + ["val", "test", "test"], strict=True)],
        **RULE,
    )
    dataset = import_dataset("made", tmp_path, tmp_path / "a")
    assert dataset.info.split.published is None
    assert "not split as published (2 groups are in several parts, e.g. 'a'); shares 0.7, 0.1, 0.2" in caplog.text
    dataset = import_dataset("made", tmp_path, tmp_path / "b", split="published")
    assert [row.split for row in dataset.rows] == ["train"] * 3 + ["val", "test", "test"]
    assert dataset.info.split.note == "2 groups are in several parts, e.g. 'a'"
    assert "does not keep groups together" in caplog.text


def test_half_a_publication_is_split_by_shares(reader, tmp_path, caplog):
    caplog.set_level("INFO")
    reader([(group, "train", None) for group in "abcde"], **RULE)
    dataset = import_dataset("made", tmp_path, tmp_path / "set")
    assert dataset.info.split.published is None
    assert dataset.info.split.counts["test"] > 0
    assert "a part of the publication is not here" in caplog.text


def test_images_without_a_part_stop_only_who_asked(reader, tmp_path):
    reader([*SOUND, ("e", None, None)], **RULE)
    assert import_dataset("made", tmp_path, tmp_path / "a").info.split.published is None
    with pytest.raises(HemalumError, match="image i4: the published split does not name it"):
        import_dataset("made", tmp_path, tmp_path / "b", split="published")


def test_folds(reader, tmp_path):
    reader([(str(n), None, n % 3 + 1) for n in range(9)], **RULE, folds=3, published=one_fold_tests)
    first = import_dataset("made", tmp_path, tmp_path / "a")
    assert first.info.split.fold == 1
    third = import_dataset("made", tmp_path, tmp_path / "b", fold=3)
    assert [row.id for row in third.rows if row.split == "test"] == ["i2", "i5", "i8"]
    assert (third.info.split.fold, third.info.split.counts) == (3, {"train": 5, "val": 1, "test": 3})


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"fold": 4}, "fold 4: format made has folds 1 to 3"),
        ({"fold": 1, "split": (0.7, 0.1, 0.2)}, "folds belong to the published split; leave out the shares or the"),
        ({"split": "random"}, "split 'random': give three shares (train, val, test), or 'published'"),
        ({"split": "published", "test_groups": ["a"]}, "names its test part itself; leave out the test groups"),
    ],
)
def test_arguments_that_do_not_go_together(reader, tmp_path, error_line, arguments, line):
    reader(SOUND, **RULE, folds=3)
    assert line in error_line(lambda: import_dataset("made", tmp_path, tmp_path / "set", **arguments))


def test_formats_without_a_published_split(make_folder, tmp_path, error_line):
    root = make_folder(3)
    line = error_line(lambda: import_dataset("folder", root, tmp_path / "set", split="published"))
    assert line.startswith("format folder has no published split; formats that have one: ")
    assert "pannuke" in line
    line = error_line(lambda: import_dataset("folder", root, tmp_path / "set", fold=1))
    assert line == "fold 1: format folder has no published folds"


def test_dataset_folders_of_earlier_versions_open(make_folder, tmp_path):
    import_dataset("folder", make_folder(5), tmp_path / "set")
    file = tmp_path / "set" / "dataset.yaml"
    content = yaml.safe_load(file.read_text())
    assert set(content["split"]) == {"by", "fractions", "seed", "sha256", "counts"}  # what they wrote
    assert Dataset.open(tmp_path / "set").info.split.published is None


def test_mixed_scales_are_said(reader, tmp_path, caplog):
    reader(SOUND, **RULE, mpps={0: 0.25, 1: 0.25, 2: 0.5})
    import_dataset("made", tmp_path, tmp_path / "set")
    assert "the images differ in scale: mpp 0.25 (2 images), 0.5 (1 images), none (1 images)" in caplog.text
    caplog.clear()
    import_dataset("made", tmp_path, tmp_path / "b", mpp=0.5)
    assert "differ in scale" not in caplog.text


# --- a set given to the wrong reader


def test_the_error_says_which_format_it_looks_like(tmp_path, error_line):
    (tmp_path / "test_same" / "Labels").mkdir(parents=True)
    (tmp_path / "lizard_labels" / "Lizard_Labels").mkdir(parents=True)
    line = error_line(lambda: import_dataset("consep", tmp_path, tmp_path / "set"))
    assert line == (
        f"{tmp_path}: no Train/Images and no Test/Images; want the unpacked CoNSeP archive; "
        "it looks like format 'lizard' or 'kumar'"
    )
    assert not (tmp_path / "set").exists()


def test_the_right_format_is_not_contradicted(tmp_path, error_line):
    (tmp_path / "test_same" / "Labels").mkdir(parents=True)
    assert "looks like" not in error_line(lambda: import_dataset("kumar", tmp_path, tmp_path / "set"))


@pytest.mark.parametrize("name", [name for name in READERS if READERS[name].markers])
def test_every_marker_is_found(tmp_path, name):
    for number, marker in enumerate(READERS[name].markers):
        root = tmp_path / str(number)
        (root / re.sub(r"\[(.)[^]]*]", r"\1", marker).replace("*", "1")).mkdir(parents=True)
        assert name in looks_like(root)
    assert looks_like(tmp_path / "nothing") == []
