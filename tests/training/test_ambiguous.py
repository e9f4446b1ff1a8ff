"""Areas where the annotators could not tell: no loss sees them, and no validation counts them."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch import nn

from builders.trainings import RECIPE, make_context
from hemalum.data.augmentation.image_bank import ImageBank
from hemalum.data.dataset import Dataset, write_index
from hemalum.losses import build_loss
from hemalum.training.loader import TrainLoader
from hemalum.training.recipe import Recipe
from hemalum.training.train import train
from hemalum.training.validation import Validation

PLAIN: dict[str, Any] = RECIPE | {
    "representation": "foreground",
    "augment": "none",
    "phases": [{"name": "main", "until": {"steps": 2}}],
    "ema": 0,
}
AREA = np.s_[20:44, 20:44]  # of each image of 64 x 64 px


def mark(mini: Path, target: Path, *, nuclei: bool) -> Path:
    """A copy of a dataset whose middles are ambiguous, and full of nuclei or empty there."""
    shutil.copytree(mini, target)
    data = Dataset.open(target)
    (target / "ambiguous").mkdir()
    rows = []
    for row in data.rows:
        mask = np.zeros((64, 64), np.uint8)
        mask[AREA] = 255
        Image.fromarray(mask).save(target / "ambiguous" / f"{row.id}.png")
        labels = np.array(Image.open(target / row.label))
        labels[AREA] = 99 if nuclei else 0
        Image.fromarray(labels).save(target / row.label)
        rows.append(replace(row, ambiguous=f"ambiguous/{row.id}.png"))
    write_index(target, data.info, rows)
    return target


@pytest.fixture(scope="module")
def full(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mark(mini, tmp_path_factory.mktemp("full") / "mini", nuclei=True)


@pytest.fixture(scope="module")
def empty(mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mark(mini, tmp_path_factory.mktemp("empty") / "mini", nuclei=False)


def weights(data: Path, out: Path, **changes: Any) -> dict[str, np.ndarray]:
    recipe = Recipe.model_validate(PLAIN | changes)
    return load_file(train(recipe, [data], out, accelerator="cpu", threads=1))


def test_labels_of_an_ambiguous_area_are_not_learned(full: Path, empty: Path, tmp_path: Path) -> None:
    one, other = weights(full, tmp_path / "full"), weights(empty, tmp_path / "empty")
    for name, values in one.items():
        np.testing.assert_array_equal(other[name], values, err_msg=name)
    counted = weights(empty, tmp_path / "counted", ambiguous="count")
    assert any(not np.array_equal(counted[name], values) for name, values in one.items())


def open_loader(data: Path, **changes: Any) -> TrainLoader:
    context = make_context(Recipe.model_validate(PLAIN | changes))
    return TrainLoader(context, [Dataset.open(data).split("train")])


def test_batches_say_what_counts(mini: Path, full: Path) -> None:
    batch = open_loader(full, tile=64).batch(0)
    assert batch.valid is not None
    expected = torch.ones(2, 1, 64, 64)
    expected[(..., *AREA)] = 0
    torch.testing.assert_close(batch.valid, expected)
    assert (batch.targets[(..., *AREA)] == 1).all()
    assert open_loader(full, ambiguous="count").batch(0).valid is None
    assert open_loader(mini).batch(0).valid is None  # nothing to leave out
    # crops of 96 px from images of 64: the rest is mirrored
    beyond = open_loader(mini, tile=96, beyond="ignore").batch(0).valid
    assert beyond is not None
    assert beyond.sum((1, 2, 3)).tolist() == [64 * 64] * 2
    both = open_loader(full, tile=96, beyond="ignore").batch(0).valid
    assert both is not None
    assert both.sum((1, 2, 3)).tolist() == [64 * 64 - 24 * 24] * 2


def test_a_finer_grid_of_targets_has_the_same_mask(full: Path) -> None:
    fine = open_loader(full, tile=64, target_supersampling=2).batch(0)
    assert fine.valid is not None
    torch.testing.assert_close(fine.valid, open_loader(full, tile=64).batch(0).valid)


def test_a_batch_finished_on_a_device_has_the_mask(full: Path) -> None:
    loader = open_loader(full)
    bank = ImageBank([sample.image for sample in loader.prepared], torch.device("cpu"))
    finished = loader.finish(3, loader.parts(3, images=False), bank)
    torch.testing.assert_close(finished.valid, loader.batch(3).valid)
    assert next(iter(loader.batches(3, 4))).valid is not None  # out of another process


class Everything(nn.Module):
    """Every pixel is nucleus."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full_like(images[:, :1], 9.0)


class Dark(nn.Module):
    """What is dark is nucleus."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 20 * (0.6 - images.mean(1, keepdim=True))


def test_validation_matches_no_nucleus_there(full: Path, empty: Path) -> None:
    """In `full` a nucleus that nobody sees fills the middle of each image."""

    def score(data: Path, **changes: Any) -> float:
        context = make_context(Recipe.model_validate(PLAIN | changes))
        return Validation(context, [Dataset.open(data).split("val")]).score(Dark())["score"]

    assert score(full) == score(empty) > 0.5
    assert score(full, ambiguous="count") < score(full)


def test_validation_counts_them_nowhere(full: Path, empty: Path) -> None:
    def score(data: Path, **changes: Any) -> dict[str, float]:
        context = make_context(Recipe.model_validate(PLAIN | changes))
        return Validation(context, [Dataset.open(data).split("val")]).score(Everything(), build_loss("bce"))

    ignored = score(full)
    assert score(empty) == ignored
    assert score(empty, ambiguous="count")["dice"] < score(full, ambiguous="count")["dice"]
    # by hand: of the pixels that count, the share that is nucleus
    samples = list(Dataset.open(full).split("val"))
    hits = sum(int((sample.instances > 0)[~sample.ambiguous].sum()) for sample in samples)
    pixels = sum(int((~sample.ambiguous).sum()) for sample in samples)
    assert ignored["dice"] == pytest.approx(2 * hits / (hits + pixels))
    loss = np.mean(
        [np.log1p(np.exp(-9.0)) + 9 * (1 - (sample.instances > 0)[~sample.ambiguous].mean()) for sample in samples]
    )
    assert ignored["val_loss"] == pytest.approx(loss, rel=1e-4)
