"""What is special to the baselines: published sizes; blocks against the straightforward form of their equations."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hemalum.errors import HemalumError
from hemalum.models.network import build_network
from hemalum.networks import medt
from hemalum.networks.attention_unet import AttentionGate
from hemalum.networks.awgunet import DoubleSize, Up, gaussian, haar, lanczos
from hemalum.networks.medt import PARTS, AxialAttention, MedT
from hemalum.networks.swin_unet import Block, window_mask
from hemalum.networks.transunet import StandardizedConv


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "outputs", "options", "expected"),
    [
        ("attention_unet", 1, {"inputs": 1}, 31_393_901),  # printed: 31.39 M
        ("swin_unet", 4, {}, 27_168_420),  # printed: 27.17 M
        ("transunet", 2, {}, 105_276_066),  # printed: 105.28 M
        ("medt", 2, {}, 1_524_298),  # 1.56 M with the layers that the published code builds and does not use
        ("awgunet", 1, {}, 146_318_828),  # nothing is printed
    ],
)
def test_parameters_as_published(name: str, outputs: int, options: dict, expected: int) -> None:
    with torch.device("meta"):
        assert count(build_network(name, outputs, options)) == expected


def test_ddu_net_has_the_layers_that_its_authors_list() -> None:
    def conv(before: int, after: int, kernel: int = 3) -> int:
        return before * after * kernel**2 + after

    encoder = [
        (3, 16),
        (16, 16),
        (16, 32),
        (32, 32),
        (32, 64),
        (64, 64),
        (64, 128),
        (128, 128),
        (128, 256),
        (256, 512),
    ]
    pairs = [(256, 128), (128, 128), (128, 64), (64, 64), (64, 32), (32, 32), (32, 16), (16, 16)]
    ups = [(512, 128), (128, 64), (64, 32), (32, 16)]
    decoder = sum(conv(*pair) for pair in pairs) + sum(conv(*up, 2) for up in ups) + conv(16, 1, 1)
    assert count(build_network("ddu_net", 2, {})) == sum(conv(*layer) for layer in encoder) + 2 * decoder


def test_awgunet_has_the_encoder_of_densenet_121() -> None:
    with torch.device("meta"):
        network = build_network("awgunet", 1, {})
    fourth_block = sum((512 + 32 * i) * 130 + 256 + 128 * 32 * 9 for i in range(16))
    # 6,953,856: DenseNet-121 without its classifier, of which the last transition's convolution and norm are left out
    assert count(network.root) + count(network.stages) + count(network.transitions) == (
        6_953_856 - fourth_block - 1024 * 512 - 2 * 1024
    )


@pytest.mark.fault
@pytest.mark.parametrize(
    ("name", "outputs", "options", "message"),
    [
        (
            "ddu_net",
            1,
            {},
            "ddu_net has two decoders and gives at least 2 maps, not 1: use representation 'distance'",
        ),
        ("ddu_net", 2, {"widths": [4, 8]}, "takes 2 widths as bottom and 3 values as dropout.* not 2 and 5"),
        ("awgunet", 1, {"blocks": [1, 1]}, r"3 numbers of dense layers and 4 even widths.*\[1, 1\]"),
        ("awgunet", 1, {"decoder": [7, 4, 4, 4]}, r"not \[6, 12, 24\] and \[7, 4, 4, 4\]"),
        ("swin_unet", 1, {"heads": [3, 6]}, "as many depths as heads, not 4 and 2"),
        (
            "swin_unet",
            1,
            {"width": 10, "depths": [1], "heads": [3]},
            "10 channels at level 1 are no multiple of 3 heads",
        ),
        ("transunet", 1, {"hidden": 100}, "hidden must be a multiple of its heads"),
        ("transunet", 1, {"blocks": [1]}, "3 numbers of blocks and 4 widths of its decoder, not 1 and 4"),
        ("medt", 1, {"size": 200}, "size must be a multiple of 128, not 200"),
        ("medt", 1, {"width": 24}, r"width must be a multiple of twice its heads \(16\), not 24"),
        ("medt", 1, {"blocks": [1, 1]}, "4 numbers of blocks, not 2"),
    ],
)
def test_options_that_make_no_network(name: str, outputs: int, options: dict, message: str) -> None:
    with pytest.raises(HemalumError, match=message):
        build_network(name, outputs, options)


def test_an_attention_gate_is_its_equation() -> None:
    torch.manual_seed(0)
    gate = AttentionGate(4).eval()  # batch norm's moments are 0 and 1: it divides by the root of 1.00001
    skip, gating = torch.rand(2, 4, 3, 5), torch.rand(2, 4, 3, 5)
    weight, of_gating, last = (part[0] for part in (gate.from_skip, gate.from_gating, gate.attention))

    def linear(layer: nn.Conv2d, x: Tensor) -> Tensor:
        mixed = torch.einsum("oi,bihw->bohw", layer.weight[:, :, 0, 0], x) + layer.bias.view(1, -1, 1, 1)
        return mixed / 1.00001**0.5

    alpha = torch.sigmoid(linear(last, torch.relu(linear(weight, skip) + linear(of_gating, gating))))
    torch.testing.assert_close(gate(skip, gating), skip * alpha)


def test_haar_bands_by_hand() -> None:
    bands = haar(torch.tensor([[1.0, 2.0], [3.0, 7.0]]).view(1, 1, 2, 2)).flatten()
    # whole, left less right, top less bottom, the diagonals' difference: each halved
    assert bands.tolist() == [6.5, -2.5, -3.5, 1.5]
    x = torch.rand(2, 3, 6, 8)
    torch.testing.assert_close(haar(x).square().sum(), x.square().sum())


def test_enlarging_by_two_about_pixel_centers() -> None:
    def tent(x: float) -> float:
        return max(0.0, 1 - abs(x))

    x = torch.rand(1, 2, 5, 7)
    expected = F.interpolate(x, scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(DoubleSize((tent,), 1)(x), expected)
    both = (DoubleSize((tent,), 5)(x) + DoubleSize((lanczos,), 5)(x)) / 2
    torch.testing.assert_close(DoubleSize((tent, lanczos), 5)(x), both)


def test_a_convolution_before_enlarging_is_one_after_it() -> None:
    torch.manual_seed(0)
    up, x = Up(3), torch.rand(2, 3, 6, 8)
    after = up.mix((DoubleSize((gaussian,), 2)(x) + DoubleSize((lanczos,), 5)(x)) / 2)
    torch.testing.assert_close(up(x)[:, :3], after)


@pytest.mark.parametrize("shifted", [False, True])
def test_windowed_attention_sees_its_window_and_no_padding(shifted: bool) -> None:
    """Token by token on a 6 × 9 grid in windows of 4, so that both sides are padded."""
    torch.manual_seed(0)
    height, width, side, heads = 6, 9, 4, 2
    block = Block(8, heads, side, shifted, drop=0.0).double()
    x = torch.rand(1, height, width, 8, dtype=torch.float64)
    query, key, value = block.query_key_value(x)[0].reshape(height, width, 3, heads, 4).unbind(2)
    shift = side // 2 if shifted else 0
    rows, columns = height + -height % side, width + -width % side
    expected = torch.zeros(height, width, heads, 4, dtype=torch.float64)
    for y, column in product(range(height), range(width)):
        seen = [
            (v, u)
            for v, u in product(range(height), range(width))
            if (v - shift) % rows // side == (y - shift) % rows // side
            and (u - shift) % columns // side == (column - shift) % columns // side
            and abs(v - y) < side and abs(u - column) < side  # not from the opposite edge
        ]  # fmt: skip
        for head in range(heads):
            scores = torch.stack([
                query[y, column, head] @ key[v, u, head] / 2
                + block.bias[(y - v + side - 1) * (2 * side - 1) + column - u + side - 1, head]
                for v, u in seen
            ])  # fmt: skip
            shares = scores.softmax(0)
            expected[y, column, head] = sum(
                share * value[v, u, head] for share, (v, u) in zip(shares, seen, strict=True)
            )
    for training in (True, False):  # two forms of the same
        attended = block.train(training).attend(x, window_mask(x, side, shift))[0]
        torch.testing.assert_close(attended, block.output(expected.flatten(2)), rtol=1e-9, atol=1e-9)


def test_weights_are_standardized() -> None:
    torch.manual_seed(0)
    conv, x = StandardizedConv(3, 4, 3, padding=1), torch.rand(1, 3, 5, 5)
    weight = torch.stack([(w - w.mean()) / w.std(unbiased=False) for w in conv.weight])
    torch.testing.assert_close(conv(x), F.conv2d(x, weight, conv.bias, padding=1), rtol=2e-3, atol=2e-3)


def axial_by_einsum(attention: AxialAttention, x: Tensor) -> Tensor:
    """The equations term by term."""
    batch, channels, rows, length = x.shape
    heads, half = attention.heads, attention.share // 2
    inputs = attention.norm_inputs(attention.query_key_value(x))
    inputs = inputs.permute(0, 2, 1, 3).reshape(batch * rows, heads, -1, length)
    query, key, value = inputs.split([half, half, 2 * half], 2)
    position = torch.arange(length)
    table = attention.relative[:, position[:, None] - position + length - 1]
    of_query, of_key, of_value = table.split([half, half, 2 * half])
    norms, gates = attention.norm_similarity, attention.gates
    similarity = norms[0](torch.einsum("bgci,bgcj->bgij", query, key))
    similarity = similarity + gates[0] * norms[1](torch.einsum("bgci,cij->bgij", query, of_query))
    similarity = similarity + gates[1] * norms[2](torch.einsum("bgcj,cji->bgij", key, of_key).contiguous())
    shares = similarity.softmax(3)

    def back(y: Tensor) -> Tensor:
        return y.reshape(batch, rows, channels, length).permute(0, 2, 1, 3)

    content = attention.norm_value(back(torch.einsum("bgij,bgcj->bgci", shares, value)))
    position = attention.norm_position(back(torch.einsum("bgij,cij->bgci", shares, of_value)))
    return gates[3] * content + gates[2] * position


@pytest.mark.parametrize("training", [True, False])
def test_axial_attention_is_its_equations(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(medt, "ROWS_AT_ONCE", 16)  # two rows at a time in eval
    attention = AxialAttention(16, 8, 4, (0.3, 0.2, 0.1, 1.0)).train(training)
    x = torch.randn(2, 16, 5, 8)
    torch.testing.assert_close(attention(x), axial_by_einsum(attention, x), rtol=1e-4, atol=1e-5)


def test_parts_in_one_batch_are_parts_one_by_one() -> None:
    torch.manual_seed(0)
    network = MedT(1, width=8, stem=8, heads=2, blocks=(1, 1, 1, 1)).eval()
    x, side = torch.rand(2, 3, 128, 128), 128 // PARTS
    local = torch.zeros(2, 8, 128, 128)
    with torch.inference_mode():
        for i, j in product(range(PARTS), repeat=2):
            part = slice(side * i, side * (i + 1)), slice(side * j, side * (j + 1))
            local[:, :, part[0], part[1]] = network.local_branch(x[:, :, part[0], part[1]])
        expected = network.head(F.relu(network.last(network.global_branch(x) + local)))
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)
