"""U-Net3+: its sizes, its pooling, its deep supervision and its classification-guided module."""

import pytest
import torch

from hemalum.networks.contract import Outputs
from hemalum.networks.unet3plus import ACTIVATIONS, Down, UNet3Plus

NARROW = (4, 8, 12, 16)
HALF = (32, 64, 128, 256, 512)


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("options", "millions"),
    [
        ({}, 26.97),
        ({"activation": "glu"}, 45.83),
        ({"widths": HALF}, 6.75),
        ({"widths": HALF, "activation": "glu"}, 11.47),
    ],
)
def test_the_published_parameter_counts(options: dict, millions: float) -> None:
    assert round(parameters(UNet3Plus(outputs=2, **options)) / 1e6, 2) == millions


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_only_the_encoder_has_the_activation(activation: str) -> None:
    network = UNet3Plus(widths=NARROW, activation=activation)
    names = {"relu": "ReLU", "leaky_relu": "LeakyReLU", "swish": "SiLU", "glu": "GLU"}
    assert {type(block[2]).__name__ for level in network.encoder for block in level} == {names[activation]}
    decoder = {type(module).__name__ for module in network.decoder.modules()}
    assert "ReLU" in decoder
    assert not decoder & {"LeakyReLU", "SiLU", "GLU"}


def test_every_decoder_level_sees_all_scales() -> None:
    network = UNet3Plus(widths=NARROW, skip=4).eval()
    assert [len(block.from_encoder) for block in network.decoder] == [3, 2, 1]
    assert [len(block.from_decoder) for block in network.decoder] == [1, 2, 3]
    levels = network.encode(torch.rand(1, 3, 32, 32))
    logits = network.decode(levels)
    for number in range(len(levels)):
        changed = [level + 1 if index == number else level for index, level in enumerate(levels)]
        assert not torch.equal(network.decode(changed), logits)


def test_blurred_pooling_by_hand() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 2, 3] = 16  # the pixel (1, 1) of the pooled map
    expected = torch.zeros(4, 4)
    expected[:3, :3] = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
    assert torch.equal(Down(blurred=True)(x)[0, 0], expected)
    pooled = torch.zeros(4, 4)
    pooled[1, 1] = 16
    assert torch.equal(Down(blurred=False)(x)[0, 0], pooled)


def test_auxiliary_logits_come_while_training_only_and_at_full_size() -> None:
    network = UNet3Plus(outputs=2, widths=NARROW, deep_supervision=True, cgm=True)
    x = torch.rand(2, 3, 32, 24)
    outputs = network.train()(x)
    assert isinstance(outputs, Outputs)
    assert [logits.shape for logits in outputs.aux_logits] == [(2, 2, 32, 24)] * 3
    assert outputs.extras["presence"].shape == (2, 2)
    assert isinstance(network.eval()(x), torch.Tensor)


def test_the_module_empties_images_without_nuclei_and_no_others() -> None:
    network = UNet3Plus(widths=NARROW, cgm=True).eval()
    plain = UNet3Plus(widths=NARROW).eval()
    plain.load_state_dict(network.state_dict(), strict=False)
    x = torch.rand(2, 3, 32, 32)
    dense = network.presence[1]
    torch.nn.init.zeros_(dense.weight)
    with torch.no_grad():
        dense.bias.copy_(torch.tensor([1.0, 0.0]))
        assert (network(x).sigmoid() < 1e-4).all()
        dense.bias.copy_(torch.tensor([0.0, 1.0]))
        assert torch.equal(network(x), plain(x))
    assert network.global_context
    assert not plain.global_context


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "glue"}, "activation 'glue', did you mean 'glu'?"),
        ({"down": "stride"}, "down 'stride'.*it can be max, max_blur"),
        ({"widths": [8]}, "at least two levels"),
    ],
)
def test_options_that_it_does_not_have(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        UNet3Plus(**options)
