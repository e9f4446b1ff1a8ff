"""U-Net level by level, and the convolutions that it shares with others, by their equations."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.networks.blocks import biased_convolutions
from hemalum.networks.unet import UNet


def with_moments(network: nn.Module) -> nn.Module:
    """In eval, with running moments and scales that differ from 0 and 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias.data, module.weight.data):
                values.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def convolve(block: nn.Module, x: Tensor) -> Tensor:
    """relu(norm(W x + b)) for each convolution of a block."""
    convolutions = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    norms: list[nn.Module] = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    for convolution, norm in zip(convolutions, norms or [nn.Identity()] * len(convolutions), strict=True):
        x = norm(F.conv2d(x, convolution.weight, convolution.bias, padding=1)).relu()
    return x


@pytest.mark.parametrize("norm", [False, True])
def test_convolutions_are_normed_before_relu(norm: bool) -> None:
    torch.manual_seed(0)
    block = with_moments(biased_convolutions((3, 4, 5), norm))
    x = torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(block(x), convolve(block, x))


@pytest.mark.parametrize("norm", [False, True])
def test_levels_follow_the_equation(norm: bool) -> None:
    torch.manual_seed(0)
    network = with_moments(UNet(outputs=2, widths=(3, 4, 5), norm=norm)).double()
    x = torch.rand(1, 3, 8, 12, dtype=torch.float64)
    fine = convolve(network.encoder[0], x)
    middle = convolve(network.encoder[1], F.max_pool2d(fine, 2))
    coarse = convolve(network.encoder[2], F.max_pool2d(middle, 2))
    middle = convolve(network.decoder[0], torch.cat([middle, network.up[0](coarse)], 1))
    fine = convolve(network.decoder[1], torch.cat([fine, network.up[1](middle)], 1))
    logits = torch.einsum("oi,bihw->bohw", network.head.weight[:, :, 0, 0], fine) + network.head.bias.view(1, 2, 1, 1)
    torch.testing.assert_close(network(x), logits)
