"""SEU-Net against a reference that is written from its equations: einsum and loops, on weights nobody has tuned."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from hemalum.networks.seu_net import SEUNet

SIZES = {"widths": (4, 8, 12), "embedding": 5, "organs": 3, "ratio": 2}
EPSILON = 1e-5  # of batch norm


def convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """Σ over inputs and offsets of w · x, zero beyond the image."""
    side = layer.weight.shape[-1]
    reach, (height, width) = side // 2, x.shape[2:]
    padded = torch.zeros(*x.shape[:2], height + 2 * reach, width + 2 * reach, dtype=x.dtype)
    padded[:, :, reach : reach + height, reach : reach + width] = x
    total = layer.bias[None, :, None, None].expand(len(x), -1, height, width)
    for row, column in product(range(side), repeat=2):
        moved = padded[:, :, row : row + height, column : column + width]
        total = total + torch.einsum("oi,bihw->bohw", layer.weight[:, :, row, column], moved)
    return total


def normalize(layer: nn.Module, x: Tensor) -> Tensor:
    shape = (1, -1, 1, 1)
    deviation = (layer.running_var + EPSILON).sqrt()
    return (x - layer.running_mean.view(shape)) / deviation.view(shape) * layer.weight.view(shape) + layer.bias.view(
        shape
    )


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def positive(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.zeros_like(x))


def squeeze_and_excite(layer: nn.Module, x: Tensor) -> Tensor:
    """x ⊙ σ(W₂ ReLU(W₁ GAP(x)))."""
    pooled = torch.einsum("bchw->bc", x) / (x.shape[2] * x.shape[3])
    hidden = positive(torch.einsum("hc,bc->bh", layer.squeeze.weight, pooled) + layer.squeeze.bias)
    factor = sigmoid(torch.einsum("ch,bh->bc", layer.excite.weight, hidden) + layer.excite.bias)
    return torch.einsum("bchw,bc->bchw", x, factor)


def condition(layer: nn.Module, x: Tensor, code: Tensor) -> Tensor:
    """γ ⊙ x + β, γ = σ(W e + b), β = W' e + b'."""
    scale = sigmoid(torch.einsum("cd,bd->bc", layer.scale.weight, code) + layer.scale.bias)
    shift = torch.einsum("cd,bd->bc", layer.shift.weight, code) + layer.shift.bias
    return torch.einsum("bc,bchw->bchw", scale, x) + shift[:, :, None, None]


def largest_of_four(x: Tensor) -> Tensor:
    corners = [x[:, :, row::2, column::2] for row, column in product(range(2), repeat=2)]
    return torch.stack(corners).amax(0)


def transposed(layer: nn.Module, x: Tensor) -> Tensor:
    """Each pixel becomes a square of 2 × 2."""
    result = torch.zeros(len(x), layer.weight.shape[1], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype)
    for row, column in product(range(2), repeat=2):
        result[:, :, row::2, column::2] = torch.einsum("io,bihw->bohw", layer.weight[:, :, row, column], x)
    return result + layer.bias[None, :, None, None]


def doubled(x: Tensor) -> Tensor:
    """Bilinear about pixel centers: the new rows lie a quarter before and behind each old one."""

    def along_rows(x: Tensor) -> Tensor:
        above, below = torch.cat([x[:, :, :1], x[:, :, :-1]], 2), torch.cat([x[:, :, 1:], x[:, :, -1:]], 2)
        return torch.stack([0.75 * x + 0.25 * above, 0.75 * x + 0.25 * below], 3).flatten(2, 3)

    return along_rows(along_rows(x).transpose(2, 3)).transpose(2, 3)


def reference(network: SEUNet, x: Tensor, organs: list[int], design: str, parts: dict[str, bool]) -> Tensor:
    """The network's logits, from its weights alone."""
    code = None
    if parts["film"]:
        rows = network.embedding.weight
        code = torch.stack([sum(rows) / len(rows) if organ < 0 else rows[organ] for organ in organs])

    def stage(block: nn.Module, x: Tensor, number: int) -> Tensor:
        y = positive(normalize(block.first[1], convolve(block.first[0], x)))
        y = normalize(block.second[1], convolve(block.second[0], y))
        if design == "operations":
            y = positive(y)
        if parts["se"]:
            y = squeeze_and_excite(block.excitation, y)
        if design == "parameters":
            y = positive(y + convolve(block.shortcut, x))
        return condition(network.film[number], y, code) if parts["film"] else y

    def upsample(layer: nn.Module, x: Tensor) -> Tensor:
        return transposed(layer, x) if design == "parameters" else convolve(layer.convolution, doubled(x))

    first = stage(network.encoder[0], x, 0)
    second = stage(network.encoder[1], largest_of_four(first), 1)
    third = stage(network.encoder[2], largest_of_four(second), 2)
    fourth = stage(network.decoder[0], torch.cat([second, upsample(network.up[0], third)], 1), 3)
    fifth = stage(network.decoder[1], torch.cat([first, upsample(network.up[1], fourth)], 1), 4)
    logits = convolve(network.head, fifth)
    if not parts["edge"]:
        return logits
    edge = fifth if design == "parameters" else doubled(fourth)
    edge = positive(normalize(network.edge[2], convolve(network.edge[1], edge)))
    return torch.cat([logits, convolve(network.edge[4], edge)], 1)


@pytest.mark.parametrize("design", ["parameters", "operations"])
@pytest.mark.parametrize(("se", "film", "edge"), list(product([True, False], repeat=3)))
def test_the_forward_pass_is_that_of_the_equations(design: str, se: bool, film: bool, edge: bool) -> None:
    parts = {"se": se, "film": film, "edge": edge}
    torch.manual_seed(0)
    network = SEUNet(outputs=2, design=design, **parts, **SIZES).double().eval()  # type: ignore[arg-type]
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.is_floating_point():
            value.add_(0.4 * torch.randn(value.shape, dtype=value.dtype))
    x, organs = torch.rand(3, 3, 16, 12, dtype=torch.float64), [1, 2, -1]
    with torch.no_grad():
        expected = reference(network, x, organs, design, parts)
        logits = network(x, organ=torch.tensor(organs)) if film else network(x)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    assert expected.std() > 0.05  # no part is driven to where nothing would be seen of it
