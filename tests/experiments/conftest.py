"""A dataset of two organs and a ClinSegNet on it, both tiny."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.trainings import write_source

TINY: dict[str, Any] = {
    "name": "tiny",
    "system": {"name": "clin_seg_net", "network": {"widths": [4, 8], "embedding": 3}, "steps": 6},
    "ema": 0,
    "mpp": 0.5,
    "tile": 32,
    "batch": 4,
    "validate_every": 6,
}


@pytest.fixture(scope="session")
def organs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder "organs": ten images of liver, ten of brain, every image a group of its own."""
    from hemalum.data.importing import import_dataset

    tiles = []
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:48, :48]
    for number in range(20):
        organ = ("liver", "brain")[number % 2]
        labels = np.zeros((48, 48), np.uint16)
        for index in range(1, 5):
            cy, cx = rng.integers(6, 42, 2)
            labels[(y - cy) ** 2 + (x - cx) ** 2 < (36 if organ == "liver" else 16)] = index
        image = np.where(labels[..., None] > 0, [110, 80, 160], [230, 190, 215]) + rng.normal(0, 8, (48, 48, 3))
        tiles.append((image, labels, organ))
    source = write_source(tmp_path_factory.mktemp("source"), tiles, "organ", digits=2)
    target = tmp_path_factory.mktemp("data") / "organs"
    import_dataset("folder", source, target, mpp=0.5, split=(0.6, 0.2, 0.2), name="organs")
    return target


@pytest.fixture
def tiny_recipe() -> dict[str, Any]:
    """The keys of the recipe of `tiny`."""
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny(organs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model file of six steps of a tiny ClinSegNet on it."""
    from hemalum.training.recipe import Recipe
    from hemalum.training.train import train

    return train(Recipe.model_validate(TINY), [organs], tmp_path_factory.mktemp("tiny") / "run")
