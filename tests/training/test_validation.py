"""What the validation images measure: the loss, scores by class, windows put together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score, jaccard_score
from torch import Tensor, nn

from builders.trainings import make_context, read_log
from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.models.network import build_network
from hemalum.systems.phases import Phase, StopCriteria
from hemalum.training.data_spec import gather_data_spec
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
        labels, class_map = np.zeros((2, 64, 64), np.uint8)
        for index, (row, column) in enumerate(np.ndindex(4, 4), start=1):
            inside = (y - 8 - 16 * row) ** 2 + (x - 8 - 16 * column) ** 2 < 30
            class_id = int(rng.integers(1, 3))
            labels[inside], class_map[inside] = index, class_id if rng.random() > 0.2 else 3 - class_id
            image[inside] = RED if class_id == 1 else BLUE
        for folder, pixels in (("images", image), ("labels", labels), ("classes", class_map)):
            (source / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(source / folder / f"{number}.png")
    target = source / "data"
    import_dataset("folder", source, target, mpp=0.5, class_names="red,blue,rare", split=(0.6, 0.2, 0.2), name="mini")
    return target


def semantic(recipe: Recipe, **until: Any) -> Recipe:
    phase = recipe.phases[0]
    phase = phase.model_copy(update={"until": phase.until.model_copy(update=until)})
    return recipe.model_copy(update={"representation": "semantic", "phases": [phase]})


class ByColor(nn.Module):
    """Logits for background, red, blue and rare of normalized images, by their colors."""

    def forward(self, images: Tensor) -> Tensor:
        red, _, blue = (images * 0.25 + 0.5).unbind(1)
        dark = 0.7 - (red + blue) / 2
        return torch.stack([-20 * dark, 20 * dark + 9 * (red - blue), 20 * dark + 9 * (blue - red), -50 + 0 * red], 1)


def test_scores_of_pixels_by_class(recipe: Recipe, classed: Path) -> None:
    dataset = Dataset.open(classed)
    changed = semantic(recipe)
    data_spec = gather_data_spec(changed, [dataset])
    part = dataset.split("val")
    scores = Validation(make_context(changed, data_spec=data_spec, stride=8), [part]).score(ByColor())
    truth = np.concatenate([sample.classes[sample.instances].ravel() for sample in part])
    colors = np.concatenate([sample.image.reshape(-1, 3) for sample in part])
    class_ids = np.where((colors == GROUND).all(1), 0, np.where(colors[:, 0] > colors[:, 2], 1, 2))
    options = {"labels": [1, 2], "average": "macro"}  # nothing is rare: in no mean
    assert 0.3 < scores["miou"] < 0.95
    assert scores["mini_miou"] == scores["miou"] == pytest.approx(jaccard_score(truth, class_ids, **options))
    assert scores["mini_f1"] == scores["f1"] == pytest.approx(f1_score(truth, class_ids, **options))
    assert scores["dice"] > 0.95
    without = Validation(make_context(recipe, stride=8), [part]).score(nn.Conv2d(3, 2, 1))
    assert not {"f1", "miou", "mini_f1"} & set(without)


def test_weights_can_be_kept_by_miou(recipe: Recipe, classed: Path, tmp_path: Path) -> None:
    path = train(semantic(recipe, monitor="miou", steps=6), [classed], tmp_path / "run", accelerator="cpu")
    assert path.is_file()
    assert all({"mini_f1", "mini_miou", "miou", "mini_pq"} <= set(row) for row in read_log(tmp_path / "run"))


def test_miou_needs_classes(recipe: Recipe) -> None:
    content = recipe.model_dump(mode="json")
    content["phases"][0]["until"]["monitor"] = "miou"
    with pytest.raises(ValueError, match="monitors miou, which representation 'distance' does not have"):
        Recipe.model_validate(content)


def test_the_validation_loss_is_the_loss_of_its_images(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    changed = recipe.model_copy(update={"representation": "foreground"})
    part = Dataset.open(mini).split("val")
    network = build_network("compact", 1, recipe.network.options).eval()
    loss = Phase(name="p", loss="bce", until=StopCriteria(steps=1)).loss
    val_loss = Validation(make_context(changed, stride=8), [part]).score(network, loss)["val_loss"]
    expected = []
    network.requires_grad_(False)
    for sample in part:
        image = torch.from_numpy(sample.image.copy()).permute(2, 0, 1)[None] / 255
        truth = torch.from_numpy(sample.instances > 0).float()[None, None]
        expected.append(float(nn.functional.binary_cross_entropy_with_logits(network((image - 0.5) / 0.25), truth)))
    assert val_loss == pytest.approx(np.mean(expected), rel=1e-4)


def test_windows_of_validation_are_put_together(mini: Path, recipe: Recipe) -> None:
    part = [Dataset.open(mini).split("val")]

    class Plain(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[2:] in ((32, 32), (64, 64))
            return x[:, :2] * 3

    contexts = [make_context(recipe, stride=8, window=window) for window in (32, None)]
    in_windows, in_full = (Validation(context, part).score(Plain()) for context in contexts)
    assert in_windows == in_full
