"""From pixels to maps."""

import numpy as np
import pytest
import torch
from torch import nn

from hemalum.errors import HemalumError
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.map_model import MapModel, activate, build_map_model
from hemalum.models.network import build_network
from hemalum.targets.representations import REPRESENTATIONS, Head

OPTIONS = {"widths": [8, 16, 24], "depths": [0, 1, 1]}


def card(**changes: object) -> Card:
    fields = {
        "name": "t", "network": NetworkSpec(name="compact", options=OPTIONS), "representation": "distance",
        "mpp": 0.5, "halo": 40, "stride": 8, "code_version": "0",
    }  # fmt: skip
    return Card.model_validate(fields | changes)


def weights(representation: str = "distance") -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    network = build_network("compact", REPRESENTATIONS[representation].logits, OPTIONS)
    return {name: value.numpy() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("name", sorted(REPRESENTATIONS))
def test_maps_have_the_representations_channels_and_ranges(name: str) -> None:
    model = build_map_model(card(representation=name), weights(name))
    maps = model(torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8))
    assert maps.shape == (2, len(REPRESENTATIONS[name].channels), 32, 48)
    assert maps.dtype == torch.float32
    for channel, values in zip(REPRESENTATIONS[name].channels, maps.unbind(1), strict=True):
        low = -1 if channel in ("horizontal", "vertical") else 0
        assert low <= values.min()
        assert values.max() <= 1


def test_normalization_is_that_of_the_card() -> None:
    tensors = weights()
    image = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8)
    network = build_network("compact", 2, OPTIONS).eval()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    mean, std = (0.7, 0.5, 0.6), (0.2, 0.3, 0.1)
    by_hand = (image.permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(
        1, 3, 1, 1
    )
    expected = network(by_hand).sigmoid()
    model = build_map_model(card(mean=mean, std=std), tensors)
    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-5)


def test_logits_are_enlarged_about_pixel_centers() -> None:
    """A logit ramp along x stays a ramp, with half the slope and no shift (away from the clamped border)."""
    network = nn.Conv2d(3, 2, 1)
    nn.init.zeros_(network.weight)
    network.weight.data[:, 0] = 1
    nn.init.zeros_(network.bias)
    model = MapModel(network, card(output_upsampling=2, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)).eval()
    ramp = torch.arange(16, dtype=torch.uint8).expand(1, 16, 16)[..., None].expand(1, 16, 16, 3)
    logits = torch.logit(model(ramp).double())[0, 0, 5, 1:7]
    expected = (torch.arange(1, 7) + 0.5) / 2 - 0.5  # centers of the fine pixels on the coarse grid
    torch.testing.assert_close(logits, expected.double(), rtol=1e-3, atol=1e-3)


def test_softmax_head_drops_the_background() -> None:
    logits = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    maps = activate(logits, (Head("softmax", ("interior", "boundary")),))
    expected = np.exp([2, 3]) / np.exp([1, 2, 3]).sum()
    np.testing.assert_allclose(maps.flatten().numpy(), expected, rtol=1e-6)


@pytest.mark.fault
def test_weights_of_another_network_are_refused() -> None:
    tensors = weights()
    tensors.pop("head.bias")
    with pytest.raises(HemalumError, match="weights do not fit network 'compact'"):
        build_map_model(card(), tensors)
    with pytest.raises(HemalumError, match="unknown representation 'rings'"):
        build_map_model(card(representation="rings"), weights())
