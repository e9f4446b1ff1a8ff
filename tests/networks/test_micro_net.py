"""Micro-Net: its published size, the published sizes of its maps, and both paddings."""

import pytest
import torch
from torch import nn

from hemalum.networks.contract import Outputs
from hemalum.networks.micro_net import MicroNet


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("base", "expected"), [(64, 184_400_264), (16, 11_537_768), (8, 2_888_696)])
def test_it_has_the_published_parameters(base: int, padding: str, expected: int) -> None:
    with torch.device("meta"):  # 184 million parameters are counted, not made
        network = MicroNet(outputs=2, base=base, padding=padding)
    assert sum(p.numel() for p in network.parameters()) == expected


def _shapes(network: nn.Module, side: int) -> dict[str, tuple[int, int]]:
    """Channels and side of what each part of the network gives."""
    shapes = {}
    for name, module in network.named_modules():
        module.register_forward_hook(
            lambda _, __, out, name=name: (
                shapes.__setitem__(name, tuple(out.shape[1:3])) if isinstance(out, torch.Tensor) else None
            )
        )
    network(torch.zeros(1, 3, side, side, device="meta"))
    return shapes


@pytest.mark.parametrize(
    ("padding", "side", "expected"),
    [
        # the digest's table, layer by layer; `down` is before the pooling
        ("valid", 252, {"down": (248, 120, 56, 24), "bypass": (124, 60, 28, 12), "bottom": 8, "full": 254}),
        ("same", 256, {"down": (256, 128, 64, 32), "bypass": (128, 64, 32, 16), "bottom": 8, "full": 256}),
    ],
)
def test_maps_have_the_published_sizes(padding: str, side: int, expected: dict) -> None:
    with torch.device("meta"):
        network = MicroNet(outputs=2, padding=padding)
    shapes = _shapes(network, side)
    for level, width in enumerate((64, 128, 256, 512)):
        assert shapes[f"down.{level}"] == (width, expected["down"][level])
        assert shapes[f"bypass.{level}"] == (width, expected["bypass"][level])
    assert shapes["bottom"] == (2048, expected["bottom"])
    for level, (width, size) in enumerate([(1024, 16), (512, 32), (256, 64), (128, 128)]):
        assert shapes[f"up.{level}.main"] == shapes[f"up.{level}.skip"] == shapes[f"up.{level}"] == (width, size)
    for level, width in enumerate((64, 128, 256)):
        assert shapes[f"full.{level}"] == (width, expected["full"])
        assert shapes[f"aux_heads.{level}"] == (2, side)
    assert shapes["head"] == (2, side)


def test_auxiliary_heads_speak_in_training_alone() -> None:
    network = MicroNet(base=2)
    x = torch.rand(2, 3, 64, 96)
    outputs = network.train()(x)
    assert isinstance(outputs, Outputs)
    assert [tuple(logits.shape) for logits in outputs.aux_logits] == [(2, 1, 64, 96)] * 3
    assert isinstance(network.eval()(x), torch.Tensor)


def test_the_unpadded_form_takes_252_px_and_no_other() -> None:
    network = MicroNet(base=2, padding="valid").eval()
    assert network.fixed_window == 252
    assert network(torch.rand(1, 3, 252, 252)).shape == (1, 1, 252, 252)
    with pytest.raises(ValueError, match="takes 252 × 252 px, not 256 × 252; padding 'same' takes any multiple"):
        network(torch.rand(1, 3, 256, 252))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "reflect"}, "padding 'reflect', want one of valid, same"),
        ({"base": 0}, "base 0, want at least one"),
    ],
)
def test_values_that_are_not_possible(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MicroNet(**options)
