"""SEU-Net: its published sizes, the organ, the edge branch."""

import math

import pytest
import torch
from torch import Tensor

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
    assert round(parameters(design="operations", film=False) / 1e6, 2) == 8.69


def test_the_ablation_leaves_out_its_parts() -> None:
    bare = SEUNet(outputs=1, se=False, film=False, edge=False, widths=(4, 8))
    names = {name.partition(".")[0] for name, _ in bare.named_parameters()}
    assert names == {"encoder", "up", "decoder", "head"}
    assert not [name for name, _ in bare.named_parameters() if "excitation" in name]
    assert bare.conditions == ()
    assert not bare.global_context
    assert SEUNet(widths=(4, 8)).global_context


def spread(network: SEUNet) -> SEUNet:
    """The network as if it had trained: no weight and no statistic is where it started."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point():
                value.add_(0.4 * torch.randn(value.shape))
    return network


@pytest.fixture(params=["parameters", "operations"])
def network(request: pytest.FixtureRequest) -> SEUNet:
    return spread(SEUNet(outputs=2, design=request.param, **NARROW)).eval()  # type: ignore[arg-type]


def test_a_narrow_stage_is_squeezed_to_four_channels() -> None:
    assert SEUNet(widths=(8, 16)).encoder[0].excitation.squeeze.out_features == 4
    widths = [Excitation(channels, 16, fewest=4).squeeze.out_features for channels in (8, 64, 128)]
    assert widths == [4, 4, 8]


def test_each_image_has_its_own_organ(network: SEUNet) -> None:
    x = torch.rand(1, 3, 16, 16).expand(3, -1, -1, -1)
    logits = network(x, organ=torch.tensor([0, 1, 2]))
    for index in range(3):
        alone = network(x[:1], organ=torch.tensor([index]))
        torch.testing.assert_close(logits[index : index + 1], alone, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(logits[0], logits[1], atol=1e-2)


@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_before_the_first_step_all_organs_are_alike(bias: float) -> None:
    """FiLM starts as one scale for every channel of every stage, σ(bias), and no shift."""
    torch.manual_seed(0)
    network = SEUNet(scale_bias=bias, **NARROW).eval()  # type: ignore[arg-type]
    x = torch.rand(1, 3, 16, 16).expand(4, -1, -1, -1)
    logits = network(x, organ=torch.tensor([0, 1, 2, -1]))
    torch.testing.assert_close(logits, logits[:1].expand(4, -1, -1, -1), rtol=1e-5, atol=1e-6)
    assert network.film is not None
    features = torch.rand(2, 8, 3, 3)
    scaled = network.film[1](features, torch.randn(2, 5))
    torch.testing.assert_close(scaled, features / (1 + math.exp(-bias)))


def test_and_after_it_they_differ() -> None:
    torch.manual_seed(0)
    network = SEUNet(organ_dropout=0, **NARROW)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    organs = torch.tensor([0, 1, 2])
    for _ in range(2):  # the embedding itself moves from the second step on
        before = network.state_dict()["embedding.weight"].clone()
        loss = (network(torch.rand(3, 3, 16, 16), organ=organs) * torch.randn(3, 1, 1, 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (network.state_dict()["embedding.weight"] != before).any(1).all()
    x = torch.rand(1, 3, 16, 16).expand(3, -1, -1, -1)
    logits = network.eval()(x, organ=organs)
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)


def seen_by_film(network: SEUNet, organs: Tensor) -> Tensor:
    """(B,) bool: which images of a step in training are as if nobody had named their organ."""
    assert network.film is not None
    assert network.embedding is not None
    codes: list[Tensor] = []
    handle = network.film[0].register_forward_hook(lambda _module, inputs, _output: codes.append(inputs[1]))
    network(torch.rand(len(organs), 3, 4, 4), organ=organs)
    handle.remove()
    known, mean = network.embedding.weight[organs], network.embedding.weight.mean(0)
    named, unnamed = (codes[0] == known).all(1), (codes[0] == mean).all(1)
    assert (named ^ unnamed).all()
    return unnamed


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_in_training_some_images_are_not_told_their_organ(network: SEUNet, share: float) -> None:
    network.organ_dropout = share
    organs = torch.arange(2000) % 3
    torch.manual_seed(1)
    unnamed = seen_by_film(network.train(), organs)
    assert abs(float(unnamed.float().mean()) - share) <= (0.04 if 0 < share < 1 else 0)
    torch.manual_seed(1)
    torch.testing.assert_close(seen_by_film(network, organs), unnamed)  # a step is a function of its number
    assert not seen_by_film(network.eval(), organs).any()


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
        ({"organ_dropout": 1.5}, "organ_dropout is 1.5, must be a share from 0 to 1"),
        ({"organ_dropout": math.nan}, "organ_dropout is nan, must be a share from 0 to 1"),
        ({"scale_bias": math.inf}, "scale_bias is inf, must be a finite number"),
        ({"unknown": "zero"}, "unknown is 'zero'; the only rule is 'mean'"),
        ({"design": "both"}, "design 'both' is unknown; use parameters or operations"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SEUNet(**options)
