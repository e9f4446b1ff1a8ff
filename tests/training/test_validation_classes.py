"""Scores by class on the validation images, and what is kept by them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score
from torch import Tensor, nn

from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.training.building import gather_facts
from hemalum.training.recipe import Recipe
from hemalum.training.train import train
from hemalum.training.validation import Validation

RED, BLUE, GROUND = (150, 40, 60), (60, 40, 150), (235, 225, 235)


@pytest.fixture(scope="module")
def classed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of discs, red or blue, as the truth says but for one in five; nothing is "rare"."""
    source = tmp_path_factory.mktemp("classed")
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:64, :64]
    for number in range(10):
        image = np.full((64, 64, 3), GROUND, np.uint8)
        labels, kinds = np.zeros((2, 64, 64), np.uint8)
        for index, (row, column) in enumerate(np.ndindex(4, 4), start=1):
            inside = (y - 8 - 16 * row) ** 2 + (x - 8 - 16 * column) ** 2 < 30
            kind = int(rng.integers(1, 3))
            labels[inside], kinds[inside] = index, kind if rng.random() > 0.2 else 3 - kind
            image[inside] = RED if kind == 1 else BLUE
        for folder, pixels in (("images", image), ("labels", labels), ("classes", kinds)):
            (source / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(source / folder / f"{number}.png")
    target = source / "data"
    import_dataset("folder", source, target, mpp=0.5, class_names="red,blue,rare", split=(0.6, 0.2, 0.2), name="mini")
    return target


def semantic(recipe: Recipe, **until: Any) -> Recipe:
    phase = recipe.phases[0]
    phase = phase.model_copy(update={"until": phase.until.model_copy(update=until)})
    return recipe.model_copy(update={"representation": "semantic", "phases": [phase]})


class ByColour(nn.Module):
    """Logits for background, red, blue and rare of normalised images, by their colours."""

    def forward(self, images: Tensor) -> Tensor:
        red, _, blue = (images * 0.25 + 0.5).unbind(1)
        dark = 0.7 - (red + blue) / 2
        return torch.stack([-20 * dark, 20 * dark + 9 * (red - blue), 20 * dark + 9 * (blue - red), -50 + 0 * red], 1)


def test_scores_of_pixels_by_class(recipe: Recipe, classed: Path) -> None:
    dataset = Dataset.open(classed)
    changed = semantic(recipe)
    facts = gather_facts(changed, [dataset])
    part = dataset.split("val")
    fabric = Fabric(accelerator="cpu", devices=1)
    scores = Validation(changed, [part], 8, facts=facts).score(ByColour(), fabric)
    truth = np.concatenate([sample.classes[sample.instances].ravel() for sample in part])
    colours = np.concatenate([sample.image.reshape(-1, 3) for sample in part])
    found = np.where((colours == GROUND).all(1), 0, np.where(colours[:, 0] > colours[:, 2], 1, 2))
    options = {"labels": [1, 2], "average": "macro"}  # nothing is rare: in no mean
    assert 0.3 < scores["miou"] < 0.95
    assert scores["mini_miou"] == scores["miou"] == pytest.approx(jaccard_score(truth, found, **options))
    assert scores["mini_f1"] == scores["f1"] == pytest.approx(f1_score(truth, found, **options))
    assert scores["dice"] > 0.95
    without = Validation(recipe, [part], 8).score(nn.Conv2d(3, 2, 1), fabric)
    assert not {"f1", "miou", "mini_f1"} & set(without)


def test_weights_can_be_kept_by_miou(recipe: Recipe, classed: Path, tmp_path: Path) -> None:
    path = train(semantic(recipe, monitor="miou", steps=6), [classed], tmp_path / "run", accelerator="cpu")
    assert path.is_file()
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all({"mini_f1", "mini_miou", "miou", "mini_pq"} <= set(row) for row in rows)


def test_miou_needs_classes(recipe: Recipe) -> None:
    content = recipe.model_dump(mode="json")
    content["phases"][0]["until"]["monitor"] = "miou"
    with pytest.raises(ValueError, match="monitors miou, which representation 'distance' does not have"):
        Recipe.model_validate(content)
