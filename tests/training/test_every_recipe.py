"""Every shipped recipe and variant loads; the small form of each trains two steps per phase on a miniature."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hemalum.data.importing import import_dataset
from hemalum.models.file import load_card
from hemalum.training.recipe import Recipe, open_recipes, shipped_recipes
from hemalum.training.train import train

STEPS = 2


def shorten(recipe: Recipe) -> Recipe:
    """The recipe with two steps per phase of two small crops, of whatever data is given."""
    phases = []
    for index, phase in enumerate(recipe.phases):
        total = None if phase.until.total is None else STEPS * (index + 1)
        until = phase.until.model_copy(update={"steps": STEPS, "total": total})
        phases.append(phase.model_copy(update={"until": until}))
    changes: dict[str, Any] = {"phases": phases, "batch": 2, "data": {}, "validate_every": STEPS}
    changes["tile"] = recipe.network.options.get("size", 32)
    if recipe.labeled is not None:  # the miniature has few images
        changes["labeled"] = recipe.labeled.model_copy(update={"fraction": "1/3"})
    return recipe.model_copy(update=changes)


def describe_training(recipe: Recipe) -> str:
    """What makes another training of a recipe; numbers that change nothing of how it runs are left out."""
    content = shorten(recipe).model_dump(
        mode="json", exclude={"name", "description", "system", "mpp", "seed", "augment"}
    )
    for phase in content["phases"]:
        phase["optimizer"].pop("lr")
    return json.dumps(content, sort_keys=True)


def list_distinct() -> list[Any]:
    """One case for all variants that train alike; the first of each recipe is fast, the rest are marked slow."""
    cases, seen = [], set()
    for name in shipped_recipes():
        for position, (variant, recipe) in enumerate(open_recipes(name, "small").items()):
            key = describe_training(recipe)
            if key not in seen:
                marks = [pytest.mark.slow] if position else []
                cases.append(pytest.param(recipe, id=f"{name}-{variant}", marks=marks))
            seen.add(key)
    return cases


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen images of discs of two classes, from two organs."""
    source = tmp_path_factory.mktemp("varied")
    for name in ("images", "labels", "types"):
        (source / name).mkdir()
    rng, lines = np.random.default_rng(0), ["image,label,organ"]
    y, x = np.mgrid[:64, :64]
    for number in range(14):
        labels, types = np.zeros((64, 64), np.uint16), np.zeros((64, 64), np.uint8)
        for index in range(1, 7):
            cy, cx = rng.integers(8, 56, 2)
            disc = (y - cy) ** 2 + (x - cx) ** 2 < 36
            labels[disc], types[disc] = index, 1 + index % 2
        colors = np.array([[230, 190, 215], [110, 80, 160], [60, 130, 70]])
        image = colors[types] + rng.normal(0, 8, (64, 64, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(source / "images" / f"{number}.png")
        Image.fromarray(labels).save(source / "labels" / f"{number}.png")
        Image.fromarray(types).save(source / "types" / f"{number}.png")
        lines.append(f"{number}.png,{number}.png,{('liver', 'lung')[number % 2]}")
    (source / "index.csv").write_text("\n".join(lines) + "\n")
    target = tmp_path_factory.mktemp("data") / "varied"
    import_dataset("folder", source, target, mpp=0.5, split=(0.7, 0.15, 0.15), name="varied", class_names="one,other")
    return target


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_it_has_two_forms(name: str) -> None:
    full, small = open_recipes(name), open_recipes(name, "small")
    assert full.keys() == small.keys()
    for variant, recipe in full.items():
        assert (recipe.budget, small[variant].budget) == ("full", "small")
        assert small[variant].steps < recipe.steps


@pytest.mark.parametrize("recipe", list_distinct())
def test_it_trains_two_steps(recipe: Recipe, varied: Path, random_sam: Path, tmp_path: Path) -> None:
    changed = shorten(recipe)
    if changed.sam is not None:  # no pretrained one in tests
        changed = changed.model_copy(update={"sam": changed.sam.model_copy(update={"encoder": str(random_sam)})})
    card = load_card(train(changed, [varied], tmp_path / "run", accelerator="cpu", threads=1))
    assert card.name == recipe.name
    assert card.training is not None
    assert card.training.steps == STEPS * len(recipe.phases)
