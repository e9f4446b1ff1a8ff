"""A miniature dataset and recipe that train in seconds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemalum.data.importing import import_dataset
from hemalum.training.recipe import Recipe

RECIPE = {
    "name": "mini",
    "seed": 3,
    "network": {"name": "compact", "options": {"widths": [8, 12, 16], "depths": [0, 1, 1]}},
    "representation": "distance",
    "mpp": 0.5,
    "tile": 32,
    "batch": 2,
    "data": {"mini": {"balance": "group"}},
    "phases": [
        {"name": "first", "until": {"steps": 5}},
        {
            "name": "second",
            "train": ["decoder.*", "head.*"],
            "optimiser": {"name": "sgd", "lr": 0.01},
            "schedule": {"name": "plateau", "patience": 1},
            "until": {"steps": 4},
        },
    ],
    "ema": 0.9,
    "clip": 1.0,
    "validate_every": 2,
    "checkpoint_every": 2,
}


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe.model_validate(RECIPE)


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder "mini" of ten images in five groups, at 0.5 µm/px, with dark discs as nuclei."""
    source = tmp_path_factory.mktemp("source")
    (source / "images").mkdir()
    (source / "labels").mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,label,patient"]
    y, x = np.mgrid[:64, :64]
    for number in range(10):
        labels = np.zeros((64, 64), np.uint16)
        for index in range(1, 7):
            cy, cx = rng.integers(6, 58, 2)
            labels[(y - cy) ** 2 + (x - cx) ** 2 < 36] = index
        image = np.where(labels[..., None] > 0, [110, 80, 160], [230, 190, 215]) + rng.normal(0, 8, (64, 64, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(source / "images" / f"{number}.png")
        Image.fromarray(labels).save(source / "labels" / f"{number}.png")
        lines.append(f"{number}.png,{number}.png,p{number // 2}")
    (source / "index.csv").write_text("\n".join(lines) + "\n")
    target = tmp_path_factory.mktemp("data") / "mini"
    import_dataset("folder", source, target, mpp=0.5, group="patient", split=(0.6, 0.2, 0.2), name="mini")
    return target
