"""AL-Net's parts against their equations (docs/systems/al_net.md)."""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from hemalum.errors import HemalumError
from hemalum.models.network import build_network, measure_halo
from hemalum.networks.al_net import ALNet, DilatedBlock, GuidedSkip


def test_the_block_is_its_equation() -> None:
    torch.manual_seed(0)
    block = DilatedBlock(2, 3, (1, 3), norm=False)
    x = torch.randn(1, 2, 9, 11)
    responses = []
    for rate, branch in zip((1, 3), block.branches, strict=True):
        kernel, bias = branch[0].weight, branch[0].bias
        # a dilated convolution is a sum of shifted images
        padded = F.pad(x, (rate,) * 4)
        total = bias.view(1, 3, 1, 1).expand(1, 3, 9, 11)
        for i in range(3):
            for j in range(3):
                shifted = padded[:, :, i * rate : i * rate + 9, j * rate : j * rate + 11]
                total = total + torch.einsum("oc,bchw->bohw", kernel[:, :, i, j], shifted)
        responses.append(total.relu())
    mixed = torch.einsum("oc,bchw->bohw", block.mix.weight[:, :, 0, 0], torch.cat(responses, 1))
    mixed = mixed + block.mix.bias.view(1, 3, 1, 1)
    short = torch.einsum("oc,bchw->bohw", block.shortcut.weight[:, :, 0, 0], x)
    torch.testing.assert_close(block(x), (short + mixed).relu())


def test_the_skip_is_gate_times_excitation() -> None:
    torch.manual_seed(0)
    skip = GuidedSkip(6, attention=True, se=True)
    x, g = torch.randn(2, 6, 4, 5), torch.randn(2, 6, 4, 5)
    gate, excite = skip.gate, skip.excite

    def linear(layer: torch.nn.Conv2d, value: torch.Tensor) -> torch.Tensor:
        bias = 0 if layer.bias is None else layer.bias.view(-1, 1, 1)
        return torch.einsum("oc,bchw->bohw", layer.weight[:, :, 0, 0], value) + bias

    alpha = linear(gate.psi, (linear(gate.of_x, x) + linear(gate.of_g, g)).relu()).sigmoid()
    assert alpha.shape == (2, 1, 4, 5)
    channel = linear(excite[2], linear(excite[0], x.mean((2, 3), keepdim=True)).relu()).sigmoid()
    assert channel.shape == (2, 6, 1, 1)
    torch.testing.assert_close(skip(x, g), alpha * x * channel)


def test_without_its_factors_a_skip_passes_everything() -> None:
    skip = GuidedSkip(6, attention=False, se=False)
    x = torch.randn(1, 6, 4, 4)
    assert torch.equal(skip(x, torch.randn(1, 6, 4, 4)), x)
    assert not list(skip.parameters())


def test_the_published_reading_has_the_parameters_that_its_equations_count() -> None:
    widths, inputs, count = (64, 128, 256, 512, 1024), 3, 0
    for level, width in enumerate(widths):
        before = inputs if level == 0 else widths[level - 1]
        branches = 4 if level == 4 else 3
        count += branches * (9 * before * width + 2 * width)  # convolution without bias, batch norm
        count += branches * width * width + width + before * width  # mix with bias, shortcut without
    for narrow, wide in pairwise(widths):
        count += 4 * wide * narrow + narrow  # up
        count += (9 * 2 * narrow * narrow + 2 * narrow) + (9 * narrow * narrow + 2 * narrow)  # decoder
        inner, hidden = narrow // 2, max(4, narrow // 16)
        count += narrow * inner + (narrow * inner + inner) + (inner + 1)  # gate
        count += narrow * hidden + hidden + hidden * narrow + narrow  # excitation
    count += widths[0] + 1
    assert sum(p.numel() for p in ALNet().parameters()) == count == 42_059_777


def test_wider_dilations_see_further_and_without_excitation_the_halo_ends() -> None:
    def halo(**options: object) -> int:
        network = ALNet(widths=[2, 4, 8], se=False, **options)
        assert not network.global_context
        return measure_halo(network, 4)

    plain = halo(rates=(1,), bottleneck_rates=(1,))
    assert plain < halo(rates=(1,), bottleneck_rates=(1, 4)) < halo(rates=(1, 4), bottleneck_rates=(1, 4)) < 128
    assert ALNet(widths=[2, 4]).global_context


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": [8]}, r"al_net: widths must be at least two numbers from 1 on, not \[8\]"),
        ({"widths": [8, 0]}, "widths must be at least two numbers"),
        ({"rates": []}, r"al_net: rates must be different dilations from 1 on, not \[\]"),
        ({"bottleneck_rates": [2, 2]}, r"bottleneck_rates must be different dilations from 1 on, not \[2, 2\]"),
        ({"rates": [0, 1]}, "rates must be different"),
    ],
)
def test_options_that_make_no_network_are_refused(options: dict, message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        build_network("al_net", 1, options)
