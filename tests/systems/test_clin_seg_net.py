"""ClinSegNet: what its options do to the recipe; that it learns."""

import json
from pathlib import Path
from typing import Any

import pytest

from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.losses.tversky import Histo
from hemalum.models.network import build_network
from hemalum.systems import build_system
from hemalum.systems.clin_seg_net import ClinSegNet
from hemalum.systems.system import network_options
from hemalum.training.recipe import Recipe, open_recipe, open_recipes
from hemalum.training.train import train


def recipe_of(system: dict[str, Any], **keys: Any) -> Recipe:
    return Recipe.model_validate({"name": "r", "mpp": 0.5, "system": {"name": "clin_seg_net"} | system} | keys)


def test_the_paper_as_read() -> None:
    full = open_recipe("clin_seg_net")
    assert (full.input, full.representation, full.ema) == ("gray", "foreground_edge", 0.999)
    (phase,) = full.phases
    assert (phase.optimizer.name, phase.optimizer.lr, phase.schedule.name) == ("adam", 1e-3, "cosine")
    assert phase.loss.model_dump() == {
        "name": "histo", "bce": 0.3, "tversky": 0.7, "edge": 0.2, "alpha": 0.3, "beta": 0.7,
    }  # fmt: skip
    changes = {name: value for name, value in full.augment.model_dump().items() if value}
    assert changes == {"flips": True, "scale": 1.0}
    network = build_network("seu_net", 2, full.network.options | {"inputs": 1, "organs": 23})
    assert sum(p.numel() for p in network.parameters()) == 9_782_650


def test_options_reach_what_they_are_for() -> None:
    network: dict[str, Any] = {"widths": [8, 16], "embedding": 5, "ratio": 4, "design": "operations"}
    network |= {"scale_bias": 3, "organ_dropout": 0.5}
    loss = {"bce": 0.5, "tversky": 0.5, "edge": 1.0, "alpha": 0.4, "beta": 0.6}
    system = {"network": network, "loss": loss, "optimizer": {"lr": 0.01}, "steps": 7}
    changed = recipe_of(system, input="hematoxylin", ema=0.9)
    assert changed.network.options == {
        "widths": [8, 16], "se": True, "film": True, "edge": True, "embedding": 5, "unknown": "mean", "ratio": 4,
        "design": "operations", "scale_bias": 3, "organ_dropout": 0.5,
    }  # fmt: skip
    assert (changed.input, changed.ema, changed.steps) == ("hematoxylin", 0.9, 7)
    assert changed.phases[0].loss.model_dump(exclude={"name"}) == loss
    assert changed.phases[0].optimizer.lr == 0.01


def test_without_an_edge_branch_there_is_no_edge_map() -> None:
    assert recipe_of({"network": {"edge": False}}).representation == "foreground"


def test_the_eight_rows_of_the_ablation() -> None:
    rows = {
        name: tuple(recipe.network.options[part] for part in ("se", "film", "edge"))
        for name, recipe in open_recipes("clin_seg_net_ablation").items()
    }
    assert len(set(rows.values())) == len(rows) == 8
    for name, (se, film, edge) in rows.items():
        parts = [part for part, on in (("se", se), ("film", film), ("edge", edge)) if on]
        assert name in ("_".join(parts), "none" if not parts else "", "all" if len(parts) == 3 else "")


@pytest.mark.parametrize("budget", ["full", "small"])
def test_what_the_organ_is_worth_is_asked_of_four_trainings_that_differ_in_it_alone(budget: str) -> None:
    base = open_recipe("clin_seg_net", budget).model_dump(exclude={"name", "description", "system"})  # type: ignore[arg-type]
    rows = {}
    for name, recipe in open_recipes("clin_seg_net_organs", budget).items():  # type: ignore[arg-type]
        row = recipe.model_dump(exclude={"name", "description", "system"})
        options = row["network"]["options"]
        rows[name] = (options["film"], options["organ_dropout"])
        options |= {key: base["network"]["options"][key] for key in ("film", "organ_dropout")}
        assert row == base
    assert rows == {
        "no_film": (False, 0.1), "always_named": (True, 0), "dropout": (True, 0.1), "never_named": (True, 1),
    }  # fmt: skip


@pytest.mark.parametrize("budget", ["full", "small"])
def test_the_sweeps_differ_in_one_thing_and_in_nothing_else(budget: str) -> None:
    base = open_recipe("clin_seg_net", budget).model_dump(exclude={"name", "description", "system"})  # type: ignore[arg-type]
    widths = {}
    for name, recipe in open_recipes("clin_seg_net_film", budget).items():  # type: ignore[arg-type]
        row = recipe.model_dump(exclude={"name", "description", "system"})
        widths[name] = row["network"]["options"].pop("embedding")
        row["network"]["options"]["embedding"] = base["network"]["options"]["embedding"]
        assert row == base
    assert widths == {f"d{d}": d for d in (16, 32, 64, 128, 256)}
    ratios = {}
    for name, recipe in open_recipes("clin_seg_net_ratio", budget).items():  # type: ignore[arg-type]
        row, loss = recipe.model_dump(exclude={"name", "description", "system"}), recipe.phases[0].loss.model_dump()
        ratios[name] = (loss["bce"], loss["tversky"])
        row["phases"] = base["phases"]
        assert row == base
    assert ratios == {f"bce{w}": (w, pytest.approx(1 - w)) for w in (0.2, 0.3, 0.4, 0.5, 0.7, 0.8)}


@pytest.mark.fault
def test_an_unknown_option_is_named() -> None:
    with pytest.raises(HemalumError, match=r"'clin_seg_net' has no option 'filn', did you mean 'network.film'\?"):
        build_system({"name": "clin_seg_net", "filn": False})
    with pytest.raises(HemalumError, match=r"network 'seu_net' has no option 'filn', did you mean 'film'\?"):
        build_system({"name": "clin_seg_net", "network": {"filn": False}}).to_recipe()


def test_defaults_are_the_reading_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "systems" / "clin_seg_net.md").read_text(encoding="utf-8")
    names = {*ClinSegNet.model_fields, *network_options("seu_net"), *Histo.model_fields, "lr", "input", "ema"} - {
        "name"
    }
    assert [name for name in sorted(names) if f"`{name}" not in page] == []


@pytest.mark.fault
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"organ_dropuot": 0.1}, r"network 'seu_net' has no option 'organ_dropuot', did you mean 'organ_dropout'\?"),
        ({"organ_dropout": "much"}, r"network 'seu_net', 'organ_dropout': want a number, not 'much'"),
        ({"scale_bias": True}, r"network 'seu_net', 'scale_bias': want a number, not True"),
    ],
)
def test_bad_options_of_the_organ(option: dict[str, Any], message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        build_system({"name": "clin_seg_net", "network": option}).to_recipe()


@pytest.mark.slow
def test_overfits_four_real_tiles(four_tiles: Dataset, tmp_path: Path) -> None:
    """All parts at once, on the luminance of four tiles of TNBC from two made-up organs, which are validated on."""
    system = {"network": {"widths": [12, 24, 48]}, "optimizer": {"lr": 0.003}, "steps": 260}
    recipe = recipe_of(system, ema=0.9, mpp=0.25, tile=96, batch=8, validate_every=20, augment="none")
    train(recipe, [four_tiles], tmp_path / "run", accelerator="cpu", threads=1)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert max(row["dice"] for row in log) >= 0.95
