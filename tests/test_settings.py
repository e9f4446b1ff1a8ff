"""Changes to settings: key by key, by name, or as another thing."""

import re
from typing import Any

import pytest

from hemalum.errors import HemalumError
from hemalum.settings import Strict, build_named, merge

CONTENT = {
    "network": {"name": "unet", "options": {"widths": [4, 8], "norm": True}},
    "augment": "flips",
    "phases": [{"name": "one", "steps": 1}, {"name": "two", "steps": 2}],
}


def test_mappings_change_key_by_key_and_other_values_as_they_are() -> None:
    changed = merge(CONTENT, {"network": {"options": {"widths": [6]}}, "mpp": 0.5}, "r")
    assert changed["network"] == {"name": "unet", "options": {"widths": [6], "norm": True}}
    assert changed["mpp"] == 0.5
    assert CONTENT["network"] == {"name": "unet", "options": {"widths": [4, 8], "norm": True}}


def test_another_name_replaces_and_the_same_name_does_not() -> None:
    assert merge(CONTENT, {"network": {"name": "medt"}}, "r")["network"] == {"name": "medt"}
    assert merge(CONTENT, {"network": {"name": "unet"}}, "r")["network"] == CONTENT["network"]


def test_a_name_alone_is_the_mapping_of_that_name() -> None:
    assert merge(CONTENT, {"augment": {"stain": 0.3}}, "r")["augment"] == {"name": "flips", "stain": 0.3}
    assert merge(CONTENT, {"augment": {"name": "none", "stain": 0.3}}, "r")["augment"]["name"] == "none"
    assert merge(CONTENT, {"augment": "none"}, "r")["augment"] == "none"


@pytest.mark.fault
def test_named_things_of_a_list_change_by_name() -> None:
    phases = merge(CONTENT, {"phases": {"two": {"steps": 5}}}, "r")["phases"]
    assert phases == [{"name": "one", "steps": 1}, {"name": "two", "steps": 5}]
    with pytest.raises(HemalumError, match="r changes phases, 'tow', did you mean 'two'"):
        merge(CONTENT, {"phases": {"tow": {}}}, "r")


OTHERS = "by name, but it is a list of other things: give it whole"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("content", "changes", "line"),
    [
        ({}, {"phases": {"two": 5}}, "r changes phases, 'two': want a mapping of the keys that differ, not 5"),
        ({}, {"phases": {"two": None}}, "r changes phases, 'two': want a mapping of the keys that differ, not None"),
        ({}, {"phases": {2: {}}}, "r changes phases, '2'; known: one, two"),
        ({"train": ["*"]}, {"train": {"head": {}}}, f"r changes train {OTHERS}"),
        ({"phases": [{"steps": 1}]}, {"phases": {"a": {}}}, f"r changes phases {OTHERS}"),
        ({}, ["mpp"], "r: want a mapping of the keys that differ, not ['mpp']"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_said(content: dict[str, Any], changes: Any, line: str) -> None:
    with pytest.raises(HemalumError, match=f"^{re.escape(line)}$"):
        merge(CONTENT | content, changes, "r")


class Weighted(Strict):
    """Settings with an option that has to be set."""

    name: str = "weighted"
    weight: float


@pytest.mark.fault
@pytest.mark.parametrize("typo", ["weigth", "wieght", "weights", "Weight"])
def test_a_misspelled_option_that_has_to_be_set_is_named_with_the_right_one(typo: str) -> None:
    with pytest.raises(HemalumError, match=f"^loss 'weighted' has no option '{typo}', did you mean 'weight'\\?$"):
        build_named("loss", {"name": "weighted", typo: 1.0}, {"weighted": Weighted})
    with pytest.raises(HemalumError, match=r"^loss 'weighted', 'weight': Field required$"):
        build_named("loss", "weighted", {"weighted": Weighted})
