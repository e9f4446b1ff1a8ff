"""eU-Net3+: the fusion of features and embedding."""

import math

import pytest
import torch
from torch import Tensor

from hemalum.networks.blocks import Excitation
from hemalum.networks.eunet3plus import FUSIONS, EUNet3Plus, FusionBlock, LevelGate

NARROW = {"widths": (4, 8, 16), "embedding": 6, "reduction": 2}


def test_the_fusion_block_has_the_published_size() -> None:
    block = FusionBlock(512, 256, gate="sigmoid", reduction=16, fusion="guided")
    assert sum(p.numel() for p in block.parameters()) == 1_112_624
    assert sum(p.numel() for p in EUNet3Plus(outputs=2, fusion="none").parameters()) == 11_466_626


def test_the_gate_by_hand() -> None:
    gate = Excitation(1, 2, others=1)
    with torch.no_grad():
        gate.squeeze.weight.copy_(torch.tensor([[1.0, 2.0]]))
        gate.squeeze.bias.fill_(0.5)
        gate.excite.weight.fill_(0.25)
        gate.excite.bias.fill_(-1.0)
    features = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
    other = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    hidden = 1 * 2 + 2 * 0.5 + 0.5  # of the means 2 and 0.5
    factor = 1 / (1 + math.exp(-(0.25 * hidden - 1)))
    torch.testing.assert_close(gate(features, other), features * factor)


def test_a_gate_with_glu_gates_itself() -> None:
    gate = Excitation(1, 2, others=1, kind="glu")
    with torch.no_grad():
        gate.excite.weight.zero_()
        gate.excite.bias.copy_(torch.tensor([-2.0, 0.0]))
    features = torch.rand(1, 1, 2, 2)
    torch.testing.assert_close(gate(features, features), features * -1.0)  # -2 · sigmoid(0)


def reference_gate(gate: Excitation, means: Tensor) -> Tensor:
    """The factor of each channel: σ(W₂ ReLU(W₁ z)), or GLU(W₂ ReLU(W₁ z)) = a · σ(b), z the means (B, C)."""
    hidden = torch.einsum("bi,hi->bh", means, gate.squeeze.weight) + gate.squeeze.bias
    hidden = torch.where(hidden > 0, hidden, torch.zeros_like(hidden))
    raw = torch.einsum("bh,oh->bo", hidden, gate.excite.weight) + gate.excite.bias
    if gate.kind == "sigmoid":
        return 1 / (1 + torch.exp(-raw))
    linear, activated = raw.chunk(2, dim=1)
    return linear / (1 + torch.exp(-activated))


def reference_fusion(block: FusionBlock, fusion: str, features: Tensor, embedding: Tensor) -> Tensor:
    """The block by its equations: squeeze, gate, and attention of every pixel to every pixel."""
    both = torch.cat([features, embedding], dim=1)
    factor = reference_gate(block.gate, torch.einsum("bchw->bc", both) / (both.shape[2] * both.shape[3]))
    source = both if fusion == "joint" else features
    gated = torch.einsum("bc,bchw->bchw", factor, source)
    seen = features if fusion == "guided" else gated

    def apply(layer: torch.nn.Linear, maps: Tensor) -> Tensor:
        return torch.einsum("bihw,oi->bohw", maps, layer.weight) + layer.bias[None, :, None, None]

    query, key, value = apply(block.query, gated), apply(block.key, seen), apply(block.value, seen)
    scores = torch.einsum("bchw,bcyx->bhwyx", query, key) / math.sqrt(query.shape[1])
    weights = scores.exp() / scores.exp().sum((3, 4), keepdim=True)
    return apply(block.out, torch.einsum("bhwyx,bcyx->bchw", weights, value))


@pytest.mark.parametrize("gate", ["sigmoid", "glu"])
@pytest.mark.parametrize("fusion", ["guided", "advanced", "joint"])
def test_the_fusion_block_against_its_equations(fusion: str, gate: str) -> None:
    torch.manual_seed(0)
    block = FusionBlock(8, 4, gate, 2, fusion)
    features, embedding = 3 * torch.randn(2, 8, 3, 5), 3 * torch.randn(2, 4, 3, 5)
    expected = reference_fusion(block, fusion, features, embedding)
    torch.testing.assert_close(block(features, embedding), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("fusion", "sees_where"), [("guided", False), ("advanced", False), ("joint", True)])
def test_where_an_embedding_has_something_is_seen_by_joint_alone(fusion: str, sees_where: bool) -> None:
    """The same cells in another order have the same means: what enters as means cannot tell the two apart."""
    torch.manual_seed(0)
    block = FusionBlock(8, 4, "sigmoid", 2, fusion).double()
    features, embedding = torch.randn(1, 8, 4, 4).double(), torch.randn(1, 4, 4, 4).double()
    moved = embedding.flatten(2)[:, :, torch.randperm(16)].reshape(embedding.shape)
    same = torch.allclose(block(features, embedding), block(features, moved), atol=1e-10)
    assert same != sees_where


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_network_is_made_of_its_parts(fusion: str) -> None:
    """What reaches the decoder, level by level; both grids are 4 x 4, so that nothing is pooled on the way."""
    torch.manual_seed(0)
    network = EUNet3Plus(outputs=2, fusion=fusion, **NARROW).eval()
    x, embedding = torch.rand(2, 3, 16, 16), torch.randn(2, 6, 4, 4)
    levels = network.encode(x)
    expected = list(levels)
    if fusion == "advanced":
        for number, (gate, features) in enumerate(zip(network.gates, levels, strict=False)):
            seen = torch.cat([features.mean((2, 3)), gate.project(embedding).mean((2, 3))], dim=1)
            expected[number] = features * reference_gate(gate.gate, seen)[:, :, None, None]
    if fusion == "concat":
        expected[-1] = torch.cat([levels[-1], embedding], dim=1)
    elif fusion != "none":
        expected[-1] = reference_fusion(network.fuse, fusion, levels[-1], embedding)
    torch.testing.assert_close(network(x, embedding=embedding), network.decode(expected), rtol=1e-4, atol=1e-4)


def test_whole_channels_are_dropped_after_the_fusion_while_training() -> None:
    torch.manual_seed(0)
    network = EUNet3Plus(outputs=1, fusion="none", dropout=0.5, **NARROW).train()
    kept = []
    network.decode = lambda levels: kept.append(levels[-1])  # type: ignore[method-assign, assignment]
    network(torch.rand(4, 3, 32, 32))
    dropped = (kept[0] == 0).all(3).all(2)
    assert 0.2 < float(dropped.float().mean()) < 0.8


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("grid", [(4, 6), (16, 24), (3, 3), (1, 1)])
def test_an_embedding_of_any_grid(fusion: str, grid: tuple[int, int]) -> None:
    network = EUNet3Plus(outputs=2, fusion=fusion, **NARROW).eval()
    x, embedding = torch.rand(2, 3, 16, 24), torch.rand(2, 6, *grid)
    maps = network(x, embedding=embedding)
    assert maps.shape == (2, 2, 16, 24)
    depends = not torch.equal(maps, network(x, embedding=embedding + torch.rand(1, 6, 1, 1)))
    assert depends == (fusion != "none")
    assert network.conditions == (() if fusion == "none" else ("embedding",))


@pytest.mark.parametrize(("side", "halvings"), [(8, 2), (4, 1), (3, 0), (2, 0)])
def test_an_embedding_is_pooled_while_twice_as_fine(side: int, halvings: int) -> None:
    torch.manual_seed(0)
    level = LevelGate(4, 3, "sigmoid", 2, times=1).eval()
    x, embedding = torch.rand(1, 4, 2, 2), torch.rand(1, 3, side, side)
    pooled = level.project(embedding)
    for _ in range(halvings):
        pooled = level.blur(pooled)
    torch.testing.assert_close(level(x, embedding), level.gate(x, pooled))


def test_a_missing_embedding_is_refused() -> None:
    network = EUNet3Plus(fusion="guided", **NARROW).eval()
    with pytest.raises(ValueError, match=r"needs an embedding of \(B, 6, h, w\), none is given"):
        network(torch.rand(1, 3, 16, 16))
    with pytest.raises(ValueError, match=r"its shape is \(1, 5, 4, 4\)"):
        network(torch.rand(1, 3, 16, 16), embedding=torch.rand(1, 5, 4, 4))
    with pytest.raises(ValueError, match="fusion 'guide', did you mean 'guided'"):
        EUNet3Plus(fusion="guide")
    with pytest.raises(ValueError, match="gate 'relu'"):
        EUNet3Plus(gate="relu")


@pytest.mark.parametrize("fusion", ["guided", "advanced", "joint", "concat"])
def test_gradient_reaches_every_parameter(fusion: str) -> None:
    torch.manual_seed(0)
    network = EUNet3Plus(fusion=fusion, **NARROW)
    network(torch.rand(2, 3, 32, 32), embedding=torch.rand(2, 6, 8, 8)).square().mean().backward()
    # a key's bias moves all scores of a query alike, which softmax does not see
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in idle if name != "fuse.key.bias"] == []
