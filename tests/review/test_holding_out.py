"""Which items are held out: units that stay together, a part that never changes, and one slide alone."""

import json
from pathlib import Path

import pytest

from hemalum.errors import HemalumError
from hemalum.review.holding_out import check_holdout, hold_out
from hemalum.review.item import Item


def make_items(*names: str, group: str | None = None) -> list[Item]:
    """Items called `image` or `image x,y,w,h`."""
    return [Item(name, (64, 64), "00", source=name.partition(" ")[0], group=group) for name in names]


def windows(image: str, count: int) -> list[Item]:
    return make_items(*(f"{image} {64 * index},0,64,64" for index in range(count)))


def held_out(parts: dict[str, str]) -> set[str]:
    return {name for name, part in parts.items() if part == "test"}


@pytest.mark.parametrize(
    ("images", "share", "expected"),
    [(2, 0.25, 1), (3, 0.25, 1), (4, 0.25, 1), (8, 0.25, 2), (20, 0.25, 5), (2, 0.9, 1), (10, 0.01, 1)],
)
def test_a_share_of_the_images_and_at_least_one(images: int, share: float, expected: int, tmp_path: Path) -> None:
    parts, by_window = hold_out(tmp_path, make_items(*(f"i{number}" for number in range(images))), share)
    assert len(held_out(parts)) == expected
    assert by_window == ()


def test_windows_of_an_image_stay_together_where_there_are_several_images(tmp_path: Path) -> None:
    items = [item for image in ("a", "b", "c", "d") for item in windows(image, 3)]
    parts, by_window = hold_out(tmp_path, items, 0.5)
    assert by_window == ()
    for image in ("a", "b", "c", "d"):
        assert len({part for name, part in parts.items() if name.startswith(image)}) == 1
    assert len(held_out(parts)) == 6


def test_images_of_a_patient_stay_together(tmp_path: Path) -> None:
    items = [*make_items("a", "b", group="Anna"), *make_items("c", "d", group="Bert")]
    parts, _ = hold_out(tmp_path, items, 0.25)
    assert parts["a"] == parts["b"] != parts["c"] == parts["d"]


def test_of_one_patient_images_are_held_out(tmp_path: Path) -> None:
    parts, by_window = hold_out(tmp_path, make_items("a", "b", "c", group="Anna"), 0.25)
    assert len(held_out(parts)) == 1
    assert by_window == ()
    later, _ = hold_out(tmp_path, make_items("a", "b", "c", "d", group="Anna"), 0.25)
    assert {name: later[name] for name in parts} == parts
    assert json.loads((tmp_path / "held_out.json").read_text())["by_image"] == ["Anna"]


def test_of_one_slide_windows_are_held_out_and_stay_so(tmp_path: Path) -> None:
    first, by_window = hold_out(tmp_path, windows("slide", 4), 0.25)
    assert len(held_out(first)) == 1
    assert by_window == ("slide",)
    more, _ = hold_out(tmp_path, windows("slide", 8), 0.25)
    assert {name: more[name] for name in first} == first
    assert len(held_out(more)) == 2
    # another slide is held out whole: it says more than windows of the first
    both, by_window = hold_out(tmp_path, [*windows("slide", 8), *windows("other", 3)], 0.25)
    assert {name: both[name] for name in more} == more
    assert held_out(both) == held_out(more) | {item.name for item in windows("other", 3)}
    assert by_window == ("slide",)
    # and one that comes after it is learned from
    third, _ = hold_out(tmp_path, [*windows("slide", 8), *windows("other", 3), *windows("third", 3)], 0.25)
    assert held_out(third) == held_out(both)


def test_what_was_decided_holds_whatever_the_share_and_the_order(tmp_path: Path) -> None:
    items = make_items(*(f"i{number}" for number in range(12)))
    parts, _ = hold_out(tmp_path, items[:5], 0.2)
    for share in (0.9, 0.01):
        again, _ = hold_out(tmp_path, items[::-1], share)
        assert {name: again[name] for name in parts} == parts
    assert hold_out(tmp_path, items[:5], 0.5)[0] == parts


def test_the_choice_hangs_on_names_alone(tmp_path: Path) -> None:
    items = make_items(*(f"i{number}" for number in range(9)))
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert hold_out(tmp_path / "one", items, 0.3) == hold_out(tmp_path / "two", items[::-1], 0.3)


@pytest.mark.fault
@pytest.mark.parametrize(("count", "words"), [(1, "1 item of 1 image is"), (3, "3 items of 1 image are")])
def test_too_few(count: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(HemalumError) as caught:
        hold_out(tmp_path, windows("slide", count), 0.25)
    assert str(caught.value) == (
        f"{tmp_path}: {words} marked as reviewed; refining needs items of 2 images at least, or 4 of one, so that "
        "some can be held out"
    )
    assert not (tmp_path / "held_out.json").exists()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("part", "what", "other"), [("train", "learned from", "held out"), ("test", "held out", "learned from")]
)
def test_all_are_of_one_part(part: str, what: str, other: str, tmp_path: Path) -> None:
    noted = {"parts": {"a": part, "b": part}, "by_image": [], "by_window": []}
    (tmp_path / "held_out.json").write_text(json.dumps(noted))
    with pytest.raises(HemalumError) as caught:
        hold_out(tmp_path, make_items("a", "b"), 0.25)
    assert str(caught.value) == (
        f"{tmp_path}: all reviewed items, of 2 images, were {what} before, which does not change; review another "
        f"image, to be {other}"
    )


@pytest.mark.fault
@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(HemalumError) as caught:
        check_holdout(share)
    assert str(caught.value) == f"`holdout` is {share}: want a share between 0 and 1, such as 0.25"
