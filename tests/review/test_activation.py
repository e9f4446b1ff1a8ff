"""The activation map against the layer's own input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hemalum.errors import HemalumError
from hemalum.inference.image import ImageSource
from hemalum.inference.model import load_model
from hemalum.networks.map_model import build
from hemalum.review.activation import _last_layer, activation_map


def test_it_is_the_mean_of_what_the_head_reads(dark_model: Path) -> None:
    model = load_model(dark_model)
    image = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    with ImageSource.of(image) as source:
        found = activation_map(source, model, mpp=0.5)
    # the network is one convolution that looks at single pixels: darkness above 140 of each sub-pixel, and brightness
    network = build(model.card, model.tensors).network
    seen: list[torch.Tensor] = []
    network.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))  # type: ignore[operator,union-attr]
    network(torch.from_numpy((image.transpose(2, 0, 1)[None] / 255 - 0.5) / 0.25).float())
    expected = F.interpolate(seen[0].abs().mean(1, keepdim=True), (32, 48), mode="bilinear")[0, 0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert found.std() > 0


def test_it_has_the_images_own_grid_and_follows_the_organ(tiny: Path) -> None:
    model = load_model(tiny)
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    with ImageSource.of(image) as source:
        liver, brain = (activation_map(source, model.with_organ(organ), mpp=0.7) for organ in ("liver", "brain"))
    assert liver.shape == (70, 90)
    assert not np.array_equal(liver, brain)


def test_without_a_head_the_last_convolution_is_looked_at() -> None:
    last = nn.Conv2d(4, 1, 1)
    assert _last_layer(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), last), "n") is last
    with pytest.raises(HemalumError, match="network 'n' has no layer called head and no convolution"):
        _last_layer(nn.Sequential(nn.Linear(1, 1)), "n")
