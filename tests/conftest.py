"""Fixtures that every room's tests may use."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

if TYPE_CHECKING:
    from hemalum.training.recipe import Recipe

# the first example of a property may wait for numba to compile; timings are no business of tests
settings.register_profile("hemalum", deadline=None)
settings.load_profile("hemalum")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep converted models out of the user's cache, and start without any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEMALUM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def random_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a little SAM with random weights; a test that asks for it is skipped without the extra `sam`."""
    pytest.importorskip("transformers")
    import sys

    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from random_sam import save_random_sam
    finally:
        sys.path.pop(0)
    return save_random_sam(tmp_path_factory.mktemp("sam") / "random", side=64, width=16, layers=2, channels=8)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real datasets; a test that asks for it is skipped where it is absent."""
    folder = Path(os.environ.get("HEMALUM_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "tnbc" / "index.csv").is_file():
        pytest.skip(f"no real data at {folder}: HEMALUM_TEST_DATA names the folder with tnbc/, dsb2018/ …")
    return folder


@pytest.fixture(scope="session")
def dark_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that takes dark pixels for nucleus: `compact` with one width and weights set by hand.

    Its first convolution looks at single pixels only, so what it finds can be told by looking at the image:
    the 4-connected pieces of pixels whose mean over R, G, B is below 140.
    """
    from hemalum.models.card import Card, NetworkSpec, SeparationSettings
    from hemalum.models.file import save_model

    # the 12 inputs are 3 colours times 4 sub-pixels; channels 0-3 are how dark each sub-pixel is, 4-7 how bright
    convolution = np.zeros((8, 12, 3, 3), np.float32)
    head = np.zeros((8, 8, 1, 1), np.float32)
    threshold = (140 / 255 - 0.5) / 0.25
    for pixel in range(4):
        for colour in range(3):
            convolution[pixel, colour * 4 + pixel, 1, 1] = -1 / 3
            convolution[4 + pixel, colour * 4 + pixel, 1, 1] = 1 / 3
        for output in range(2):
            head[output * 4 + pixel, pixel] = 8
            head[output * 4 + pixel, 4 + pixel] = -8
    tensors = {
        "encoder.0.0.0.weight": convolution,
        "encoder.0.0.1.weight": np.ones(8, np.float32),
        "encoder.0.0.1.bias": np.repeat(np.float32([threshold, -threshold]), 4),
        "encoder.0.0.1.running_mean": np.zeros(8, np.float32),
        "encoder.0.0.1.running_var": np.ones(8, np.float32),
        "encoder.0.0.1.num_batches_tracked": np.zeros((), np.int64),
        "head.weight": head,
        "head.bias": np.zeros(8, np.float32),
    }
    card = Card(
        name="dark",
        network=NetworkSpec(name="compact", options={"widths": [8], "depths": [0]}),
        representation="distance",
        mpp=0.5,
        halo=4,
        stride=2,
        separation=SeparationSettings(min_area=5),
        nucleus_diameter_um=8.0,
        metrics={"made up": {"PQ": 0.5, "Dice": 0.75}},
        code_version="0",
    )
    path = tmp_path_factory.mktemp("model") / "dark.safetensors"
    save_model(path, card, tensors)
    return path


@pytest.fixture(scope="session")
def two_class_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that takes dark pixels for nucleus, of class "red" or "blue": whichever colour is the stronger.

    Like `dark_model`, with two more features for each sub-pixel: how much bluer than red it is, and the reverse.
    """
    from hemalum.models.card import Card, NetworkSpec, SeparationSettings
    from hemalum.models.file import save_model

    convolution = np.zeros((16, 12, 3, 3), np.float32)
    head = np.zeros((12, 16, 1, 1), np.float32)
    threshold = (140 / 255 - 0.5) / 0.25
    for pixel in range(4):
        for colour in range(3):
            convolution[pixel, colour * 4 + pixel, 1, 1] = -1 / 3
            convolution[4 + pixel, colour * 4 + pixel, 1, 1] = 1 / 3
        for feature, sign in ((8, 1), (12, -1)):
            convolution[feature + pixel, 0 * 4 + pixel, 1, 1] = sign
            convolution[feature + pixel, 2 * 4 + pixel, 1, 1] = -sign
        for output, weights in enumerate(((-8, 8, 0, 0), (8, -8, 4, -4), (8, -8, -4, 4))):  # background, red, blue
            head[output * 4 + pixel, pixel::4, 0, 0] = weights
    tensors = {
        "encoder.0.0.0.weight": convolution,
        "encoder.0.0.1.weight": np.ones(16, np.float32),
        "encoder.0.0.1.bias": np.repeat(np.float32([threshold, -threshold, 0, 0]), 4),
        "encoder.0.0.1.running_mean": np.zeros(16, np.float32),
        "encoder.0.0.1.running_var": np.ones(16, np.float32),
        "encoder.0.0.1.num_batches_tracked": np.zeros((), np.int64),
        "head.weight": head,
        "head.bias": np.zeros(12, np.float32),
    }
    card = Card(
        name="two",
        network=NetworkSpec(name="compact", options={"widths": [16], "depths": [0]}),
        representation="semantic",
        classes=["red", "blue"],
        mpp=0.5,
        halo=4,
        stride=2,
        separation=SeparationSettings(min_area=5),
        nucleus_diameter_um=8.0,
        code_version="0",
    )
    path = tmp_path_factory.mktemp("classes") / "two.safetensors"
    save_model(path, card, tensors)
    return path


RECIPE: dict[str, Any] = {
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
def recipe() -> "Recipe":
    """A recipe for the dataset `mini` that trains in seconds."""
    from hemalum.training.recipe import Recipe

    return Recipe.model_validate(RECIPE)


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder "mini" of ten images in five groups, at 0.5 µm/px, with dark discs as nuclei."""
    from hemalum.data.importing import import_dataset

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
