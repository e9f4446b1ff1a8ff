"""U-Net++: its published sizes, its nodes by their equation, its heads."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hemalum.networks.contract import Outputs
from hemalum.networks.unet_plus_plus import UNetPlusPlus


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"inputs": 1, "deep_supervision": False}, 9_041_601),  # as its public code counts it
        ({}, 9_042_276),
        ({"widths": (64, 128, 256, 512, 1024)}, 36_158_148),
    ],
)
def test_it_has_the_published_parameters(options: dict, expected: int) -> None:
    with torch.device("meta"):
        network = UNetPlusPlus(outputs=1, **options)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_nodes_follow_the_equation() -> None:
    torch.manual_seed(0)
    network = UNetPlusPlus(widths=(3, 4, 5)).double().eval()
    x = torch.rand(1, 3, 8, 12, dtype=torch.float64)
    node: dict[tuple[int, int], torch.Tensor] = {}
    for level in range(3):
        node[level, 0] = network.encoder[level](x if level == 0 else F.max_pool2d(node[level - 1, 0], 2))
    for column in (1, 2):
        for level in range(3 - column):
            enlarged = network.up[column - 1][level](node[level + 1, column - 1])
            skips = [node[level, before] for before in range(column)]
            node[level, column] = network.nested[column - 1][level](torch.cat([*skips, enlarged], 1))
    heads = [network.aux_heads[0](node[0, 1]), network.head(node[0, 2])]
    torch.testing.assert_close(network(x), heads[1])
    outputs = network.train()(x)
    assert isinstance(outputs, Outputs)
    torch.testing.assert_close(outputs.logits, heads[1])
    torch.testing.assert_close(outputs.aux_logits[0], heads[0])
    network.inference = "average"
    mean = (heads[0].sigmoid() + heads[1].sigmoid()) / 2
    torch.testing.assert_close(network.eval()(x).sigmoid(), mean)


def test_options_add_their_layers() -> None:
    network = UNetPlusPlus(widths=(4, 8), norm=True, dropout=0.5, deep_supervision=False)
    convolutions = sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in network.modules())
    assert convolutions == 6
    for kind in (nn.BatchNorm2d, nn.Dropout):
        assert sum(isinstance(module, kind) for module in network.modules()) == convolutions
    assert isinstance(network.train()(torch.rand(2, 3, 4, 4)), torch.Tensor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inference": "mean"}, "inference 'mean', want one of last, average"),
        ({"inference": "average", "deep_supervision": False}, "'average' needs deep_supervision"),
        ({"widths": [8]}, r"widths \[8\], want at least two levels"),
    ],
)
def test_values_that_are_not_possible(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNetPlusPlus(**options)
