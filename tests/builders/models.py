"""Models and images small enough to be made in a test, with answers that are known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from hemalum.models.card import Card, NetworkSpec
from hemalum.models.model import Model
from hemalum.nuclei.settings import SeparationSettings


@dataclass
class BlobEngine:
    """Maps that follow from the pixels within RADIUS: smoothed channels, black beyond the window.

    Enlarged by repeating. Sums are over whole numbers, so they do not depend on where a window begins. `share` is
    what each channel is multiplied by.
    """

    output_upsampling: int = 1
    channels: int = 2
    share: float = 1.0
    name: str = "blobs"
    precision: str = "f32"
    parallel: int = 2
    batch: int = 1
    windows: int = 0

    RADIUS = 6

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.windows += 1
        weight = np.ones(2 * self.RADIUS + 1, np.int64)
        result = []
        for image in images:
            planes = image.astype(np.int64)
            for axis in (0, 1):
                planes = ndimage.convolve1d(planes, weight, axis=axis, mode="constant")
            smooth = (planes / (255 * weight.size**2)).astype(np.float32)
            maps = np.moveaxis(smooth[..., [index % 3 for index in range(self.channels)]], -1, 0)
            maps = np.clip((maps - np.float32(0.5)) * 6 + np.float32(0.5), 0, 1) * np.float32(self.share)
            result.append(maps.repeat(self.output_upsampling, axis=1).repeat(self.output_upsampling, axis=2))
        return np.stack(result)


@pytest.fixture(scope="session")
def disk_card() -> Card:
    """A card for DiskEngine, which needs no weights."""
    return Card(
        name="disks",
        network=NetworkSpec(name="none"),
        representation="distance",
        mpp=0.5,
        halo=4,
        stride=4,
        nucleus_diameter_um=8.0,
        separation=SeparationSettings(min_area=4),
        code_version="0",
    )


@dataclass
class DiskEngine:
    """Dark is nucleus; the distance map is high in the middle. Sees no further than a few pixels."""

    name: str = "disks"
    precision: str = "f32"
    parallel: int = 1
    batch: int = 1

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        dark = 1 - images.mean(axis=-1, dtype=np.float32) / 255
        foreground = np.clip((dark - 0.5) * 3 + 0.5, 0, 1)
        return np.stack([foreground, foreground], axis=1).astype(np.float32)


@dataclass
class HomeEngine:
    """Knows disks 16 px across: the more another size differs, the less sure it is.

    The response is a Laplacian of Gaussian, which answers most to the disk that fits into it.
    """

    name: str = "home"
    precision: str = "f32"
    parallel: int = 1
    batch: int = 1

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        result = []
        for image in images:
            dark = 1 - image.mean(axis=-1, dtype=np.float32) / 255
            response = 64 * -ndimage.gaussian_laplace(dark, 16 / 2 / 2**0.5) / 0.8
            result.append(np.clip(np.stack([response, response]), 0, 1))
        return np.stack(result).astype(np.float32)


def make_model(**changes: Any) -> Model:
    """A compact network of 20,000 weights, drawn at random; its maps are neither empty nor full."""
    import torch

    from hemalum.models.network import build_network, measure_halo
    from hemalum.targets.representations import REPRESENTATIONS

    options = {"widths": [8, 16], "depths": [0, 1]}
    values: dict[str, Any] = {
        "name": "tiny",
        "network": NetworkSpec(name="compact", options=options),
        "representation": "distance",
        "mpp": 0.5,
        "stride": 4,
        "halo": 0,
        "code_version": "0",
        "separation": SeparationSettings(min_area=6),
    } | changes
    torch.manual_seed(3)
    network = build_network("compact", REPRESENTATIONS[values["representation"]].logits, options).eval()
    if "halo" not in changes:
        values["halo"] = measure_halo(network, 4)
    with torch.no_grad():
        network.head.weight.mul_(8)
        network.head.bias.zero_()
    return Model(Card(**values), {name: value.numpy() for name, value in network.state_dict().items()})


@pytest.fixture(scope="session")
def tiny_model() -> Model:
    return make_model()


@pytest.fixture(scope="session")
def make_tiny_model() -> Callable[..., Model]:
    return make_model


@pytest.fixture(scope="session")
def blob_engine_type() -> type[BlobEngine]:
    return BlobEngine


@pytest.fixture
def disk_engine() -> DiskEngine:
    return DiskEngine()


@pytest.fixture
def home_engine() -> HomeEngine:
    return HomeEngine()


def blobs(height: int, width: int, seed: int, size: float = 2.5, light: float = 0.0) -> NDArray[np.uint8]:
    """Smooth random colors (height, width, 3)."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((height, width, 3)), (size, size, 0))
    return np.clip(noise / noise.std() * 60 + 127 + light, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def make_blobs() -> Callable[..., NDArray[np.uint8]]:
    return blobs


def disks(height: int, width: int, diameter: float, seed: int = 0) -> NDArray[np.uint8]:
    """Dark disks (blue-violet) on pink that do not touch, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (235, 205, 220), np.uint8)
    y, x = np.mgrid[:height, :width] + 0.5
    pitch = 1.9 * diameter
    for row in range(int(height // pitch)):
        for column in range(int(width // pitch)):
            r = diameter / 2 * rng.uniform(0.85, 1.15)
            cy, cx = (np.array([row, column]) + 0.5 + rng.uniform(-0.1, 0.1, 2)) * pitch
            image[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = (60, 40, 110)
    return image


@pytest.fixture(scope="session")
def make_disks() -> Callable[..., NDArray[np.uint8]]:
    return disks
