"""Region-adaptive attention as a whole, and in CSRA-Net, against eq. 12 to 16 of its paper written out in loops."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from hemalum.networks.region_attention import CSRANet, RegionAttention

Floats = NDArray[np.float64]

WIDTHS, REDUCED, STRIDES, REGION = (3, 4, 5, 6), (2, 3, 4, 5), (4, 8, 16, 16), 16
PATCHES = (4, 2, 1, 1)
HEIGHT, WIDTH, HEADS = 3, 2, 2  # in regions
SOBEL = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])


def array(tensor: torch.Tensor) -> Floats:
    return tensor.detach().numpy().astype(np.float64)


def randomize(network: nn.Module) -> None:
    """Weights, and moments of batch norm, without a 0 or 1 behind which a missing term could hide."""
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if value.is_floating_point():
            drawn = torch.rand_like(value) + 0.5 if name.endswith("running_var") else torch.randn_like(value) * 0.6
            value.data.copy_(drawn)


def region_weight(x_chw: Floats, region: int) -> Floats:
    """Eq. 12 and 13, (rows, columns): variance of the gradient's length within each region, through a sigmoid."""
    channels, height, width = x_chw.shape
    length = np.zeros_like(x_chw)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                across = down = 0.0
                for di in (-1, 0, 1):
                    for dj in (-1, 0, 1):
                        value = x_chw[c, min(max(i + di, 0), height - 1), min(max(j + dj, 0), width - 1)]
                        across += SOBEL[di + 1, dj + 1] * value
                        down += SOBEL.T[di + 1, dj + 1] * value
                length[c, i, j] = math.hypot(across, down)
    rows, columns = height // region, width // region
    spread = np.zeros((rows, columns))
    for r in range(rows):
        for k in range(columns):
            for c in range(channels):
                if region == 1:  # of the 3 x 3 px around
                    seen = [
                        length[c, min(max(r + di, 0), height - 1), min(max(k + dj, 0), width - 1)]
                        for di in (-1, 0, 1)
                        for dj in (-1, 0, 1)
                    ]
                else:
                    block = length[c, r * region : (r + 1) * region, k * region : (k + 1) * region]
                    seen = block.ravel().tolist()
                mean = sum(seen) / len(seen)
                spread[r, k] += sum((g - mean) ** 2 for g in seen) / len(seen) / channels
    weights: Floats = 1 / (1 + np.exp(-(spread - spread.mean()) / spread.std()))
    return weights


def layer_norm(x: Floats, norm: nn.Module) -> Floats:
    """Of the vector of one token."""
    normed: Floats = (x - x.mean()) / math.sqrt(x.var() + 1e-6) * array(norm.weight) + array(norm.bias)
    return normed


def by_token(x_tc: Floats, norm: nn.Module) -> Floats:
    return np.stack([layer_norm(x_tc[t], norm) for t in range(len(x_tc))])


def attend(tokens: list[Floats], weights: list[Floats], attention: Any) -> list[Floats]:
    """O_i of eq. 14 and 15 before the shortcut: channels of scale i over the channels of all scales."""
    every = by_token(np.concatenate(tokens, axis=1), attention.norm_of_all)
    total = every.shape[1]
    key, value = every @ array(attention.key.weight).T, every @ array(attention.value.weight).T
    results = []
    for x, w, norm, query, out in zip(
        tokens, weights, attention.norms, attention.queries, attention.outs, strict=True
    ):
        width = x.shape[1]
        q = by_token(x, norm) @ array(query.weight).T
        mean = np.zeros_like(x)
        for head in range(HEADS):
            q_h = q[:, head * width : (head + 1) * width]
            k_h, v_h = (m[:, head * total : (head + 1) * total] for m in (key, value))
            scores = np.zeros((width, total))
            for a in range(width):
                for b in range(total):
                    scores[a, b] = sum(w[t] * q_h[t, a] * k_h[t, b] for t in range(len(x))) / math.sqrt(total)
            scores = (scores - scores.mean()) / math.sqrt(scores.var() + 1e-5)  # ψ
            shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            for t in range(len(x)):
                for a in range(width):
                    mean[t, a] += sum(shares[a, b] * v_h[t, b] for b in range(total)) / HEADS
        results.append(mean @ array(out.weight).T)
    return results


def depthwise_mlp(x_tc: Floats, mlp: Any) -> Floats:
    """DMLP of eq. 16 over the map of tokens: depthwise 3 x 3 that widens, 1 x 1, GELU, 1 x 1."""
    channels = x_tc.shape[1]
    growth = mlp.widen.weight.shape[0] // channels
    wide = np.zeros((HEIGHT * WIDTH, channels * growth))
    kernel, bias = array(mlp.widen.weight), array(mlp.widen.bias)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            for n in range(channels * growth):
                total = bias[n]
                for di in (-1, 0, 1):
                    for dj in (-1, 0, 1):
                        if 0 <= row + di < HEIGHT and 0 <= column + dj < WIDTH:
                            token = (row + di) * WIDTH + column + dj
                            total += kernel[n, 0, di + 1, dj + 1] * x_tc[token, n // growth]
                wide[row * WIDTH + column, n] = total
    mixed = wide @ array(mlp.mix.weight)[:, :, 0, 0].T + array(mlp.mix.bias)
    gelu = np.vectorize(lambda v: v / 2 * (1 + math.erf(v / math.sqrt(2))))(mixed)
    narrow: Floats = gelu @ array(mlp.narrow.weight)[:, :, 0, 0].T + array(mlp.narrow.bias)
    return narrow


def interpolated(position: Floats) -> Floats:
    """Learned positions (C, grid, grid) at the tokens of HEIGHT x WIDTH regions, bilinear between centers: (T, C)."""
    grid = position.shape[1]
    result = np.zeros((HEIGHT * WIDTH, len(position)))
    for row in range(HEIGHT):
        for column in range(WIDTH):
            y, x = ((n + 0.5) * grid / size - 0.5 for n, size in ((row, HEIGHT), (column, WIDTH)))
            for i in range(grid):
                for j in range(grid):
                    # beyond the last center the border's value holds
                    near = [max(0.0, 1 - abs(min(max(v, 0), grid - 1) - n)) for v, n in ((y, i), (x, j))]
                    result[row * WIDTH + column] += near[0] * near[1] * position[:, i, j]
    return result


def reference(attention: Any, scales: list[Floats]) -> list[Floats]:
    """What region-adaptive attention makes of the four scales (C, H, W) of one image."""
    tokens, weights = [], []
    for i, x in enumerate(scales):
        convolution = attention.reduce[i]
        reduced = np.einsum("oc,chw->ohw", array(convolution.weight)[:, :, 0, 0], x)
        reduced += array(convolution.bias)[:, None, None]
        patch, kernel = PATCHES[i], array(attention.embed[i].weight)
        weights.append(region_weight(reduced, patch).ravel())
        embedded = np.zeros((HEIGHT * WIDTH, len(reduced)))
        for row in range(HEIGHT):
            for column in range(WIDTH):
                block = reduced[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
                embedded[row * WIDTH + column] = np.einsum("ocij,cij->o", kernel, block)
        embedded += array(attention.embed[i].bias)
        tokens.append(embedded + interpolated(array(attention.positions[i])[0]))
    for layer in attention.layers:
        changes = attend(tokens, weights, layer.attention)
        outs = [x + change for x, change in zip(tokens, changes, strict=True)]
        tokens = [
            o + depthwise_mlp(by_token(o, norm), mlp)
            for o, norm, mlp in zip(outs, layer.norms, layer.mlps, strict=True)
        ]
    results = []
    for i, x in enumerate(scales):
        convolution, norm = attention.back[i][0], attention.back[i][1]
        normed = by_token(tokens[i], attention.norms[i])
        back = normed @ array(convolution.weight)[:, :, 0, 0].T
        back = (back - array(norm.running_mean)) / np.sqrt(array(norm.running_var) + norm.eps)
        back = np.maximum(back * array(norm.weight) + array(norm.bias), 0)
        result = x.copy()
        for row in range(x.shape[1]):
            for column in range(x.shape[2]):
                result[:, row, column] += back[row // PATCHES[i] * WIDTH + column // PATCHES[i]]
        results.append(result)
    return results


@pytest.mark.parametrize("query", [1.0, 0.003])
def test_attention_as_a_whole_is_its_equations(query: float) -> None:
    # ψ takes the scale of the scores away, 1/√C among it, unless they are as small as what it adds under its root
    torch.manual_seed(0)
    attention = RegionAttention(WIDTHS, STRIDES, REDUCED, REGION, grid=3, heads=HEADS, depth=2, growth=2).eval()
    randomize(attention)
    for layer in attention.layers:
        for one in layer.attention.queries:
            one.weight.data *= query
    shapes = [(HEIGHT * patch, WIDTH * patch) for patch in PATCHES]
    scales = [torch.randn(2, width, *shape) for width, shape in zip(WIDTHS, shapes, strict=True)]
    results = attention([scale.clone() for scale in scales])
    for image in range(2):
        expected = reference(attention, [array(scale[image]) for scale in scales])
        for result, wanted in zip(results, expected, strict=True):
            np.testing.assert_allclose(array(result[image]), wanted, rtol=1e-4, atol=1e-4)


def test_the_decoder_takes_what_attention_gives() -> None:
    torch.manual_seed(0)
    network = CSRANet(
        2, layers=(1, 1, 1, 1), widths=(8, 12, 16, 24), reduction=2, channels=8, low_level=4, reduced=REDUCED, grid=2,
        heads=HEADS, depth=1,
    ).eval()  # fmt: skip
    randomize(network)
    for module in network.encoder.modules():  # random moments would make its features vanish or burst
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    x = torch.rand(1, 3, 48, 32)
    assert network.attention is not None
    with torch.no_grad():
        scales = network.encoder(x)
        attended = [torch.tensor(one[None]) for one in reference(network.attention, [array(s[0]) for s in scales])]
        expected = network.head(network.decode([one.float() for one in attended]))
        wanted = nn.functional.interpolate(expected, size=(48, 32), mode="bilinear")
        torch.testing.assert_close(network(x), wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
        plain = network.head(network.decode(scales))
    assert float((expected - plain).abs().max()) > 0.01 * float(plain.abs().max())
