"""The activation map against the layer's own input."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hemalum.experiments.activation import activation_map
from hemalum.models.map_model import build_map_model
from hemalum.models.model import load_model
from hemalum.models.network import build_network
from hemalum.slides.slide import Slide


def test_it_is_the_mean_of_what_the_head_reads(dark_model: Path) -> None:
    model = load_model(dark_model)
    image = np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)
    with Slide.of(image) as source:
        strength = activation_map(source, model, mpp=0.5)
    # the network is one convolution that looks at single pixels: darkness above 140 of each sub-pixel, and brightness
    network = build_map_model(model.card, model.tensors).network
    features: list[torch.Tensor] = []
    network.head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))  # type: ignore[operator,union-attr]
    network(torch.from_numpy((image.transpose(2, 0, 1)[None] / 255 - 0.5) / 0.25).float())
    expected = F.interpolate(features[0].abs().mean(1, keepdim=True), (32, 48), mode="bilinear")[0, 0]
    np.testing.assert_allclose(strength, expected.numpy(), atol=1e-5)
    assert strength.std() > 0


def test_it_has_the_images_own_grid_and_follows_the_organ(tiny: Path) -> None:
    model = load_model(tiny)
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8)
    with Slide.of(image) as source:
        liver, brain = (activation_map(source, model.with_organ(organ), mpp=0.7) for organ in ("liver", "brain"))
    assert liver.shape == (70, 90)
    assert not np.array_equal(liver, brain)


@pytest.mark.parametrize(
    ("name", "options"), [("ddu_net", {"widths": [4, 8], "bottom": [8, 16], "dropout": [0, 0, 0]}), ("two_stage", {})]
)
def test_without_a_head_the_last_convolution_is_looked_at(name: str, options: dict[str, list[int]]) -> None:
    network = build_network(name, 2, options)
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    assert network.get_submodule(network.final_layer) is last
