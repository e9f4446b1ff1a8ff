"""ClinSegNet: what its options do to the recipe; that it learns."""

import json
from pathlib import Path

import pytest

from hemalum.data.augment import NO_AUGMENTATION
from hemalum.data.dataset import Dataset
from hemalum.errors import HemalumError
from hemalum.networks import build_network
from hemalum.systems import build_system
from hemalum.systems.clin_seg_net import ClinSegNet
from hemalum.training.recipe import Recipe
from hemalum.training.shipped import open_recipe, open_recipes
from hemalum.training.train import train


def recipe(**options: object) -> Recipe:
    system = {"name": "clin_seg_net", **options}
    return Recipe.model_validate({"name": "r", "mpp": 0.5, "system": system})


def test_the_paper_as_read() -> None:
    full = open_recipe("clin_seg_net")
    assert (full.input, full.representation, full.ema) == ("grey", "foreground_edge", 0.999)
    (phase,) = full.phases
    assert (phase.optimiser.name, phase.optimiser.lr, phase.schedule.name) == ("adam", 1e-3, "cosine")
    assert phase.loss.model_dump() == {
        "name": "histo", "bce": 0.3, "tversky": 0.7, "edge": 0.2, "alpha": 0.3, "beta": 0.7,
    }  # fmt: skip
    changes = {name: value for name, value in full.augment.model_dump().items() if value}
    assert changes == {"flips": True, "scale": 1.0}
    network = build_network("seu_net", 2, full.network.options | {"inputs": 1, "organs": 23})
    assert sum(p.numel() for p in network.parameters()) == 9_782_650


def test_options_reach_what_they_are_for() -> None:
    changed = recipe(
        widths=[8, 16], embedding=5, ratio=4, design="operations", input="hematoxylin", bce=0.5, tversky=0.5,
        alpha=0.4, beta=0.6, edge_weight=1.0, lr=0.01, ema=0.9, steps=7,
    )  # fmt: skip
    assert changed.network.options == {
        "widths": [8, 16], "se": True, "film": True, "edge": True, "embedding": 5, "unknown": "mean", "ratio": 4,
        "design": "operations",
    }  # fmt: skip
    assert (changed.input, changed.ema, changed.steps) == ("hematoxylin", 0.9, 7)
    loss = changed.phases[0].loss.model_dump(exclude={"name"})
    assert loss == {"bce": 0.5, "tversky": 0.5, "edge": 1.0, "alpha": 0.4, "beta": 0.6}
    assert changed.phases[0].optimiser.lr == 0.01


def test_without_an_edge_branch_there_is_no_edge_map() -> None:
    assert recipe(edge=False).representation == "foreground"


def test_the_eight_rows_of_the_ablation() -> None:
    rows = {
        name: tuple(one.network.options[part] for part in ("se", "film", "edge"))
        for name, one in open_recipes("clin_seg_net_ablation").items()
    }
    assert len(set(rows.values())) == len(rows) == 8
    for name, (se, film, edge) in rows.items():
        said = [part for part, on in (("se", se), ("film", film), ("edge", edge)) if on]
        assert name in ("_".join(said), "none" if not said else "", "all" if len(said) == 3 else "")


@pytest.mark.parametrize("budget", ["full", "small"])
def test_the_sweeps_differ_in_one_thing_and_in_nothing_else(budget: str) -> None:
    base = open_recipe("clin_seg_net", budget).model_dump(exclude={"name", "description", "system"})  # type: ignore[arg-type]
    widths = {}
    for name, one in open_recipes("clin_seg_net_film", budget).items():  # type: ignore[arg-type]
        row = one.model_dump(exclude={"name", "description", "system"})
        widths[name] = row["network"]["options"].pop("embedding")
        row["network"]["options"]["embedding"] = base["network"]["options"]["embedding"]
        assert row == base
    assert widths == {f"d{d}": d for d in (16, 32, 64, 128, 256)}
    ratios = {}
    for name, one in open_recipes("clin_seg_net_ratio", budget).items():  # type: ignore[arg-type]
        row, loss = one.model_dump(exclude={"name", "description", "system"}), one.phases[0].loss.model_dump()
        ratios[name] = (loss["bce"], loss["tversky"])
        row["phases"] = base["phases"]
        assert row == base
    assert ratios == {f"bce{w}": (w, pytest.approx(1 - w)) for w in (0.2, 0.3, 0.4, 0.5, 0.7, 0.8)}


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(HemalumError, match="system 'clin_seg_net' has no option 'filn', did you mean 'film'"):
        build_system({"name": "clin_seg_net", "filn": False})


def test_defaults_are_the_reading_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "systems" / "clin_seg_net.md").read_text(encoding="utf-8")
    for name, field in ClinSegNet.model_fields.items():
        if name != "name":
            assert f"`{name}" in page, (
                f"docs/systems/clin_seg_net.md does not say what {name} is ({field.description})"
            )


@pytest.mark.slow
def test_overfits_four_real_tiles(four_tiles: Dataset, tmp_path: Path) -> None:
    """All parts at once, on the luminance of four tiles of TNBC from two made-up organs, which are validated on."""
    small = {"widths": [12, 24, 48], "lr": 0.003, "ema": 0.9, "steps": 260}
    changed = recipe(**small).model_copy(
        update={"mpp": 0.25, "tile": 96, "batch": 8, "validate_every": 20, "augment": NO_AUGMENTATION}
    )
    train(changed, [four_tiles], tmp_path / "run", accelerator="cpu", threads=1)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert max(row["dice"] for row in log) >= 0.95
