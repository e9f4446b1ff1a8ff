"""Recipes of systems, variants, and rules by which phases end."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from builders.trainings import make_context
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.experiments.plan import one_budget, plan_methods
from hemalum.systems import SYSTEMS, SystemSettings
from hemalum.systems.phases import Phase, StopCriteria
from hemalum.training.data_spec import gather_data_spec
from hemalum.training.loader import TrainLoader
from hemalum.training.recipe import Recipe, load_recipe, open_recipe, open_recipes, recipe_variants
from hemalum.training.train import train


class Pair(SystemSettings):
    """A system of two phases."""

    name: Literal["pair"] = "pair"
    width: int = 8
    steps: int = 6

    def to_recipe(self) -> dict[str, Any]:
        return {
            "network": {"name": "compact", "options": {"widths": [self.width, 12], "depths": [0, 1]}},
            "representation": "foreground",
            "ema": 0.5,
            "phases": [
                Phase(name="one", loss="bce", until=StopCriteria(steps=self.steps)),
                Phase(name="two", train=["head.*"], until=StopCriteria(steps=self.steps)),
            ],
        }


@pytest.fixture(autouse=True)
def _pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "pair", Pair)


PAIR = """
name: p
system: {name: pair, width: 16}
mpp: 0.5
tile: 32
batch: 2
ema: 0.25
small:
  system: {steps: 2}
  phases: {two: {optimizer: {name: sgd, lr: 0.5}}}
variants:
  plain: {}
  wide: {system: {width: 24}, small: {system: {steps: 3}}}
  other: {phases: {one: {loss: maps}}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text(PAIR)
    return path


def test_a_system_decides_and_the_recipe_goes_over_it(path: Path) -> None:
    recipe = load_recipe(path, variant="plain")
    assert recipe.network.options["widths"] == [16, 12]
    assert (recipe.representation, recipe.ema) == ("foreground", 0.25)
    assert [(phase.name, phase.loss.name, phase.until.steps) for phase in recipe.phases] == [
        ("one", "bce", 6), ("two", "maps", 6),
    ]  # fmt: skip
    assert recipe.system == {"name": "pair", "width": 16, "steps": 6}


def test_variants_and_their_small_forms(path: Path) -> None:
    assert recipe_variants(path) == ["plain", "wide", "other"]
    small = {name: load_recipe(path, "small", name) for name in recipe_variants(path)}
    assert [recipe.phases[0].until.steps for recipe in small.values()] == [2, 3, 2]
    assert {recipe.phases[1].optimizer.name for recipe in small.values()} == {"sgd"}
    assert small["wide"].network.options["widths"] == [24, 12]
    assert [recipe.phases[0].loss.name for recipe in small.values()] == ["bce", "bce", "maps"]
    assert len({recipe.digest for recipe in small.values()}) == 3
    assert {recipe.name for recipe in small.values()} == {"p.plain", "p.wide", "p.other"}


def test_a_recipe_survives_being_written_out(path: Path) -> None:
    recipe = load_recipe(path, "small", "wide")
    assert Recipe.model_validate(recipe.model_dump(mode="json")).digest == recipe.digest


def test_variants_by_word(path: Path) -> None:
    assert open_recipe(f"{path}:wide").name == "p.wide"
    assert list(open_recipes(path)) == ["plain", "wide", "other"]
    assert [method.name for method in plan_methods(str(path), "small")] == ["plain", "wide", "other"]
    assert [method.name for method in plan_methods(f"{path}:wide", "small")] == ["wide"]
    assert [method.name for method in plan_methods(f"a={path}", "small")] == ["a.plain", "a.wide", "a.other"]
    assert [method.name for method in plan_methods(f"a={path}:wide", "small")] == ["a"]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("p.yaml", "p.yaml has variants, choose one: p:plain, p:wide, p:other"),
        ("p.yaml:wode", "has no variant 'wode', did you mean 'wide'"),
    ],
)
def test_one_recipe_is_wanted(word: str, message: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with pytest.raises(HemalumError, match=message):
        open_recipe(word)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("system", "message"),
    [
        ("pear", r"unknown system 'pear', did you mean 'pair'\?"),
        ("{name: pair, wdth: 3}", r"system 'pair' has no option 'wdth', did you mean 'width'\?"),
        ("{name: pair, width: wide}", "system 'pair', 'width': Input should be a valid integer"),
        ("[pair]", "'system' is a name, or a mapping"),
    ],
)
def test_bad_systems_in_one_line(system: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"name: r\nsystem: {system}\nmpp: 0.5\n")
    with pytest.raises(HemalumError, match=message) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_budget_in_crops_keeps_the_share_that_phases_leave(path: Path) -> None:
    content = load_recipe(path, variant="plain").model_dump(mode="json")
    content["phases"][0]["until"] |= {"steps": 100, "score_plateau": {"patience": 2}}
    content["phases"][1]["until"] |= {"steps": 100, "total": 100}
    (path.parent / "two.yaml").write_text(json.dumps(content))
    planned = one_budget(plan_methods(str(path.parent / "two.yaml"), "full"), 40, False)[0]
    cut = Recipe.model_validate(planned.recipe)
    assert cut.steps == 20
    assert [(phase.until.steps, phase.until.total) for phase in cut.phases] == [(19, None), (20, 20)]
    assert cut.phases[0].until.score_plateau is not None


@pytest.mark.fault
def test_a_recipe_of_classes_needs_a_dataset_with_classes(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    changed = recipe.model_copy(update={"representation": "semantic"})
    with pytest.raises(HemalumError, match=r"recipe mini tells classes apart and .*mini has none"):
        train(changed, [mini], tmp_path / "run")
    as_nuclei = changed.model_copy(update={"classes": "nucleus", "phases": recipe.phases[:1]})
    data_spec = gather_data_spec(as_nuclei, [Dataset.open(mini)])
    context = make_context(as_nuclei, data_spec=data_spec)
    batch = TrainLoader(context, [Dataset.open(mini).split("train")]).batch(0)
    assert batch.targets.shape[1] == 1
    assert 0.05 < float(batch.targets.mean()) < 0.6  # nuclei, not the background
    assert train(as_nuclei, [mini], tmp_path / "run").is_file()
