"""Presets of augmentation: a name for its strengths, alone or with changes."""

import pytest
from pydantic import ValidationError

from hemalum.data.augmentation.settings import NO_AUGMENTATION, AugmentSettings
from hemalum.training.recipe import Recipe


def test_none_has_every_part_off() -> None:
    assert AugmentSettings.model_validate("none") == NO_AUGMENTATION
    assert {name for name, value in NO_AUGMENTATION.model_dump().items() if value} == {"scale"}
    assert NO_AUGMENTATION.scale == 1


def test_flips_has_nothing_else_and_takes_changes() -> None:
    flips = AugmentSettings.model_validate("flips")
    assert flips.flips
    assert flips.model_copy(update={"flips": False}) == NO_AUGMENTATION
    changed = AugmentSettings.model_validate({"name": "flips", "rotation": 1.0, "scale": 1.25})
    assert changed == flips.model_copy(update={"rotation": 1.0, "scale": 1.25})
    assert AugmentSettings.model_validate({}) == AugmentSettings()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("flip", "unknown augmentation 'flip', did you mean 'flips'"),
        ({"name": "all"}, "unknown augmentation 'all'; known: flips, none"),
        ({"name": "flips", "rotation": 2}, "rotation"),
        ({"name": "flips", "rotate": 1}, "rotate"),
    ],
)
def test_what_is_no_preset(content: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AugmentSettings.model_validate(content)


def test_a_recipes_preset_stands_in_the_place_of_the_systems() -> None:
    def strengths(augment: object) -> dict[str, float]:
        keys = {"name": "r", "mpp": 0.5, "system": "csra_net", "augment": augment}
        dumped = Recipe.model_validate(keys).augment.model_dump()
        return {name: value for name, value in dumped.items() if value and name != "flips"}

    assert strengths({}) == {"scale": 2.0}
    assert strengths({"stain": 0.3}) == {"scale": 2.0, "stain": 0.3}
    assert strengths("flips") == {"scale": 1.0}
    assert strengths({"name": "none", "blur": 1.0}) == {"scale": 1.0, "blur": 1.0}
