"""eU-Net3+: the fusion of features and embedding."""

import math

import pytest
import torch

from hemalum.networks.blocks import Excitation
from hemalum.networks.eunet3plus import FUSIONS, EUNet3Plus, FusionBlock, LevelGate

NARROW = {"widths": (4, 8, 16), "embedding": 6, "reduction": 2}


def test_the_fusion_block_has_the_published_size() -> None:
    block = FusionBlock(512, 256, gate="sigmoid", reduction=16, advanced=False)
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


@pytest.mark.parametrize("advanced", [False, True])
def test_the_attention_is_that_of_one_head(advanced: bool) -> None:
    torch.manual_seed(0)
    block = FusionBlock(8, 4, "sigmoid", 2, advanced)
    reference = torch.nn.MultiheadAttention(8, 1, batch_first=True)
    with torch.no_grad():
        parts = (block.query, block.key, block.value)
        reference.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        reference.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        reference.out_proj.load_state_dict(block.out.state_dict())
    features, other = torch.rand(2, 8, 3, 5), torch.rand(2, 4, 3, 5)
    gated = block.gate(features, other).flatten(2).transpose(1, 2)
    seen = gated if advanced else features.flatten(2).transpose(1, 2)
    expected = reference(gated, seen, seen)[0].transpose(1, 2).reshape(2, 8, 3, 5)
    torch.testing.assert_close(block(features, other), expected)


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


@pytest.mark.parametrize("fusion", ["guided", "advanced", "concat"])
def test_gradient_reaches_every_parameter(fusion: str) -> None:
    torch.manual_seed(0)
    network = EUNet3Plus(fusion=fusion, **NARROW)
    network(torch.rand(2, 3, 32, 32), embedding=torch.rand(2, 6, 8, 8)).square().mean().backward()
    # a key's bias moves all scores of a query alike, which softmax does not see
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in idle if name != "fuse.key.bias"] == []
