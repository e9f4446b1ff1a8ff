"""AL-Net's options, and what recipe follows from them."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.errors import HemalumError
from hemalum.losses.boundary import ALNetLoss
from hemalum.models.network import build_network
from hemalum.systems import build_system
from hemalum.systems.al_net import ALNet
from hemalum.systems.phases import ScorePlateau
from hemalum.systems.system import network_options
from hemalum.training.recipe import Recipe, find_recipe, load_recipe, open_recipe, open_recipes
from hemalum.training.train import train


def recipe_of(**options: Any) -> Recipe:
    return Recipe.model_validate(
        {"name": "r", "system": {"name": "al_net", "steps": 1000} | options, "mpp": 0.5, "tile": 64}
    )


def test_two_phases_share_the_run() -> None:
    recipe = recipe_of()
    region, boundary = recipe.phases
    assert (region.name, region.loss.name, region.until.steps) == ("region", "dice", 700)
    assert region.until.score_plateau is not None
    assert region.until.score_plateau.earliest * 700 == pytest.approx(200)  # a fifth of the run
    assert (boundary.name, boundary.loss.name, boundary.until.total) == ("boundary", "al_net", 1000)
    assert recipe.steps == 1000
    assert boundary.loss.model_dump() == {
        "name": "al_net", "boundary": 0.1, "gradient": 0.5,
        "direction": True, "direction_from": 0.5, "band": 3, "ramp": 0.1, "rebalance": None,
    }  # fmt: skip
    assert recipe.representation == "foreground"


def test_lion_gives_way_to_adamw_in_whichever_phase() -> None:
    region, boundary = recipe_of(optimizer={"lr": 2e-4}).phases
    assert (region.optimizer.name, region.optimizer.lr) == ("lion", 2e-4)
    assert boundary.keep_optimizer
    assert boundary.optimizer == region.optimizer
    assert boundary.switch == region.switch
    assert region.switch is not None
    assert (region.switch.to.name, region.switch.to.lr, region.switch.when.name) == ("adamw", 2e-4, "threshold")
    assert (region.switch.when.part, region.switch.schedule.final, region.switch.schedule.warmup) == ("dice", 0, 100)


def test_the_other_optimizers() -> None:
    sgd = recipe_of(switch={"to": {"name": "sgd"}, "when": {"portion": 0.1}}).phases[0].switch
    assert (sgd.to.name, sgd.to.lr, sgd.factor, sgd.when.portion) == ("sgd", 0.01, None, 0.1)
    swats = recipe_of(switch={"when": {"name": "swats", "tolerance": 0.01}, "to": {"name": "sgd"}}).phases[0].switch
    assert (swats.when.name, swats.when.tolerance, swats.factor) == ("swats", 0.01, None)
    assert recipe_of(switch={"factor": 2}).phases[0].switch.factor == 2
    set_both = recipe_of(optimizer={"lr": 2e-4}, switch={"to": {"lr": 3e-4}}).phases[0].switch
    assert set_both.to.lr == 3e-4
    assert [phase.switch for phase in recipe_of(switch=None).phases] == [None, None]


def test_parts_can_be_left_out() -> None:
    alone = recipe_of(boundary=False)
    assert [(phase.name, phase.until.steps, phase.until.score_plateau) for phase in alone.phases] == [
        ("region", 1000, None)
    ]
    network = {"attention": False, "se": False, "rates": [1], "bottleneck_rates": [1, 3], "norm": False}
    options = recipe_of(network=network).network.options
    assert (options["attention"], options["se"], options["norm"]) == (False, False, False)
    assert (options["rates"], options["bottleneck_rates"]) == ([1], [1, 3])
    terms = {
        "boundary": 0.0,
        "gradient": 0.2,
        "direction": False,
        "direction_from": 0.2,
        "band": 2,
        "ramp": 0.0,
        "rebalance": 0.01,
    }
    assert recipe_of(loss=terms).phases[1].loss.model_dump(exclude={"name"}) == terms
    plateau = recipe_of(score_plateau={"patience": 3, "delta": 0.1, "earliest": 0.35}).phases[0].until.score_plateau
    assert plateau == ScorePlateau(patience=3, delta=0.1, earliest=0.5)
    assert {phase.until.monitor for phase in open_recipe("al_net_polyps").phases} == {"dice"}


def test_a_recipe_as_a_run_writes_it_reads_as_the_same() -> None:
    recipe = recipe_of(switch={"to": {"name": "sgd"}}, network={"se": False}, optimizer={"lr": 1e-3})
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"switch": {"when": {"name": "swats"}}}, "swats finds a rate for sgd: switch to sgd, without a factor"),
        ({"score_plateau": {"earliest": 0.8}}, r"earliest \(0.8\) must be before latest \(0.7\)"),
        ({"attention": False}, r"system 'al_net' has no option 'attention', did you mean 'network.attention'\?"),
        ({"bonudary": False}, "system 'al_net' has no option 'bonudary', did you mean 'boundary'"),
        ({"optimizer": {"name": "adam"}}, "system 'al_net', 'optimizer.name'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        build_system({"name": "al_net"} | options)


SHARED = (
    "mpp", "tile", "batch", "augment", "validate_every", "validation_images", "clip", "precision", "steps",
    "representation",
)  # fmt: skip


@pytest.mark.parametrize("budget", ["full", "small"])
def test_it_sees_what_the_networks_beside_it_see(budget: Any) -> None:
    al_net = load_recipe(find_recipe("al_net"), budget)
    others = open_recipes("al_net_baselines", budget) | open_recipes("al_net_ablation", budget)
    others |= open_recipes("al_net_controls", budget)
    assert {"unet", "deeplabv3plus", "no_boundary"} <= {name.rpartition(".")[2] for name in others}
    for name, recipe in others.items():
        assert {key: getattr(recipe, key) for key in SHARED} == {key: getattr(al_net, key) for key in SHARED}, name


@pytest.mark.parametrize("budget", ["full", "small"])
def test_on_polyps_the_networks_beside_it_see_the_same(budget: Any) -> None:
    al_net = load_recipe(find_recipe("al_net_polyps"), budget)
    for name, recipe in open_recipes("al_net_polyps_baselines", budget).items():
        for key in (*SHARED, "separation"):
            assert getattr(recipe, key) == getattr(al_net, key), (name, key)
        assert {phase.until.monitor for phase in (*recipe.phases, *al_net.phases)} == {"dice"}


@pytest.mark.parametrize("budget", ["full", "small"])
def test_the_controls_cross_networks_and_trainings(budget: Any) -> None:
    """Two networks under two trainings, those of al_net and of al_net_baselines; and each part of the one alone."""
    controls = {name: recipe.model_dump() for name, recipe in open_recipes("al_net_controls", budget).items()}
    al_net = load_recipe(find_recipe("al_net"), budget).model_dump()
    unet = open_recipes("al_net_baselines", budget)["unet"].model_dump()
    crossed = {
        "al_net": (al_net, al_net), "al_net_plain": (al_net, unet),
        "unet_as_al_net": (unet, al_net), "unet_plain": (unet, unet),
    }  # fmt: skip
    for name, (network, training) in crossed.items():
        built = [
            build_network(spec["name"], 1, spec["options"])
            for spec in (controls[name]["network"], network["network"])
        ]
        assert [str(one) for one in built[:1]] == [str(one) for one in built[1:]], name
        assert controls[name]["phases"] == training["phases"], name
    alone = controls["adamw_alone"]["phases"]
    assert [phase["loss"] for phase in alone] == [phase["loss"] for phase in al_net["phases"]]
    assert {(phase["optimizer"]["name"], phase["switch"]) for phase in alone} == {("adamw", None)}
    assert [phase["switch"] for phase in controls["lion_alone"]["phases"]] == [None, None]
    (both,) = controls["both_losses"]["phases"]
    assert both["optimizer"] == al_net["phases"][0]["optimizer"]
    assert both["switch"] == al_net["phases"][0]["switch"]
    assert (both["loss"]["name"], both["loss"]["ramp"]) == ("al_net", 0)
    (both_plain,) = controls["both_losses_plain"]["phases"]
    assert {key: both_plain[key] for key in ("optimizer", "schedule")} == {
        key: unet["phases"][0][key] for key in ("optimizer", "schedule")
    }
    assert {recipe["phases"][-1]["until"]["monitor"] for recipe in controls.values()} == {"pq"}


def test_defaults_are_the_reading_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "systems" / "al_net.md").read_text(encoding="utf-8")
    nested = {*network_options("al_net"), *ALNetLoss.model_fields, *ScorePlateau.model_fields}
    names = {*ALNet.model_fields, *nested, "lr", "weight_decay", "portion", "smoothing", "tolerance"} - {"name"}
    assert [name for name in sorted(names) if f"`{name}" not in page] == []


@pytest.mark.slow
def test_overfits_four_real_tiles(real_data: Path, tmp_path: Path) -> None:
    """Both phases, the switch and the model file, on four tiles of DSB2018 that are trained on and validated on."""
    with (real_data / "dsb2018" / "index.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    source = tmp_path / "source"
    for folder in ("images", "labels"):
        (source / folder).mkdir(parents=True)
    for stain, count in (("grey-fluo", 2), ("colour", 2)):
        for row in [row for row in rows if row["stain"] == stain and int(row["height"]) >= 256][:count]:
            for folder, name in (("images", row["image"]), ("labels", row["label"])):
                tile = Image.open(real_data / "dsb2018" / folder / name).crop((64, 64, 192, 192))
                tile.save(source / folder / f"{Path(name).stem}.png")
    import_dataset("folder", source, tmp_path / "tiles", mpp=0.5, split=(1.0, 0.0, 0.0))
    tiles = Dataset.open(tmp_path / "tiles")
    rows = [replace(row, split=split) for split in ("train", "val") for row in tiles.rows]
    system = {
        "name": "al_net", "network": {"widths": [8, 16, 32]}, "optimizer": {"lr": 0.002},
        "score_plateau": {"patience": 1}, "latest": 0.6, "steps": 300,
    }  # fmt: skip
    run = {"name": "r", "mpp": 0.5, "tile": 128, "batch": 4, "validate_every": 30, "clip": 5.0, "augment": "none"}
    recipe = Recipe.model_validate(run | {"system": system})
    train(recipe, [replace(tiles, rows=tuple(rows))], tmp_path / "run", threads=1)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {row["phase"] for row in log} == {"region", "boundary"}
    assert log[-1]["ramp"] == 1
    assert max(row["dice"] for row in log if row["phase"] == "boundary") >= 0.95
