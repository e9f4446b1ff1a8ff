"""eU-Net3+ with SAM: what its options do to the recipe, that every variant runs, and that it learns."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.losses.unet3plus import FocalDice
from hemalum.models.card import Control
from hemalum.models.network import build_network
from hemalum.systems import build_system
from hemalum.systems.eunet3plus import EUNet3PlusSam
from hemalum.systems.system import network_options
from hemalum.training.recipe import Recipe, Sam, open_recipe, open_recipes
from hemalum.training.train import train

RECIPES = ("eunet3plus_nuinsseg", "eunet3plus_cryonuseg", "eunet3plus_conic")
ACTIVATIONS = ("relu", "leaky_relu", "swish", "glu")
VARIANTS = (*ACTIVATIONS, "concat", "guided", "advanced", "worded", "guided_large", "guided_huge")
CONTROLS = tuple(f"{fusion}_{control}" for fusion in ("guided", "worded") for control in get_args(Control))
BASELINES = ("unet", "ddu_net", "awgunet")


def recipe_of(system: dict[str, Any], **keys: Any) -> Recipe:
    return Recipe.model_validate({"name": "r", "mpp": 0.5, "system": {"name": "eunet3plus"} | system} | keys)


def test_the_paper_as_read() -> None:
    recipe = open_recipe("eunet3plus_nuinsseg:guided")
    assert (recipe.tile, recipe.batch, recipe.representation) == (256, 16, "foreground")
    assert recipe.sam == Sam(encoder="facebook/sam-vit-base")
    assert recipe.stain_normalization is not None
    (phase,) = recipe.phases
    assert (phase.optimizer.name, phase.optimizer.lr, phase.optimizer.weight_decay) == ("adam", 1e-4, 1e-5)
    assert phase.loss.model_dump() == {
        "name": "focal_dice", "focal": 0.5, "dice": 0.5, "gamma": 2.0, "union": False, "background": True,
        "aux_weight": 1.0, "presence": 1.0,
    }  # fmt: skip
    strengths = recipe.augment.model_dump()
    assert {name for name, value in strengths.items() if value} == {
        "flips", "rotation", "scale", "elastic", "gamma", "intensity", "clahe",
    }  # fmt: skip
    network = build_network("eunet3plus", 2, recipe.network.options)
    assert sum(p.numel() for p in network.parameters()) == 11_466_626 + 1_112_624


def test_options_reach_what_they_are_for() -> None:
    network = {
        "widths": [4, 8], "activation": "swish", "down": "max", "fusion": "advanced", "gate": "glu", "reduction": 2,
        "dropout": 0.1, "deep_supervision": True, "cgm": True,
    }  # fmt: skip
    loss, optimizer = {"union": True, "background": False}, {"lr": 0.01, "weight_decay": 0.0}
    system = {"network": network, "loss": loss, "optimizer": optimizer, "steps": 7}
    recipe = recipe_of(system, sam={"encoder": "somewhere", "field": 128})
    assert recipe.network.options == network
    assert recipe.sam == Sam(encoder="somewhere", field=128)
    dumped = recipe.phases[0].loss.model_dump()
    assert (dumped["union"], dumped["background"]) == (True, False)
    assert (recipe.phases[0].optimizer.lr, recipe.phases[0].optimizer.weight_decay, recipe.steps) == (0.01, 0, 7)
    assert recipe_of({"loss": "unet3plus"}).phases[0].loss.name == "unet3plus"


def test_without_fusion_there_is_no_encoder() -> None:
    assert recipe_of({"network": {"fusion": "none"}}).sam is None


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("budget", ["full", "small"])
def test_variants_differ_in_what_they_are_called_by(name: str, budget: Any) -> None:
    recipes = open_recipes(name, budget)
    assert tuple(recipes) == (*VARIANTS, *CONTROLS, *BASELINES)
    rows = {}
    for variant in (*VARIANTS, *CONTROLS):
        recipe = recipes[variant]
        options = dict(recipe.network.options)
        fusion = options.pop("fusion") if options.pop("gate") == "sigmoid" else f"{options.pop('fusion')} by glu"
        encoder = None if recipe.sam is None else recipe.sam.encoder
        rows[variant] = (options.pop("activation"), fusion, encoder)
        assert (recipe.sam and recipe.sam.control) == (variant.partition("_")[2] if variant in CONTROLS else None)
        rest = recipe.model_dump(exclude={"name", "description", "system", "sam", "network"})
        assert (rest, options) == (
            recipes["glu"].model_dump(exclude={"name", "description", "system", "sam", "network"}),
            {key: recipes["glu"].network.options[key] for key in options},
        )
    base, large, huge = (f"facebook/sam-vit-{size}" for size in ("base", "large", "huge"))
    assert rows == {
        **{activation: (activation, "none", None) for activation in ACTIVATIONS},
        **{fusion: ("glu", fusion, base) for fusion in ("concat", "guided", "advanced")},
        "worded": ("glu", "joint by glu", base),
        **{name: ("glu", "guided" if name[0] == "g" else "joint by glu", base) for name in CONTROLS},
        "guided_large": ("glu", "guided", large),
        "guided_huge": ("glu", "guided", huge),
    }


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("budget", ["full", "small"])
def test_baselines_differ_in_their_network_alone(name: str, budget: Any) -> None:
    """Scale, crops, colors, augmentation, loss, optimizer, length: those of the rows that they stand beside."""
    recipes = open_recipes(name, budget)
    differing = {"name", "description", "system", "sam", "network", "representation"}
    expected = recipes["relu"].model_dump(exclude=differing)
    for variant in BASELINES:
        recipe = recipes[variant]
        assert (recipe.network.name, recipe.sam) == (variant, None)
        assert recipe.model_dump(exclude=differing) == expected
        assert recipe.representation == ("distance" if variant == "ddu_net" else "foreground")  # its second decoder


@pytest.mark.fault
def test_an_unknown_option_is_named() -> None:
    with pytest.raises(HemalumError, match=r"'eunet3plus' has no option 'fussion', did you mean 'network.fusion'\?"):
        build_system({"name": "eunet3plus", "fussion": "none"})
    with pytest.raises(HemalumError, match=r"network 'eunet3plus' has no option 'fussion', did you mean 'fusion'\?"):
        build_system({"name": "eunet3plus", "network": {"fussion": "none"}}).to_recipe()


def test_defaults_are_the_reading_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "systems" / "eunet3plus_sam.md").read_text(encoding="utf-8")
    nested = {*network_options("eunet3plus"), *FocalDice.model_fields, *Sam.model_fields} - {"skip", "embedding"}
    names = {*EUNet3PlusSam.model_fields, *nested, "lr", "weight_decay"} - {"name"}
    assert [name for name in sorted(names) if f"`{name}" not in page] == []


@pytest.mark.slow
def test_overfits_four_real_tiles(random_sam: Path, four_tiles: Dataset, tmp_path: Path) -> None:
    """With the fusion block and a SAM of random weights, on four tiles of TNBC, its validation images as well."""
    network = {"widths": [8, 16, 32, 64], "dropout": 0.0}
    recipe = recipe_of(
        {"network": network, "optimizer": {"lr": 0.005}, "steps": 240}, mpp=0.25, tile=96, batch=4, validate_every=40,
        clip=5.0, sam={"encoder": str(random_sam)}, augment="none",
        phases={"main": {"schedule": {"name": "cosine", "warmup": 10}}},
    )  # fmt: skip
    train(recipe, [four_tiles], tmp_path / "run", accelerator="cpu", threads=1)
    scores = [json.loads(line)["dice"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]

    assert max(scores) >= 0.95
