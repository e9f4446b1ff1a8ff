"""What a network sees of an image: standardized, or in [0, 1] as it is; the same in training, validation and use."""

from pathlib import Path

import numpy as np
import pytest
import torch

from builders.trainings import make_context
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.experiments.reproduced_tables import _recipe_text
from hemalum.models.file import load_model_file
from hemalum.models.map_model import build_map_model
from hemalum.reports.tables import card_pairs
from hemalum.reports.training.page import write_run_report
from hemalum.training.loader import TrainLoader
from hemalum.training.recipe import Recipe, load_recipe
from hemalum.training.train import train
from hemalum.training.validation import Validation


@pytest.mark.parametrize("channels", ["RGB", "gray"])
@pytest.mark.parametrize("augment", ["none", {"brightness": 0.1}])
def test_all_that_is_trained_and_validated_on_is_in_the_range(
    channels: str, augment: object, recipe: Recipe, mini: Path
) -> None:
    content = recipe.model_dump() | {"input": channels, "augment": augment}
    ranges = {
        name: Recipe.model_validate(content | {"input_range": value})
        for name, value in (("standardized", "standardized"), ("unit", [0, 1]))
    }
    dataset = Dataset.open(mini)
    batches, validated = {}, {}
    for name, one in ranges.items():
        context = make_context(one)
        batches[name] = TrainLoader(context, [dataset.split("train")]).batch(0).images
        validated[name] = Validation(context, [dataset.split("val")]).images[0].pixels
    for images in (batches, validated):
        assert images["unit"].min() >= 0
        assert images["unit"].max() <= 1
        torch.testing.assert_close(images["standardized"], (images["unit"] - 0.5) / 0.25, atol=1e-5, rtol=1e-5)


def test_the_model_at_work_sees_what_the_training_saw(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    in_unit = Recipe.model_validate(recipe.model_dump() | {"input_range": [0, 1], "phases": recipe.phases[:1]})
    assert in_unit.digest != Recipe.model_validate(in_unit.model_dump() | {"input_range": "standardized"}).digest
    card, tensors = load_model_file(train(in_unit, [mini], tmp_path / "run"))
    assert (card.input_range, card.mean, card.std) == ("[0, 1]", (0, 0, 0), (1, 1, 1))
    assert card.training is not None
    assert card.training.settings is not None
    assert card.training.settings["input_range"] == "[0, 1]"
    assert ("input", "RGB in [0, 1]") in card_pairs(card)
    assert "RGB in [0, 1]" in write_run_report(tmp_path / "run").read_text(encoding="utf-8")
    model = build_map_model(card, tensors)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        torch.testing.assert_close(model(torch.from_numpy(pixels)), model.network(x).sigmoid())


def test_reproduce_says_what_the_input_was(recipe: Recipe) -> None:
    assert _recipe_text(recipe, "input") == "RGB, standardized"
    assert _recipe_text(recipe.model_copy(update={"input_range": "[0, 1]"}), "input") == "RGB in [0, 1]"


@pytest.mark.fault
@pytest.mark.parametrize("value", ["standardised", "[0, 255]"])
def test_another_range_is_refused(value: str, recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        f"name: r\nmpp: 0.5\nnetwork: {{name: unet}}\ninput_range: {value}\n"
        "phases: [{name: a, until: {steps: 1}}]"
    )
    with pytest.raises(HemalumError, match=r"'input_range': want \[0, 1\] or standardized, not ") as raised:
        load_recipe(path)
    assert value != "standardised" or "did you mean 'standardized'?" in str(raised.value)


def test_early_stopping_sees_every_validation_image_unless_told_otherwise(recipe: Recipe) -> None:
    phase = recipe.phases[0]
    until = phase.until.model_copy(update={"patience": 2})
    early = recipe.model_copy(update={"phases": [phase.model_copy(update={"until": until})]})
    assert recipe.most_validation_images == 60
    assert early.most_validation_images is None
    assert early.model_copy(update={"validation_images": 7}).most_validation_images == 7


@pytest.mark.parametrize(("limit", "seen"), [(None, 70), (60, 60)])
def test_all_seventy_of_seventy_are_validated_on(limit: int | None, seen: int, recipe: Recipe, mini: Path) -> None:
    phase = recipe.phases[0]
    until = phase.until.model_copy(update={"patience": 2})
    phases = [phase.model_copy(update={"until": until})]
    early = recipe.model_copy(update={"phases": phases, "validation_images": limit})
    dataset = Dataset.open(mini)
    val = dataset.split("val")
    many = type(val)(**{**{name: getattr(val, name) for name in val.__dataclass_fields__}, "rows": val.rows[:1] * 70})
    assert len(Validation(make_context(early), [many]).images) == seen
