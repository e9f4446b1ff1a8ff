"""Two-stage enhancement: sizes, what the second stage sees and how far, what it passes on to its base."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hemalum.errors import HemalumError
from hemalum.models.network import build_network, measure_halo
from hemalum.networks.contract import Outputs
from hemalum.networks.two_stage import TwoStage

TINY = {"name": "unet", "options": {"widths": [3, 4]}}


@pytest.mark.parametrize(("options", "expected"), [({}, 76_289), ({"batch_norm": True}, 76_673)])
def test_the_second_stage_has_the_published_parameters(options: dict, expected: int) -> None:
    network = TwoStage(base=TINY, **options)
    assert sum(p.numel() for p in network.enhance.parameters()) == expected
    assert {name.partition(".")[0] for name, _ in network.named_parameters()} == {"base", "enhance"}


def test_k_outputs_are_seen_with_the_image() -> None:
    first = TwoStage(base=TINY, outputs=2, inputs=1).enhance[0]
    assert (first.in_channels, TwoStage(base=TINY, outputs=3).enhance[0].in_channels) == (3, 6)


@pytest.mark.parametrize("binarize", [False, True])
def test_it_follows_its_equation(binarize: bool) -> None:
    torch.manual_seed(0)
    network = TwoStage(base=TINY, width=5, binarize=binarize).eval()
    x = torch.rand(2, 3, 12, 8)
    first = network.base(x)
    p1 = first.sigmoid()
    seen = torch.cat([x, (p1 >= 0.5).float() if binarize else p1], 1)
    for layer in (0, 2, 4):
        seen = F.conv2d(seen, network.enhance[layer].weight, network.enhance[layer].bias, padding=1).relu()
    expected = F.conv2d(seen, network.enhance[6].weight, network.enhance[6].bias)
    torch.testing.assert_close(network(x), expected)
    outputs = network.train()(x)
    torch.testing.assert_close(outputs.logits, expected)
    torch.testing.assert_close(outputs.extras["stage1_logits"], first)
    network.enhanced = False
    torch.testing.assert_close(network.eval()(x), first)


@pytest.mark.parametrize("logit", [7.0, 12.0])
def test_a_sure_base_is_reached_in_half_precision(logit: float) -> None:
    """In bf16 the sigmoid of 7 is 1 and its gradient 0: p1 is in float32, whatever the network runs in."""
    torch.manual_seed(2)
    network = TwoStage(base=TINY, width=8)
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        network.base.head.weight.zero_()
        network.base.head.bias.fill_(logit)
    gradients = []
    for half in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = network(x).logits
        logits.float().sum().backward()
        gradients.append(network.base.head.bias.grad.clone())
    exact, half_gradient = gradients
    assert exact.abs() > 0
    torch.testing.assert_close(half_gradient, exact, rtol=0.2, atol=0)


@pytest.mark.parametrize("binarize", [False, True])
def test_joint_training_reaches_the_base(binarize: bool) -> None:
    torch.manual_seed(1)
    network = TwoStage(base=TINY, width=16, binarize=binarize)
    network(torch.rand(1, 3, 8, 8)).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.base.parameters())


def test_p1_of_each_head_is_what_its_map_is() -> None:
    """Written from the formulas: 1/(1 + e^-z), (e^2z - 1)/(e^2z + 1), e^z / sum e^z."""
    torch.manual_seed(3)
    heads = [["softmax", 3], ["sigmoid", 2], ["tanh", 1]]
    network = TwoStage(base=TINY, outputs=6, width=4, heads=heads).eval()
    x = torch.rand(2, 3, 8, 8)
    z = network.base(x)
    e = z.exp()
    softmax = e[:, :3] / e[:, :3].sum(1, keepdim=True)
    twice = (2 * z[:, 5:]).exp()
    p1 = torch.cat([softmax, 1 / (1 + 1 / e[:, 3:5]), (twice - 1) / (twice + 1)], 1)
    torch.testing.assert_close(network.activate(z), p1)
    torch.testing.assert_close(network(x), network.enhance(torch.cat([x, p1], 1)))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([["sigmoid", 1]], "'heads' have 1 logits, the network 2"),
        ([["sigmoids", 2]], r"activation 'sigmoids', did you mean 'sigmoid'\?"),
        (["sigmoid"], r"a list of \[activation, logits\]"),
    ],
)
def test_heads_that_are_none(heads: list[Any], message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        build_network("two_stage", 2, {"base": TINY, "heads": heads})


def test_the_second_stage_looks_three_pixels_around() -> None:
    network = TwoStage(base=TINY, width=4)
    assert measure_halo(network.enhance, 1, inputs=4) == 3  # 7 × 7
    alone = measure_halo(network.base, 2)
    assert alone < measure_halo(network, 2) <= alone + 4  # rounded up to the stride


def test_auxiliary_logits_of_the_base_come_where_it_trains() -> None:
    network = TwoStage(base={"name": "unet_plus_plus", "options": {"widths": [3, 4, 5]}}, width=4)
    x = torch.rand(1, 3, 8, 8)
    assert len(network.train()(x).aux_logits) == 1
    network.base.eval()
    outputs = network(x)
    assert isinstance(outputs, Outputs)
    assert outputs.aux_logits == ()
    assert set(outputs.extras) == {"stage1_logits"}


def test_what_the_base_needs_is_passed_on() -> None:
    options = {"widths": [4, 8, 16], "embedding": 4, "edge": False}
    network = TwoStage(base={"name": "seu_net", "options": options}, width=4, organs=3).eval()
    for parameter in network.base.film.parameters():  # without any difference between organs at the start
        torch.nn.init.normal_(parameter)
    assert network.conditions == network.base.conditions
    assert network.stride == network.base.stride
    x = torch.rand(1, 3, 4 * network.stride, 4 * network.stride)
    first, other = (network(x, organ=torch.tensor([organ])) for organ in (0, 1))
    assert not torch.equal(first, other)
    valid = TwoStage(base={"name": "micro_net", "options": {"base": 1, "padding": "valid"}}, width=2)
    assert valid.fixed_window == 252
    assert TwoStage(base=TINY, organs=3).conditions == ()  # takes none, so it has none


@pytest.mark.fault
@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"name": "two_stage", "options": {"base": TINY}}, "its base cannot be two_stage again"),
        ({"name": "unett"}, r"unknown network 'unett', did you mean 'unet'\?"),
        ({"name": "unet", "options": {"wdths": [4]}}, r"'unet' does not take these options: .*wdths"),
        ({"name": "unet", "widths": [4]}, "'base' is a mapping with the 'name' of a network and its 'options'"),
        ("unet", "'base' is a mapping"),
        ({"name": "unet", "options": [4]}, "'options' of base 'unet' is a mapping"),
        ({"name": "unet", "options": {"outputs": 2}}, "gets its outputs from the representation"),
    ],
)
def test_a_base_that_is_none(base: Any, message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        build_network("two_stage", 1, {"base": base})
