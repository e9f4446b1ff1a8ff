"""The compact network's anti-aliasing: against a blur and an enlargement written as loops."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hemalum.networks import create_network
from hemalum.networks.compact import Blur, Compact

OPTIONS = {"widths": [8, 16, 24], "depths": [0, 1, 1]}


def build(**options: object) -> Compact:
    torch.manual_seed(0)
    network = create_network("compact", 3, OPTIONS | options)
    assert isinstance(network, Compact)
    for module in network.modules():  # statistics as after some training, so that no level is silent
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return network.eval()


def blur_by_loops(x: np.ndarray) -> np.ndarray:
    blurred = np.zeros_like(x)
    for b, c, v, u in np.ndindex(*x.shape):
        for dv, weight_v in ((-1, 1), (0, 2), (1, 1)):
            for du, weight_u in ((-1, 1), (0, 2), (1, 1)):
                row, column = min(max(v + dv, 0), x.shape[2] - 1), min(max(u + du, 0), x.shape[3] - 1)
                blurred[b, c, v, u] += weight_v * weight_u / 16 * x[b, c, row, column]
    return blurred


def enlarge_by_loops(x: np.ndarray) -> np.ndarray:
    """Bilinear by 2: pixel i of the result lies at (i - 1/2) / 2 of the source."""
    large = np.zeros((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]), x.dtype)
    for v, u in np.ndindex(*large.shape[2:]):
        parts = []
        for i, length in ((v, x.shape[2]), (u, x.shape[3])):
            at = min(max((i - 0.5) / 2, 0), length - 1)
            low = int(at)
            parts.append(((low, 1 - (at - low)), (min(low + 1, length - 1), at - low)))
        for row, weight_v in parts[0]:
            for column, weight_u in parts[1]:
                large[:, :, v, u] += weight_v * weight_u * x[:, :, row, column]
    return large


def test_the_blur_is_1_2_1_both_ways() -> None:
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.testing.assert_allclose(Blur()(x).numpy(), blur_by_loops(x.numpy()), atol=1e-12)


def test_the_network_blurs_before_each_stride_and_enlarges_bilinearly() -> None:
    """Level by level with the network's own convolutions, and the loops between them."""
    network = build(antialias=True).double()
    image = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        x = torch.nn.functional.pixel_unshuffle(image, 2)
        skips: list[Tensor] = []
        for level, stage in enumerate(network.encoder):
            x = stage(torch.from_numpy(blur_by_loops(x.numpy())) if level else x)
            skips.append(x)
        for number, skip in enumerate(skips[-2::-1]):
            up = torch.from_numpy(enlarge_by_loops(network.lateral[number](x).numpy()))
            x = network.decoder[number](skip + up)
        expected = torch.nn.functional.pixel_shuffle(network.head(x), 2)
        np.testing.assert_allclose(network(image).numpy(), expected.numpy(), atol=1e-10)


def test_it_is_off_by_default_and_has_no_weights() -> None:
    plain, off, on = build(), build(antialias=False), build(antialias=True)
    image = torch.randn(1, 3, 16, 24)
    on.load_state_dict(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(plain(image), off(image))
        assert not torch.allclose(plain(image), on(image), atol=1e-3)


@pytest.mark.parametrize("antialias", [False, True])
def test_a_move_by_the_stride_moves_the_logits(antialias: bool) -> None:
    network = build(antialias=antialias)
    image = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        first, later = network(image[..., :88]), network(image[..., 8:])
    np.testing.assert_allclose(first[..., 40:56].numpy(), later[..., 32:48].numpy(), atol=1e-4)


def test_a_move_by_a_pixel_of_the_finest_level_changes_less_with_it() -> None:
    """Two px of the image: what is folded into one pixel stays together, and all further levels see other blocks."""
    image = torch.randn(1, 3, 98, 98, generator=torch.Generator().manual_seed(3))
    differs = {}
    for antialias in (False, True):
        network = build(antialias=antialias)
        with torch.no_grad():
            first, later = network(image[..., :96, :96]), network(image[..., 2:, 2:])
        part = first[..., 34:64, 34:64]
        differs[antialias] = float((part - later[..., 32:62, 32:62]).std() / part.std())
    assert differs[True] < 0.3 * differs[False]
