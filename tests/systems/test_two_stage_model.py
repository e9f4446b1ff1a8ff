"""A second stage on a model that is trained already: what it starts with, what it refuses, and its control."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import hemalum
from builders.trainings import read_log
from hemalum.cli import main
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.experiments.refinement_recipe import refinement_recipe, training_recipe
from hemalum.models.file import load_card, load_model_file, save_model
from hemalum.models.model import load_model
from hemalum.training.recipe import Recipe, load_recipe
from hemalum.training.train import train


@pytest.fixture(scope="module")
def base(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model of foreground, whose range of input is [0, 1]."""
    keys = {"name": "mine", "mpp": 0.5, "tile": 32, "batch": 2, "validate_every": 2, "input_range": [0, 1]}
    system = {"name": "two_stage", "form": "base", "base": {"options": {"widths": [4, 8]}}, "steps": 4}
    return train(Recipe.model_validate(keys | {"system": system}), [mini], tmp_path_factory.mktemp("base") / "run")


def on(model: Path | str, keys: dict[str, Any] | None = None, **options: Any) -> Recipe:
    """A short training of a second stage on a model."""
    system = {"name": "two_stage", "base": {"model": str(model)}, "steps": 3, "network": {"width": 4}} | options
    shared = {"name": "enhanced", "tile": 32, "batch": 2, "validate_every": 3, "system": system}
    return Recipe.model_validate(shared | (keys or {}))


def test_the_recipe_takes_over_what_the_model_sees_and_gives(base: Path) -> None:
    recipe = on(base)
    assert (recipe.mpp, recipe.input_range, recipe.representation) == (0.5, "[0, 1]", "foreground")
    assert [phase.name for phase in recipe.phases] == ["enhance", "joint"]
    assert [phase.train for phase in recipe.phases] == [["enhance.*"], ["*", "!base.aux_heads.*"]]
    assert recipe.network.options["base"] == {"name": "unet", "options": {"widths": [4, 8]}}
    assert recipe.initial is not None
    assert (recipe.initial.part, recipe.initial.digest) == ("base", load_model(base).digest)
    typed = on("typed")
    assert typed.network.options["heads"] == [["sigmoid", 2], ["softmax", 5]]
    assert [phase.loss.name for phase in typed.phases] == ["maps", "maps"]
    assert on("fast").phases[0].loss.name == "bce"


def test_it_starts_with_the_models_weights_and_changes_none_at_first(base: Path, mini: Path, tmp_path: Path) -> None:
    recipe = on(base)
    first = recipe.model_copy(update={"phases": recipe.phases[:1]})  # the base is frozen
    card, tensors = load_model_file(train(first, [mini], tmp_path / "first"))
    for name, value in load_file(base).items():
        np.testing.assert_array_equal(tensors[f"base.{name}"], value)
    assert card.training is not None
    assert card.training.initial == load_card(base).training
    assert (card.input_range, card.mpp) == ("[0, 1]", 0.5)
    both = load_file(train(recipe, [mini], tmp_path / "both"))
    assert any(not np.array_equal(both[f"base.{name}"], value) for name, value in load_file(base).items())


def test_the_control_is_the_model_trained_for_as_long_and_chosen_from_as_many(
    base: Path, mini: Path, tmp_path: Path
) -> None:
    recipes = [on(base, form=form, joint_steps=6) for form in ("two_stage", "control")]
    assert [recipe.steps for recipe in recipes] == [9, 9]
    logs = []
    for index, recipe in enumerate(recipes):
        card = load_card(train(recipe, [mini], tmp_path / str(index)))
        logs.append([line["step"] for line in read_log(tmp_path / str(index))])
        assert card.training is not None
        assert card.training.initial == load_card(base).training
    assert logs[0] == logs[1] == [3, 3, 6, 9]  # the second phase is validated before its first step too
    assert card.network.name == "unet"


def test_a_model_of_several_maps_keeps_them_and_how_nuclei_are_separated(
    recipe: Recipe, mini: Path, tmp_path: Path
) -> None:
    separation = recipe.separation.model_copy(update={"foreground": 0.4})
    distance = train(recipe.model_copy(update={"separation": separation}), [mini], tmp_path / "base")
    card = load_card(train(on(distance), [mini], tmp_path / "run"))
    assert (card.representation, card.network.options["base"]["name"]) == ("distance", "compact")
    assert card.separation == separation


def test_the_recipe_says_all_that_it_starts_from(base: Path, tmp_path: Path) -> None:
    recipe = on(base)
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(base.read_bytes())
    assert on(copied).digest == recipe.digest  # where it lies is no part of it
    card, tensors = load_model_file(base)
    save_model(copied, card, {name: value + 1 for name, value in tensors.items()})
    assert on(copied).digest != recipe.digest
    copied.unlink()
    content = on(base).model_dump(mode="json")
    content["system"]["base"]["model"] = content["initial"]["model"] = str(copied)
    assert Recipe.model_validate(content).digest == recipe.digest  # read again without the file


@pytest.mark.fault
def test_a_model_that_changed_since_is_refused(base: Path, mini: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(base.read_bytes())
    recipe = on(copied)
    card, tensors = load_model_file(base)
    save_model(copied, card, {name: value + 1 for name, value in tensors.items()})
    with pytest.raises(HemalumError, match="is not the model that recipe enhanced was read with"):
        train(recipe, [mini], tmp_path / "run")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mpp": 0.25}, "mpp is 0.25, and .* was trained with 0.5: leave mpp out, the model decides it"),
        ({"input_range": "standardized"}, r"input_range is standardized, and .* was trained with \[0, 1\]"),
        (
            {"stain_normalization": {"method": "reinhard", "target": "train"}},
            "stain_normalization is .*, and .* was trained with none",
        ),
        ({"representation": "foreground_edge"}, "gives the maps of 'foreground' for nucleus, and the network has"),
    ],
)
def test_other_input_than_the_model_saw_is_refused(
    keys: dict[str, Any], message: str, base: Path, mini: Path, tmp_path: Path
) -> None:
    with pytest.raises(HemalumError, match=message):
        train(on(base, keys), [mini], tmp_path / "run")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{model: no.safetensors}", "system 'two_stage', 'base': no such model file: no.safetensors"),
        ("{model: fats}", r"no shipped model and no file is called 'fats', did you mean 'fast'\?"),
        ("{model: fast, name: unet}", "give the name and options of a network, or the file of a model, not both"),
        ("{modle: fast}", r"has no option 'base.modle', did you mean 'base.model'\?"),
    ],
)
def test_a_base_that_is_none_in_one_line(spec: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"name: r\nsystem: {{name: two_stage, base: {spec}}}\n")
    with pytest.raises(HemalumError, match=message) as raised:
        load_recipe(path)
    assert "\n" not in str(raised.value)


@pytest.mark.fault
def test_what_cannot_be_put_on_a_model(base: Path, mini: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="form base trains the base alone, and this one is trained"):
        on(base, form="base")
    enhanced = train(on(base), [mini], tmp_path / "run")
    with pytest.raises(ValueError, match="has a second stage already"):
        on(enhanced)
    with pytest.raises(HemalumError, match=r"recipe enhanced starts with .* itself: leave out `initial`"):
        train(on(base), [mini], tmp_path / "other", initial=enhanced)


@pytest.mark.fault
def test_a_recipe_may_name_what_it_starts_with(base: Path, mini: Path, tmp_path: Path, recipe: Recipe) -> None:
    """The key `initial` does what --initial does."""
    first = train(recipe, [mini], tmp_path / "first")
    named = Recipe.model_validate(recipe.model_dump() | {"initial": {"model": str(first)}})
    by_key = load_file(train(named, [mini], tmp_path / "by_key"))
    by_option = load_file(train(recipe, [mini], tmp_path / "by_option", initial=first))
    for name, value in by_option.items():
        np.testing.assert_array_equal(by_key[name], value)
    missing = Recipe.model_validate(recipe.model_dump() | {"initial": {"model": str(first), "part": "bse"}})
    with pytest.raises(HemalumError, match="its network has no part 'bse'; its parts are "):
        train(missing, [mini], tmp_path / "run")


def test_what_came_of_it_can_be_refined(base: Path, mini: Path, tmp_path: Path) -> None:
    """A refinement starts with the model itself, not once more with what the model had started with."""
    model = load_model(train(on(base), [mini], tmp_path / "run"))
    dataset = Dataset.open(mini)
    recipe = refinement_recipe(model, training_recipe(model), dataset, ["enhance.*"], 1e-4, 1)
    refined = load_file(train(recipe, [mini], tmp_path / "refined", initial=model.path))
    unchanged = {name for name, value in model.tensors.items() if np.array_equal(refined[name], value)}
    assert unchanged == {name for name in model.tensors if name.startswith("base.")}


def test_a_run_that_was_killed_goes_on(base: Path, mini: Path, tmp_path: Path) -> None:
    recipe = on(base)

    def stop(step: int, total: int, row: dict[str, float]) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, [mini], tmp_path / "run", on_progress=stop)
    resumed = load_file(train(recipe, [mini], tmp_path / "run", resume=True))
    uninterrupted = load_file(train(recipe, [mini], tmp_path / "uninterrupted"))
    assert all(
        torch.equal(torch.from_numpy(resumed[name]), torch.from_numpy(value)) for name, value in uninterrupted.items()
    )


@pytest.mark.fault
def test_the_verb_puts_it_on_a_model_and_trains_the_control(
    base: Path, mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "enhanced"
    words = ["enhance", str(base), "--data", str(mini), "--budget", "small", "--steps", "2"]
    assert main([*words, "-o", str(out)]) == 0
    assert str(out / "model.safetensors") in capsys.readouterr().out
    card = load_card(out / "model.safetensors")
    assert (card.name, card.network.name, card.mpp) == ("mine.two_stage", "two_stage", 0.5)
    control = hemalum.enhance(base, [mini], tmp_path / "control", control=True, budget="small", steps=2)
    cards = [card, load_card(control)]
    assert (cards[1].name, cards[1].network.name) == ("mine.control", "unet")
    assert [one.training.steps for one in cards if one.training is not None] == [4, 4]
    assert all(one.training is not None and one.training.initial is not None for one in cards)
    assert main(["enhance", str(out / "model.safetensors"), "--data", str(mini), "-o", str(tmp_path / "x")]) == 2
    assert "has a second stage already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "rate", "worse"), [("two_stage", 30.0, True), ("control", 30.0, True), ("control", 1e-9, False)]
)
def test_what_came_out_worse_than_the_model_was_is_said(
    form: str, rate: float, worse: bool, base: Path, mini: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = on(base, form=form, optimizer={"lr": rate}, steps=3)
    train(recipe, [mini], tmp_path / "run")
    lines = [
        record.getMessage() for record in caplog.records if "was better on the validation" in record.getMessage()
    ]
    assert len(lines) == worse
    if worse:
        # the loss that the model had by itself: what its own training logged as its best
        best = min(line["val_loss"] for line in read_log(base.parent))
        assert f": loss {best:.4g}, against " in lines[0]
