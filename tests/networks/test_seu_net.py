"""SEU-Net: its published sizes, the organ, the edge branch."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hemalum.networks.blocks import Excitation
from hemalum.networks.seu_net import SEUNet

NARROW = {"widths": (4, 8, 12), "embedding": 5, "organs": 3}


def parameters(**options: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in SEUNet(inputs=1, **options).parameters())  # type: ignore[arg-type]


def test_the_published_size() -> None:
    assert parameters() == 9_782_650
    # the five rows of the paper's table of embedding widths, whose first cannot be met (9.66)
    sizes = [parameters(embedding=d) / 1e6 for d in (16, 32, 64, 128, 256)]
    assert [round(size, 2) for size in sizes] == [9.74, 9.78, 9.87, 10.06, 10.42]


@pytest.mark.parametrize("embedding", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("organs", [23, 24])
def test_what_the_organ_costs(embedding: int, organs: int) -> None:
    cost = parameters(embedding=embedding, organs=organs) - parameters(film=False)
    assert cost == 2816 * embedding + 2816 + organs * embedding


def test_the_design_for_operations() -> None:
    network = SEUNet(inputs=1, design="operations", film=False).eval()
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 8.69
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 224, 224))
    # convolutions alone; the paper's 83.90 counts more than these
    assert counter.get_total_flops() / 1e9 == pytest.approx(83.31, abs=0.01)


def test_the_ablation_leaves_out_its_parts() -> None:
    bare = SEUNet(outputs=1, se=False, film=False, edge=False, widths=(4, 8))
    names = {name.partition(".")[0] for name, _ in bare.named_parameters()}
    assert names == {"encoder", "up", "decoder", "head"}
    assert not [name for name, _ in bare.named_parameters() if "excitation" in name]
    assert bare.conditions == ()
    assert not bare.global_context
    assert SEUNet(widths=(4, 8)).global_context


@pytest.fixture(params=["parameters", "operations"])
def network(request: pytest.FixtureRequest) -> SEUNet:
    torch.manual_seed(0)
    return SEUNet(outputs=2, design=request.param, **NARROW).eval()  # type: ignore[arg-type]


def squeeze_and_excite(excitation: nn.Module, x: Tensor) -> Tensor:
    hidden = (x.mean((2, 3)) @ excitation.squeeze.weight.T + excitation.squeeze.bias).relu()
    factor = (hidden @ excitation.excite.weight.T + excitation.excite.bias).sigmoid()
    return torch.einsum("bchw,bc->bchw", x, factor)


def test_it_follows_its_equation(network: SEUNet) -> None:
    x, row = torch.rand(2, 3, 16, 8), network.embedding.weight[1]
    residual = isinstance(network.up[0], nn.ConvTranspose2d)

    def stage(block: nn.Module, x: Tensor, number: int) -> Tensor:
        y = block.second(block.first(x).relu())
        if residual:
            shortcut = torch.einsum("oi,bihw->bohw", block.shortcut.weight[:, :, 0, 0], x)
            y = (squeeze_and_excite(block.excitation, y) + shortcut + block.shortcut.bias.view(1, -1, 1, 1)).relu()
        else:
            y = squeeze_and_excite(block.excitation, y.relu())
        film = network.film[number]
        scale, shift = film.scale.weight @ row + film.scale.bias, film.shift.weight @ row + film.shift.bias
        return scale.sigmoid().view(1, -1, 1, 1) * y + shift.view(1, -1, 1, 1)

    def upsample(up: nn.Module, x: Tensor) -> Tensor:
        if residual:
            return F.conv_transpose2d(x, up.weight, up.bias, 2)
        return F.conv2d(twice(x), up.convolution.weight, up.convolution.bias, padding=1)

    def twice(x: Tensor) -> Tensor:
        return F.interpolate(x, size=[2 * side for side in x.shape[2:]], mode="bilinear")

    fine = stage(network.encoder[0], x, 0)
    middle = stage(network.encoder[1], F.max_pool2d(fine, 2), 1)
    coarse = stage(network.encoder[2], F.max_pool2d(middle, 2), 2)
    middle = stage(network.decoder[0], torch.cat([middle, upsample(network.up[0], coarse)], 1), 3)
    fine = stage(network.decoder[1], torch.cat([fine, upsample(network.up[1], middle)], 1), 4)
    edge = network.edge[1:](fine if residual else twice(middle))
    expected = torch.cat([network.head(fine), edge], 1)
    torch.testing.assert_close(network(x, organ=torch.tensor([1, 1])), expected)


def test_a_narrow_stage_is_squeezed_to_four_channels() -> None:
    assert SEUNet(widths=(8, 16)).encoder[0].excitation.squeeze.out_features == 4
    widths = [Excitation(channels, 16, fewest=4).squeeze.out_features for channels in (8, 64, 128)]
    assert widths == [4, 4, 8]


def test_each_image_has_its_own_organ(network: SEUNet) -> None:
    x = torch.rand(1, 3, 16, 16).expand(3, -1, -1, -1)
    logits = network(x, organ=torch.tensor([0, 1, 2]))
    for index in range(3):
        alone = network(x[:1], organ=torch.tensor([index]))
        torch.testing.assert_close(logits[index : index + 1], alone, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)


def test_an_unknown_organ_is_the_mean_of_the_known(network: SEUNet) -> None:
    x = torch.rand(2, 3, 16, 16)
    unknown = network(x, organ=torch.tensor([-1, -1]))
    torch.testing.assert_close(network(x), unknown, rtol=0, atol=0)
    assert network.embedding is not None
    mean = network.embedding.weight.mean(0, keepdim=True)
    network.embedding.weight.data.copy_(mean.expand(3, -1))
    torch.testing.assert_close(network(x, organ=torch.tensor([0, 2])), unknown, rtol=1e-4, atol=1e-6)


def test_every_organ_learns_from_an_image_of_unknown_organ(network: SEUNet) -> None:
    network(torch.rand(1, 3, 16, 16)).sum().backward()
    assert network.embedding is not None
    grad = network.embedding.weight.grad
    assert grad is not None
    torch.testing.assert_close(grad, grad[:1].expand(3, -1))
    assert grad.abs().sum() > 0


def test_the_last_logit_is_the_edge_branch(network: SEUNet) -> None:
    x = torch.rand(1, 3, 16, 16)
    before = network(x)
    assert network.edge is not None
    network.edge[4].bias.data += 1  # type: ignore[operator,union-attr]
    after = network(x)
    torch.testing.assert_close(after[:, :1], before[:, :1], rtol=0, atol=0)
    torch.testing.assert_close(after[:, 1:], before[:, 1:] + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": 1}, "1 output with the edge branch: it needs 2"),
        ({"widths": (8,)}, r"widths \[8\]: want two stages"),
        ({"embedding": 0}, "embedding is 0, must be at least 1"),
        ({"unknown": "zero"}, "unknown is 'zero'; the only rule is 'mean'"),
        ({"design": "both"}, "design 'both' is unknown; use parameters or operations"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SEUNet(**options)
