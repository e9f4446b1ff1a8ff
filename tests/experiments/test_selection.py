"""Entropy by hand, and what is chosen by it."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemalum.data.dataset import Row
from hemalum.errors import HemalumError
from hemalum.experiments.records import read_rows
from hemalum.experiments.selection import (
    ImageUncertainty,
    Top,
    choose_random,
    choose_uncertain,
    count_different,
    exhausted,
    mean_entropy,
    read_uncertainty,
)

IMAGES = [
    ImageUncertainty("a1", "liver", 0.1),
    ImageUncertainty("a2", "liver", 0.4),
    ImageUncertainty("a3", "liver", 0.3),
    ImageUncertainty("a4", "liver", 0.4),
    ImageUncertainty("b1", "brain", 0.9),
    ImageUncertainty("b2", "brain", 0.8),
]


ROW = Row("a", "a.png", "a.png", "a", "a", "liver", None, 0.5, None, "train", 1, "0" * 64)


def test_entropy_by_hand() -> None:
    assert mean_entropy(np.float32([[0.5, 0.0], [1.0, 0.5]])) == pytest.approx(math.log(2) / 2)
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert mean_entropy(np.float32([[0.25, 0.75]])) == pytest.approx(quarter)
    assert mean_entropy(np.float32([[0, 1]])) == 0
    assert math.isnan(mean_entropy(np.empty((0, 4), np.float32)))


def test_the_most_uncertain_of_each_organ() -> None:
    # the brain's are more uncertain than all of the liver's, and still only as many are taken; ties go by id
    assert [image.id for image in choose_uncertain(IMAGES, Top(count=1))] == ["b1", "a2"]
    assert [image.id for image in choose_uncertain(IMAGES, Top(percent=50))] == ["b1", "a2", "a4"]
    assert [image.id for image in choose_uncertain(IMAGES, Top(count=3))] == ["b1", "b2", "a2", "a4", "a3"]


def test_images_without_an_organ_are_one_group() -> None:
    images = [ImageUncertainty(str(n), None, n / 10) for n in range(5)]
    assert [image.id for image in choose_uncertain(images, Top(count=2))] == ["4", "3"]
    assert exhausted(images, Top(count=5)) == ["no organ"]


def test_a_share_of_an_organ_is_rounded_up_and_never_none() -> None:
    assert [Top(percent=10).within(n) for n in (1, 10, 11, 20)] == [1, 1, 2, 2]
    assert [Top(count=5).within(n) for n in (1, 10)] == [1, 5]
    assert Top(percent=7).within(100) == 7  # 7.000000000000001 in floating point


def test_organs_that_are_taken_whole_are_named() -> None:
    assert exhausted(IMAGES, Top(count=2)) == ["brain"]
    assert exhausted(IMAGES, Top(count=1)) == []


@given(st.integers(1, 4), st.integers(0, 5), st.integers(1, 3))
def test_random_takes_as_many_of_each_organ(count: int, seed: int, draws: int) -> None:
    top = Top(count=count)
    subsets = choose_random(IMAGES, top, seed, draws)
    for chosen in subsets:
        organs = sorted(str(image.organ) for image in chosen)
        assert organs == sorted(str(image.organ) for image in choose_uncertain(IMAGES, top))
        assert len({image.id for image in chosen}) == len(chosen)
    assert subsets == choose_random(IMAGES[::-1], top, seed, draws)  # not by the order of the rows
    assert subsets == choose_random(IMAGES, top, seed, draws + 2)[:draws]


@pytest.mark.parametrize("seed", range(5))
def test_draws_differ_while_there_are_enough(seed: int) -> None:
    """One of four livers and one of two brains: eight subsets."""
    subsets = choose_random(IMAGES, Top(count=1), seed, 10)
    assert count_different(subsets[:8]) == 8
    assert count_different(subsets) == 8


def test_draws_that_differ_by_themselves_stay_as_they_were() -> None:
    many = [ImageUncertainty(f"{n:02}", "liver", 0.1) for n in range(50)]
    for draw, subset in enumerate(choose_random(many, Top(count=5), 7, 4), 1):
        indices = np.random.default_rng([7, draw]).choice(50, 5, replace=False)
        assert [image.id for image in subset] == [f"{n:02}" for n in sorted(indices)]


@pytest.mark.fault
@pytest.mark.parametrize(
    "text", ["", "id,organ,entropy\na,liver\n", "id,organ,entropy\na,liver,high\n", "id,organ\na,b\n"]
)
def test_a_damaged_list_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "uncertainty.csv").write_text(text)
    with pytest.raises(HemalumError, match=r"uncertainty\.csv: .*; remove it and run again"):
        read_uncertainty(tmp_path / "uncertainty.csv", [ROW])


@pytest.mark.fault
@pytest.mark.parametrize("text", ["id,pq\na,0.5,1\n", "id,pq\na,high\n"])
def test_a_damaged_table_of_scores_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "per_image.csv").write_text(text)
    with pytest.raises(HemalumError, match=r"per_image\.csv: cannot be read \(.+\); remove its run's folder"):
        read_rows(tmp_path / "per_image.csv")


@pytest.mark.parametrize(("text", "top"), [("5", Top(count=5)), (3, Top(count=3)), ("12.5%", Top(percent=12.5))])
def test_how_many_as_written(text: int | str, top: Top) -> None:
    assert Top.of(text) == top
    assert Top.of(str(top)) == top


@pytest.mark.fault
@pytest.mark.parametrize("text", ["0", "-1", "0%", "100%", "many", "1.5", "%"])
def test_what_is_not_a_number_of_images(text: str) -> None:
    with pytest.raises(HemalumError, match="want a number of images per organ like 5, or a share like 10%"):
        Top.of(text)


def test_an_image_without_a_pixel_that_counts_is_chosen_last() -> None:
    images = [
        ImageUncertainty("a", None, math.nan),
        ImageUncertainty("b", None, 0.1),
        ImageUncertainty("c", None, 0.0),
    ]
    assert [image.id for image in choose_uncertain(images, Top.of(2))] == ["b", "c"]


def test_images_without_an_entropy_go_by_id() -> None:
    images = [ImageUncertainty(name, None, float("nan")) for name in ("c", "a", "b")]
    images.append(ImageUncertainty("d", None, 0.1))
    assert [image.id for image in choose_uncertain(images, Top(3))] == ["d", "a", "b"]
