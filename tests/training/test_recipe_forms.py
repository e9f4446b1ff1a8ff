"""Recipes of systems, variants, and rules by which phases end."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.instances.representations import find_representation
from hemalum.studies.plan import one_budget, plan_methods
from hemalum.systems import SYSTEMS, SystemSettings
from hemalum.systems.phases import Levelled, Phase, Until
from hemalum.training.building import gather_facts
from hemalum.training.loop import Loop, has_levelled
from hemalum.training.recipe import Recipe, load_recipe, recipe_variants
from hemalum.training.shipped import open_recipe, open_recipes
from hemalum.training.stream import Facts, Stream, encode
from hemalum.training.train import train


class Pair(SystemSettings):
    """A system of two phases."""

    name: Literal["pair"] = "pair"
    width: int = 8
    steps: int = 6

    def recipe(self) -> dict[str, Any]:
        return {
            "network": {"name": "compact", "options": {"widths": [self.width, 12], "depths": [0, 1]}},
            "representation": "foreground",
            "ema": 0.5,
            "phases": [
                Phase(name="one", loss="bce", until=Until(steps=self.steps)),
                Phase(name="two", train=["head.*"], until=Until(steps=self.steps)),
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
  phases: {two: {optimiser: {name: sgd, lr: 0.5}}}
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
    assert {recipe.phases[1].optimiser.name for recipe in small.values()} == {"sgd"}
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


def test_scores_level_off() -> None:
    rule = Levelled(window=2, delta=0.01, earliest=0.5)
    rising, flat = [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.395, 0.4, 0.4, 0.4]
    assert not has_levelled(rule, rising, 1.0)
    assert has_levelled(rule, flat, 0.5)  # 0.4 against 0.3975
    assert not has_levelled(rule, flat, 0.49)
    assert not has_levelled(rule, flat[-3:], 1.0)  # too few to compare


def test_a_later_phase_gets_what_an_earlier_one_saves(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    flat = Levelled(
        window=1, delta=2.0, earliest=0
    )  # levelled off at the second validation: a Dice gains less than 2
    phases = [
        Phase(name="first", until=Until(steps=9, levelled=flat)), Phase(name="second", until=Until(steps=9, total=10))
    ]  # fmt: skip
    changed = recipe.model_copy(update={"phases": phases})
    assert changed.steps == 10
    train(changed, [mini], tmp_path / "run")
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [('"first"' in line, '"second"' in line) for line in log] == [(True, False)] * 2 + [(False, True)] * 3
    assert '"step": 10' in log[-1]


def test_a_phase_that_is_left_no_steps_is_skipped(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    phases = [Phase(name="first", until=Until(steps=4)), Phase(name="second", until=Until(steps=9, total=4))]
    changed = recipe.model_copy(update={"phases": phases})
    assert changed.steps == 4
    path = train(changed, [mini], tmp_path / "run")
    assert path.is_file()
    assert '"phase": "second"' not in (tmp_path / "run" / "log.jsonl").read_text()


def test_a_phase_may_start_from_the_best_of_the_one_before(
    recipe: Recipe, mini: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from hemalum.training import loop as loop_module

    scores = iter([0.5, 0.2, 0.1, 0.3, 0.5, 0.2, 0.1, 0.3])
    monkeypatch.setattr(loop_module.Validation, "score", lambda *_: {"score": next(scores), "dice": 0.0})
    still = {"optimiser": {"name": "sgd", "lr": 1e-12}, "schedule": {"name": "constant"}, "until": {"steps": 2}}
    ends = {}
    for start in ("last", "best"):
        phases = [
            Phase(name="one", until=Until(steps=6)),
            Phase.model_validate({"name": "two", "start": start} | still),
        ]
        changed = recipe.model_copy(update={"phases": phases, "ema": 0.0})
        train(changed, [mini], tmp_path / start)
        ends[start] = load_file(tmp_path / start / "best.safetensors")["head.weight"]
    alone = recipe.model_copy(update={"phases": [Phase(name="one", until=Until(steps=6))], "ema": 0.0})
    scores = iter([0.5, 0.2, 0.1])
    train(alone, [mini], tmp_path / "alone")
    best = load_file(tmp_path / "alone" / "best.safetensors")["head.weight"]
    np.testing.assert_allclose(ends["best"], best, atol=1e-7)
    assert np.abs(ends["last"] - best).max() > 1e-4


def test_a_budget_in_crops_keeps_the_share_that_phases_leave(path: Path) -> None:
    content = load_recipe(path, variant="plain").model_dump(mode="json")
    content["phases"][0]["until"] |= {"steps": 100, "levelled": {"window": 2}}
    content["phases"][1]["until"] |= {"steps": 100, "total": 100}
    (path.parent / "two.yaml").write_text(json.dumps(content))
    planned = one_budget(plan_methods(str(path.parent / "two.yaml"), "full"), 40, False)[0]
    cut = Recipe.model_validate(planned.recipe)
    assert cut.steps == 20
    assert [(phase.until.steps, phase.until.total) for phase in cut.phases] == [(19, None), (20, 20)]
    assert cut.phases[0].until.levelled is not None


def test_the_best_by_loss_is_the_least(recipe: Recipe, mini: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from hemalum.training import loop as loop_module

    losses = iter([0.5, 0.2, 0.3, 0.4, 0.1])
    monkeypatch.setattr(
        loop_module.Validation, "score", lambda *_: {"score": 0.0, "dice": 0.0, "val_loss": next(losses)}
    )
    phase = Phase(name="p", until=Until(steps=100, patience=2, monitor="loss"))
    train(recipe.model_copy(update={"phases": [phase]}), [mini], tmp_path / "run")
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 4


def test_the_validation_loss_is_the_loss_of_its_images(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    from lightning_fabric import Fabric

    from hemalum.networks import build_network
    from hemalum.training.validation import Validation

    changed = recipe.model_copy(update={"representation": "foreground"})
    part = Dataset.open(mini).split("val")
    network = build_network("compact", 1, recipe.network.options).eval()
    loss = Phase(name="p", loss="bce", until=Until(steps=1)).loss
    given = Validation(changed, [part], 8).score(network, Fabric(accelerator="cpu", devices=1), loss)["val_loss"]
    own = []
    network.requires_grad_(False)
    for sample in part:
        image = torch.from_numpy(sample.image.copy()).permute(2, 0, 1)[None] / 255
        truth = torch.from_numpy(sample.instances > 0).float()[None, None]
        own.append(float(nn.functional.binary_cross_entropy_with_logits(network((image - 0.5) / 0.25), truth)))
    assert given == pytest.approx(np.mean(own), rel=1e-4)


def test_what_is_frozen_is_in_eval_mode_with_its_dropout() -> None:
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 1, 1), nn.Dropout(), nn.BatchNorm2d(1)),
        nn.Sequential(nn.Conv2d(1, 1, 1), nn.Dropout()),
    )
    for parameter in network[0].parameters():
        parameter.requires_grad_(False)
    loop = Loop.__new__(Loop)
    loop.network = network
    loop._set_mode()
    assert [module.training for module in network[0].modules()] == [False] * 4
    assert [module.training for module in network[1].modules()] == [True] * 3


def test_classes_become_maps_in_the_order_of_their_names() -> None:
    facts = Facts(classes=("a", "b"))
    representation = find_representation("semantic", facts.classes)
    labels = np.array([[[0, 1, 1], [2, 2, 0]]], np.int32)
    maps = encode(labels, representation, classes=[np.array([0, 2, 1], np.int32)])
    assert maps[0, 0].tolist() == [[0, 0, 0], [1, 1, 0]]
    assert maps[0, 1].tolist() == [[0, 1, 1], [0, 0, 0]]


def test_a_recipe_of_classes_needs_a_dataset_with_classes(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    changed = recipe.model_copy(update={"representation": "semantic"})
    with pytest.raises(HemalumError, match=r"recipe mini tells classes apart and .*mini has none"):
        train(changed, [mini], tmp_path / "run")
    one = changed.model_copy(update={"classes": "nucleus", "phases": recipe.phases[:1]})
    facts = gather_facts(one, [Dataset.open(mini)])
    batch = Stream(one, [Dataset.open(mini).split("train")], facts=facts).batch(0)
    assert batch.targets.shape[1] == 1
    assert 0.05 < float(batch.targets.mean()) < 0.6  # nuclei, not the background
    assert train(one, [mini], tmp_path / "run").is_file()
