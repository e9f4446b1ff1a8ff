"""AL-Net's parts against their equations (docs/systems/al_net.md)."""

from itertools import pairwise, product

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


class ALNetByEquations:
    """The whole network from the page's equations and the weights alone, in eval mode: no module of it is called."""

    def __init__(self, network: ALNet, rates: tuple[int, ...], bottleneck_rates: tuple[int, ...]) -> None:
        self.w, self.levels = network.state_dict(), len(network.encoder)
        self.rates = [rates] * (self.levels - 1) + [bottleneck_rates]

    def convolve(self, name: str, x: torch.Tensor, rate: int = 1) -> torch.Tensor:
        """A convolution of same size, as a sum of shifted images."""
        kernel, bias = self.w[f"{name}.weight"], self.w.get(f"{name}.bias")
        (height, width), reach = x.shape[2:], rate * (kernel.shape[2] // 2)
        padded, total = F.pad(x, (reach,) * 4), torch.zeros(())
        for i, j in product(range(kernel.shape[2]), repeat=2):
            shifted = padded[:, :, i * rate : i * rate + height, j * rate : j * rate + width]
            total = total + torch.einsum("oc,bchw->bohw", kernel[:, :, i, j], shifted)
        return total if bias is None else total + bias[:, None, None]

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        mean, variance, scale, shift = (
            self.w[f"{name}.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return scale * (x - mean) / (variance + 1e-5).sqrt() + shift

    def block(self, level: int, x: torch.Tensor) -> torch.Tensor:
        name = f"encoder.{level}"
        branches = [
            self.norm(f"{name}.branches.{n}.1", self.convolve(f"{name}.branches.{n}.0", x, rate)).relu()
            for n, rate in enumerate(self.rates[level])
        ]
        return (self.convolve(f"{name}.shortcut", x) + self.convolve(f"{name}.mix", torch.cat(branches, 1))).relu()

    def skip(self, step: int, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        name = f"skips.{step}"
        asked = self.convolve(f"{name}.gate.of_x", x) + self.convolve(f"{name}.gate.of_g", g)
        alpha = self.convolve(f"{name}.gate.psi", asked.relu()).sigmoid()
        squeezed = self.convolve(f"{name}.excite.0", x.mean((2, 3), keepdim=True)).relu()
        return alpha * x * self.convolve(f"{name}.excite.2", squeezed).sigmoid()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        maps = []
        for level in range(self.levels):
            if level:  # the largest of each 2 × 2 pixels
                b, c, h, w = x.shape
                x = x.view(b, c, h // 2, 2, w // 2, 2).amax((3, 5))
            x = self.block(level, x)
            maps.append(x)
        for step, below in enumerate(reversed(maps[:-1])):
            kernel, bias = self.w[f"up.{step}.weight"], self.w[f"up.{step}.bias"]
            b, _, h, w = x.shape
            x = torch.einsum("bchw,coij->bohiwj", x, kernel).reshape(b, -1, 2 * h, 2 * w) + bias[:, None, None]
            x = torch.cat([self.skip(step, below, x), x], 1)
            for convolution, norm in ((0, 1), (3, 4)):
                name = f"decoder.{step}"
                x = self.norm(f"{name}.{norm}", self.convolve(f"{name}.{convolution}", x)).relu()
        return self.convolve("head", x)


def test_the_whole_network_is_its_equations() -> None:
    """Three levels, so that a gate might ask the wrong one; every weight and running statistic is random."""
    torch.manual_seed(0)
    network = ALNet(outputs=2, widths=[6, 8, 10], rates=(1, 2), bottleneck_rates=(1, 3)).double().eval()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(
                torch.rand_like(value) + 0.5 if name.endswith("running_var") else torch.randn_like(value) * 0.5
            )
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    torch.testing.assert_close(network(x), ALNetByEquations(network, (1, 2), (1, 3))(x))


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


@pytest.mark.fault
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
