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
from hemalum.systems import build_system
from hemalum.systems.al_net import ALNet
from hemalum.training.recipe import Recipe, load_recipe
from hemalum.training.shipped import find_recipe, open_recipes
from hemalum.training.train import train

STILL = {
    "flips": False, "rotation": 0, "scale": 1.0, "elastic": 0, "stain": 0, "brightness": 0, "contrast": 0,
    "saturation": 0, "gamma": 0, "grey": 0, "blur": 0, "noise": 0,
}  # fmt: skip


def made(**options: Any) -> Recipe:
    return Recipe.model_validate(
        {"name": "r", "system": {"name": "al_net", "steps": 1000} | options, "mpp": 0.5, "tile": 64}
    )


def test_two_phases_share_the_run() -> None:
    recipe = made()
    region, boundary = recipe.phases
    assert (region.name, region.loss.name, region.until.steps) == ("region", "dice", 700)
    assert region.until.levelled is not None
    assert region.until.levelled.earliest * 700 == pytest.approx(200)  # a fifth of the run
    assert (boundary.name, boundary.loss.name, boundary.until.total) == ("boundary", "al_net", 1000)
    assert recipe.steps == 1000
    assert boundary.loss.model_dump() == {
        "name": "al_net", "boundary": 0.1, "gradient": 0.5,
        "direction": True, "band": 3, "ramp": 0.1, "rebalance": None,
    }  # fmt: skip
    assert recipe.representation == "foreground"


def test_lion_gives_way_to_adamw_in_whichever_phase() -> None:
    region, boundary = made(lr=2e-4).phases
    assert (region.optimiser.name, region.optimiser.lr) == ("lion", 2e-4)
    assert boundary.carry
    assert boundary.optimiser == region.optimiser
    assert boundary.switch == region.switch
    assert region.switch is not None
    assert (region.switch.to.name, region.switch.factor, region.switch.when.name) == ("adamw", 3, "threshold")
    assert region.switch.schedule.final == 0


def test_the_other_optimisers() -> None:
    sgd = made(to="sgd", portion=0.1).phases[0].switch
    assert (sgd.to.name, sgd.factor, sgd.when.portion) == ("sgd", 0.1, 0.1)
    swats = made(switch="swats", to="sgd", tolerance=0.01).phases[0].switch
    assert (swats.when.name, swats.when.tolerance, swats.factor) == ("swats", 0.01, None)
    assert [phase.switch for phase in made(switch=None).phases] == [None, None]


def test_parts_can_be_left_out() -> None:
    alone = made(boundary=False)
    assert [(phase.name, phase.until.steps, phase.until.levelled) for phase in alone.phases] == [
        ("region", 1000, None)
    ]
    options = made(attention=False, se=False, rates=[1], bottleneck_rates=[1, 3], norm=False).network.options
    assert (options["attention"], options["se"], options["norm"]) == (False, False, False)
    assert (options["rates"], options["bottleneck_rates"]) == ([1], [1, 3])
    terms = made(boundary_weight=0.0, gradient_weight=0.2, direction=False, band=2, ramp=0.0, rebalance=0.01)
    assert terms.phases[1].loss.model_dump(exclude={"name"}) == {
        "boundary": 0.0, "gradient": 0.2, "direction": False, "band": 2, "ramp": 0.0, "rebalance": 0.01,
    }  # fmt: skip
    assert {phase.until.monitor for phase in made(monitor="dice").phases} == {"dice"}


def test_a_recipe_as_a_run_writes_it_reads_as_the_same() -> None:
    recipe = made(to="sgd")
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"switch": "swats"}, "swats finds a learning rate for sgd: set to: sgd"),
        ({"earliest": 0.8}, r"earliest \(0.8\) must be before latest \(0.7\)"),
        ({"atention": False}, "system 'al_net' has no option 'atention', did you mean 'attention'"),
        ({"to": "adam"}, "system 'al_net', 'to'"),
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
    ours = load_recipe(find_recipe("al_net"), budget)
    beside = open_recipes("al_net_baselines", budget) | open_recipes("al_net_ablation", budget)
    assert {"unet", "deeplabv3plus", "no_boundary"} <= {name.rpartition(".")[2] for name in beside}
    for name, theirs in beside.items():
        assert {key: getattr(theirs, key) for key in SHARED} == {key: getattr(ours, key) for key in SHARED}, name


def test_defaults_are_the_reading_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "systems" / "al_net.md").read_text(encoding="utf-8")
    for name, field in ALNet.model_fields.items():
        if name != "name":
            assert f"`{name}" in page, f"docs/systems/al_net.md does not say what {name} is ({field.description})"


@pytest.mark.slow
def test_overfits_four_real_tiles(real_data: Path, tmp_path: Path) -> None:
    """Both phases, the switch and the model file, on four tiles of DSB2018 that are trained on and validated on."""
    with (real_data / "dsb2018" / "index.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    source = tmp_path / "source"
    for kind in ("images", "labels"):
        (source / kind).mkdir(parents=True)
    for stain, count in (("grey-fluo", 2), ("colour", 2)):
        for row in [row for row in rows if row["stain"] == stain and int(row["height"]) >= 256][:count]:
            for kind, name in (("images", row["image"]), ("labels", row["label"])):
                tile = Image.open(real_data / "dsb2018" / kind / name).crop((64, 64, 192, 192))
                tile.save(source / kind / f"{Path(name).stem}.png")
    import_dataset("folder", source, tmp_path / "tiles", mpp=0.5, split=(1.0, 0.0, 0.0))
    tiles = Dataset.open(tmp_path / "tiles")
    both = [replace(row, split=part) for part in ("train", "val") for row in tiles.rows]
    system = {"name": "al_net", "widths": [8, 16, 32], "lr": 0.002, "window": 1, "latest": 0.6, "steps": 300}
    run = {"name": "r", "mpp": 0.5, "tile": 128, "batch": 4, "validate_every": 30, "clip": 5.0, "augment": STILL}
    recipe = Recipe.model_validate(run | {"system": system})
    train(recipe, [replace(tiles, rows=tuple(both))], tmp_path / "run", threads=1)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {row["phase"] for row in log} == {"region", "boundary"}
    assert log[-1]["ramp"] == 1
    assert max(row["dice"] for row in log if row["phase"] == "boundary") >= 0.95
