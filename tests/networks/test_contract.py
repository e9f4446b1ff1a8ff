"""What every registered network keeps to; a new row in NETWORKS is tested without a further line."""

import pytest
import torch
from torch import nn

from hemalum.errors import HemalumError
from hemalum.networks import NETWORKS, build_network
from hemalum.networks.outputs import Outputs
from hemalum.networks.receptive_field import measure_halo
from hemalum.networks.unet import UNet

NARROW = {"layers": [1, 1, 1, 1], "widths": [8, 12, 16, 24], "reduction": 2, "channels": 8}  # DeepLab
SMALL = {
    "al_net": {"widths": [4, 8, 16]},
    "attention_unet": {"widths": [4, 8, 16]},
    "awgunet": {"width": 8, "growth": 4, "blocks": [1, 1, 1], "decoder": [8, 8, 4, 4]},
    "compact": {"widths": [8, 16, 24], "depths": [0, 1, 1]},
    "csra_net": NARROW | {"low_level": 4, "reduced": [4, 4, 6, 8], "grid": 4, "heads": 2, "depth": 1},
    "ddu_net": {"widths": [4, 8], "bottom": [8, 16], "dropout": [0.1, 0.1, 0.1]},
    "deeplabv3": NARROW,
    "deeplabv3plus": NARROW | {"low_level": 4},
    "eunet3plus": {"widths": [4, 8, 16], "fusion": "none"},  # with an embedding: test_eunet3plus.py
    "medt": {"width": 8, "stem": 8, "heads": 2, "blocks": [1, 1, 1, 1]},
    "micro_net": {"base": 2, "dropout": 0.0},  # dropped channels have no gradient
    "seu_net": {"widths": [4, 8, 16], "embedding": 4, "organs": 3},
    "swin_unet": {"width": 8, "depths": [1, 2, 1], "heads": [1, 2, 2], "window": 4},
    "transunet": {
        "width": 8,
        "blocks": [1, 1, 1],
        "hidden": 16,
        "depth": 1,
        "heads": 2,
        "mlp": 32,
        "decoder": [8, 8, 4, 4],
        "grid": 3,
    },
    "two_stage": {
        "base": {"name": "unet_plus_plus", "options": {"widths": [4, 8, 16]}},
        "width": 4,
        "batch_norm": True,
    },  # fmt: skip
    "unet": {"widths": [4, 8, 16], "norm": True},
    "unet3plus": {"widths": [4, 8, 16]},
    "unet_plus_plus": {"widths": [4, 8, 16]},
}


@pytest.fixture(params=sorted(NETWORKS))
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return build_network(request.param, 3, SMALL[request.param])


@pytest.mark.parametrize("factors", [(1, 1), (3, 5), (8, 2)])
def test_any_multiple_of_the_stride_comes_out_at_its_own_size(network: nn.Module, factors: tuple[int, int]) -> None:
    height, width = (factor * network.stride for factor in factors)
    assert network.eval()(torch.zeros(2, 3, height, width)).shape == (2, 3, height, width)


def test_gradient_reaches_every_parameter(network: nn.Module) -> None:
    side = 4 * network.stride
    given = Outputs.of(network(torch.rand(2, 3, side, side)))
    parts = [given.logits, *given.sides, *given.extras.values()]
    torch.stack([part.square().mean() for part in parts]).sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_the_same_twice_and_after_loading(network: nn.Module, request: pytest.FixtureRequest) -> None:
    x = torch.rand(1, 3, 4 * network.stride, 4 * network.stride)
    network.eval()
    name = request.node.callspec.params["network"]
    other = build_network(name, 3, SMALL[name])
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(x), network(x))
    assert torch.equal(network(x), other.eval()(x))


def test_images_of_a_batch_do_not_see_each_other_in_eval(network: nn.Module) -> None:
    side = 4 * network.stride
    x = torch.rand(3, 3, side, side)
    network.eval()
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite(network: nn.Module, dtype: torch.dtype) -> None:
    side = 4 * network.stride
    with torch.inference_mode():
        out = network.eval().to(dtype)(torch.rand(1, 3, side, side, dtype=dtype))
    assert torch.isfinite(out).all()


def test_a_pixel_beyond_the_halo_changes_nothing_and_one_within_it_does(network: nn.Module) -> None:
    if getattr(network, "global_context", False):
        pytest.skip("sees its whole input: it is run in windows of the training tile's size")
    halo = measure_halo(network, network.stride)
    network.eval().double()  # so that a far and faint influence is not rounded away
    side = 2 * halo + 4 * network.stride
    centre = side // 2 - side // 2 % network.stride
    x = torch.rand(1, 3, side, side, dtype=torch.float64)
    own = network(x)[0, :, centre : centre + network.stride, centre : centre + network.stride]
    outside = x.clone()
    outside[:, :, : centre - halo] += 1
    outside[:, :, centre + network.stride + halo :] += 1
    outside[:, :, :, : centre - halo] += 1
    outside[:, :, :, centre + network.stride + halo :] += 1
    inner = network(outside)[0, :, centre : centre + network.stride, centre : centre + network.stride]
    torch.testing.assert_close(inner, own, rtol=0, atol=0)
    tight = x.clone()
    tight[:, :, : centre - halo + network.stride] += 10
    changed = network(tight)[0, :, centre : centre + network.stride, centre : centre + network.stride]
    assert not torch.equal(changed, own)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"inputs": 1, "widths": (32, 64, 128, 256, 512)}, 7_759_521),
        ({"inputs": 3, "widths": (32, 64, 128, 256, 512)}, 7_760_097),
        ({"inputs": 3}, 31_031_745),
        ({"inputs": 1, "norm": True}, 31_042_369),
    ],
)
def test_unet_has_the_parameters_that_the_papers_count(options: dict, expected: int) -> None:
    assert sum(p.numel() for p in UNet(outputs=1, **options).parameters()) == expected


def test_compact_keeps_its_budget() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    network = build_network("compact", 7, {}).eval()
    assert sum(p.numel() for p in network.parameters()) <= 3_000_000
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 256, 256))
    assert counter.get_total_flops() <= 10e9  # multiplications and additions counted apart


def test_unknown_network_names_the_nearest() -> None:
    with pytest.raises(HemalumError, match=r"unknown network 'compct', did you mean 'compact'\?"):
        build_network("compct", 1, {})


def test_unknown_option_is_named() -> None:
    with pytest.raises(HemalumError, match=r"'unet' does not take these options: .*wdths"):
        build_network("unet", 1, {"wdths": [4, 8]})
