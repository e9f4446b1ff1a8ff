"""Which images keep their labels: counts, strata, groups, classes, and the same draw each time."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from hemalum.data.dataset import Dataset
from hemalum.data.labeled_images import LabeledImages, divide, draw_labeled, present_classes
from hemalum.data.splits import Member
from hemalum.errors import HemalumError


def members(count: int, strata: int = 1, group: int = 1) -> list[Member]:
    return [Member(f"i{n}", f"g{n // group}", f"s{n % strata}") for n in range(count)]


@pytest.mark.parametrize(
    ("images", "expected"),
    # the digest's counts: PanNuke's folds 1 and 2, 80 % of PanNuke, 80 % of CoNIC
    [(5179, [1294, 647, 323, 161]), (6320, [1580, 790, 395, 197]), (3984, [996, 498, 249, 124])],
)
def test_counts_are_the_published_ones(images: int, expected: list[int]) -> None:
    every = np.ones((images, 1), bool)
    drawn = [
        len(draw_labeled(members(images), LabeledImages(fraction=f"1/{n}"), every, ["x"])) for n in (4, 8, 16, 32)
    ]
    assert drawn == expected


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 10), st.integers(0, 3))
def test_as_many_as_asked_for_each_once_and_the_same_again(count: int, strata: int, part: int, seed: int) -> None:
    settings, every = LabeledImages(fraction=f"1/{part}", seed=seed), np.ones((count, 1), bool)
    chosen = draw_labeled(members(count, strata), settings, every, ["x"])
    assert len(chosen) == len(set(chosen)) == max(1, count // part)
    assert chosen == draw_labeled(members(count, strata), settings, every, ["x"])


def test_strata_come_in_proportion_and_the_seed_draws_others() -> None:
    many, every = members(240, 3), np.ones((240, 1), bool)
    draws = [draw_labeled(many, LabeledImages(fraction="1/8", seed=seed), every, ["x"]) for seed in range(3)]
    for chosen in draws:
        counts = Counter(many[index].stratum for index in chosen)
        assert all(abs(counts[name] - 10) <= 1 for name in ("s0", "s1", "s2"))
    assert len({tuple(chosen) for chosen in draws}) == 3


def test_each_image_is_as_likely_as_another() -> None:
    drawn = Counter(
        index
        for seed in range(600)
        for index in draw_labeled(
            members(12, 3), LabeledImages(fraction="1/4", seed=seed), np.ones((12, 1), bool), ["x"]
        )
    )
    assert all(abs(drawn[index] - 150) < 55 for index in range(12))  # 5 standard deviations


def test_a_group_is_labeled_whole_or_not_at_all() -> None:
    many = members(60, group=5)
    chosen = draw_labeled(many, LabeledImages(fraction="1/4", by="group"), np.ones((60, 1), bool), ["x"])
    sizes = Counter(many[index].group for index in chosen)
    assert list(sizes.values()) == [5, 5, 5]


def test_a_draw_without_a_rare_class_is_drawn_again() -> None:
    present = np.ones((64, 2), bool)
    present[:, 1] = False
    present[[5, 40], 1] = True
    for seed in range(20):
        chosen = draw_labeled(members(64), LabeledImages(fraction="1/32", seed=seed), present, ["common", "rare"])
        assert {5, 40} & set(chosen)


@pytest.mark.fault
def test_a_fraction_that_leaves_a_class_empty() -> None:
    present = np.eye(3, dtype=bool)[np.arange(32) % 3]
    with pytest.raises(
        HemalumError,
        match=r"labeled fraction 1/32 leaves class '[abc]' without an image: it is 1 of 32 images, and 1[01] hold",
    ):
        draw_labeled(members(32), LabeledImages(fraction="1/32"), present, ["a", "b", "c"])


def test_a_class_that_no_training_image_has_is_not_asked_for() -> None:
    present = np.array([[True, False]] * 8)
    assert len(draw_labeled(members(8), LabeledImages(fraction="1/8"), present, ["a", "never"])) == 1


@pytest.mark.parametrize("fraction", ["1/0", "2/3", "0.25", "1/"])
def test_a_fraction_is_one_over_something(fraction: str) -> None:
    with pytest.raises(ValidationError):
        LabeledImages(fraction=fraction)


def test_classes_present_are_those_of_the_class_maps(mini: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(mini).split("train")
    assert present_classes(dataset, None, 1).all()
    assert present_classes(dataset, np.ones(256, np.int32), 1).all()
    folder = tmp_path / "classes"
    folder.mkdir()
    rows = []
    for number, row in enumerate(dataset.rows):
        classes = np.zeros((64, 64), np.uint8)
        classes[:8] = 3 if number == 0 else 1
        Image.fromarray(classes).save(folder / f"{row.id}.png")
        rows.append(type(row)(**{f: getattr(row, f) for f in row.__slots__} | {"classes": f"classes/{row.id}.png"}))
    typed = Dataset(tmp_path, dataset.info, tuple(rows))
    class_map = np.zeros(256, np.int32)
    class_map[[1, 3]] = [2, 1]
    expected = np.array([[True, False]] + [[False, True]] * (len(rows) - 1))
    np.testing.assert_array_equal(present_classes(typed, class_map, 2), expected)


def test_labeled_and_others_are_the_whole(mini: Path) -> None:
    dataset = Dataset.open(mini).split("train")
    labeled, others = divide(dataset, LabeledImages(fraction="1/3"), present_classes(dataset, None, 1), ["nucleus"])
    assert len(labeled) == len(dataset) // 3
    assert sorted(row.id for row in (*labeled.rows, *others.rows)) == sorted(row.id for row in dataset.rows)


def test_a_random_draw_is_uniform_and_passes_no_class_by() -> None:
    many = members(12, 3)
    rare = np.zeros((12, 1), bool)
    rare[0] = True  # a stratified draw of 3 would always hold it
    drawn = Counter(
        index
        for seed in range(800)
        for index in draw_labeled(many, LabeledImages(fraction="1/4", draw="random", seed=seed), rare, ["x"])
    )
    assert all(abs(drawn[index] - 200) < 62 for index in range(12))  # 5 standard deviations
    counts = Counter(
        tuple(sorted(Counter(many[index].stratum for index in chosen).values()))
        for seed in range(400)
        for chosen in [draw_labeled(many, LabeledImages(count=3, draw="random", seed=seed), rare, ["x"])]
    )
    # of 220 triples 64 hold a stratum each: 29 %, which a stratified draw makes 100 %
    assert abs(counts[(1, 1, 1)] / 400 - 64 / 220) < 0.12


def test_trainings_take_turns_at_draws() -> None:
    many, every = members(64), np.ones((64, 1), bool)

    def draw(training_seed: int, draws: int, seed: int = 0) -> list[int]:
        return draw_labeled(many, LabeledImages(count=8, draws=draws, seed=seed), every, ["x"], training_seed)

    assert draw(1, 1) == draw(2, 1) == draw(9, 1)
    assert len({tuple(draw(seed, 3)) for seed in range(1, 10)}) == 3
    assert draw(1, 3) == draw(4, 3) == draw(7, 3) == draw(1, 1, seed=1)


@pytest.mark.fault
def test_a_count_is_so_many() -> None:
    every = np.ones((10, 1), bool)
    assert len(draw_labeled(members(10), LabeledImages(count=4), every, ["x"])) == 4
    with pytest.raises(HemalumError, match="labeled count 11: there are 10 training images"):
        draw_labeled(members(10), LabeledImages(count=11), every, ["x"])


@pytest.mark.fault
def test_a_list_names_the_labeled_images(mini: Path, tmp_path: Path) -> None:
    dataset, path = Dataset.open(mini).split("train"), tmp_path / "labeled.txt"
    first, second = dataset.rows[0].id, dataset.rows[1].id
    path.write_text(f"# mine\n{first}  # the best\n\nmini/{second}\nother/{second}x\n")
    labeled, others = divide(dataset, LabeledImages(file=str(path)), np.ones((len(dataset), 1), bool), ["x"])
    assert [row.id for row in labeled.rows] == [first, second]
    assert len(others) == len(dataset) - 2
    held = Dataset.open(mini).split("test").rows[0].id
    for text, message in (
        (f"{first}\n{held}\n", rf"labeled.txt, line 2: '{held}' is none of the training images of mini"),
        ("# none\n", "labeled.txt: names no training image of mini"),
        ("other/x\n", "labeled.txt: names no training image of mini"),
    ):
        path.write_text(text)
        with pytest.raises(HemalumError, match=message):
            divide(dataset, LabeledImages(file=str(path)), np.ones((len(dataset), 1), bool), ["x"])
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HemalumError, match=r"is not utf-16 throughout \(.*\); save it as UTF-8$"):
        divide(dataset, LabeledImages(file=str(path)), np.ones((len(dataset), 1), bool), ["x"])
    with pytest.raises(HemalumError, match=r"labeled: no such list of images: nowhere\.txt"):
        divide(dataset, LabeledImages(file="nowhere.txt"), np.ones((len(dataset), 1), bool), ["x"])
