"""DeepLabV3 and V3+ on a dilated ResNet, and CSRA-Net's attention between their scales."""

import copy
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from hemalum.errors import HemalumError
from hemalum.models.network import build_network, option_defaults
from hemalum.networks.contract import Outputs
from hemalum.networks.deeplab import AtrousPyramid, DeepLabV3, DeepLabV3Plus
from hemalum.networks.region_attention import ChannelCrossAttention, CSRANet, region_weights
from hemalum.networks.resnet import ResNet, load_pretrained

NARROW: dict[str, Any] = {"layers": (1, 2, 1, 2), "widths": (8, 12, 16, 24), "reduction": 2}


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_sizes_are_the_published_ones() -> None:
    # He et al.'s 25,557,032 and 44,549,160 without their classifiers of 1,000 classes
    assert parameters(ResNet()) == 25_557_032 - 2_049_000
    assert parameters(ResNet(backbone="resnet101")) == 44_549_160 - 2_049_000
    # torchvision's deeplabv3_resnet50, 42,004,074 with an auxiliary head of 2,365,205
    assert parameters(DeepLabV3(outputs=21)) == 42_004_074 - 2_365_205


def test_deeplabv3plus_by_hand() -> None:
    pyramid = 2048 * 256 * (1 + 3 * 9 + 1) + 5 * 256 * 256 + 6 * 2 * 256
    decoder = 256 * 48 + 2 * 48 + 304 * 256 * 9 + 256 * 256 * 9 + 2 * 2 * 256
    assert parameters(DeepLabV3Plus(outputs=6)) == 42_500_160 + pyramid + decoder + 6 * 257


@pytest.mark.parametrize(("output_stride", "sizes"), [(32, [16, 8, 4, 2]), (16, [16, 8, 4, 4]), (8, [16, 8, 8, 8])])
def test_output_stride_sets_the_resolution(output_stride: int, sizes: list[int]) -> None:
    scales = ResNet(output_stride=output_stride, **NARROW)(torch.zeros(1, 3, 64, 64))
    assert [scale.shape[-1] for scale in scales] == sizes


def test_dilation_keeps_what_the_strided_network_computes() -> None:
    # a dilated network gives, at every other pixel, what the strided one gives: the same weights see the same pixels
    torch.manual_seed(0)
    strided = ResNet(output_stride=32, **NARROW).eval()
    x = torch.rand(1, 3, 96, 96)
    expected = strided(x)[3]
    for output_stride in (16, 8):
        dilated = ResNet(output_stride=output_stride, **NARROW).eval()
        dilated.load_state_dict(strided.state_dict())
        step = 32 // output_stride
        torch.testing.assert_close(dilated(x)[3][:, :, ::step, ::step], expected)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A small ResNet of transformers with random weights and statistics, and the folder that it is saved in."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.ResNetConfig(depths=[1, 2, 1, 2], hidden_sizes=[16, 24, 32, 48], embedding_size=4)
    model = transformers.ResNetForImageClassification(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("resnet")
    model.save_pretrained(path)
    return path, model.resnet.eval()


SAVED = {"layers": (1, 2, 1, 2), "widths": (16, 24, 32, 48)}


def test_pretrained_weights_give_what_transformers_gives(saved: tuple[Path, Any]) -> None:
    path, model = saved
    network = ResNet(output_stride=32, **SAVED).eval()
    load_pretrained(network, str(path))
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(x, output_hidden_states=True).hidden_states[1:]
        for scale, other in zip(network(x), expected, strict=True):
            torch.testing.assert_close(scale, other)


def test_pretrained_weights_reach_the_whole_network(saved: tuple[Path, Any]) -> None:
    path, model = saved
    network = build_network("csra_net", 2, {"pretrained": str(path), "channels": 8, **SAVED})
    assert torch.equal(network.encoder.stem[0].weight, model.embedder.embedder.convolution.weight)


def test_pretrained_weights_that_do_not_fit_or_are_not_there(saved: tuple[Path, Any], tmp_path: Path) -> None:
    path, _ = saved
    with pytest.raises(ValueError, match=r"does not fit the network's layers, widths or inputs: .*stem\.0\.weight"):
        load_pretrained(ResNet(inputs=1, **SAVED), str(path))
    with pytest.raises(ValueError, match="does not fit the network's layers"):
        load_pretrained(ResNet(layers=(1, 1, 1, 1), widths=SAVED["widths"]), str(path))
    with pytest.raises(ValueError, match=r"no ResNet to load from '.*none': give a folder that transformers saved"):
        load_pretrained(ResNet(**SAVED), str(tmp_path / "none"))


def test_pretrained_weights_are_never_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where there is a connection: what is missing is said with the command that gets it."""
    transformers, seen = pytest.importorskip("transformers"), []
    real = transformers.ResNetModel.from_pretrained

    def watched(source: str, **options: Any) -> Any:
        seen.append(options)
        return real(source, **options)

    monkeypatch.setattr(transformers.ResNetModel, "from_pretrained", watched)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    with pytest.raises(ValueError, match="huggingface-cli download microsoft/resnet-50"):
        load_pretrained(ResNet(), "microsoft/resnet-50")
    assert [(options["local_files_only"], options["use_safetensors"]) for options in seen] == [(True, True)]


def test_a_pickle_of_weights_is_not_read(saved: tuple[Path, Any], tmp_path: Path) -> None:
    path, model = saved
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((path / "config.json").read_bytes())
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no ResNet to load from '.*pickled': .* with model\.safetensors"):
        load_pretrained(ResNet(**SAVED), str(folder))


def test_the_digest_is_that_of_the_weights(saved: tuple[Path, Any], tmp_path: Path) -> None:
    path, model = saved
    moved = shutil.copytree(path, tmp_path / "moved")
    digests = [load_pretrained(ResNet(**SAVED), str(folder)) for folder in (path, moved)]
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.embedder.embedder.convolution.weight[0, 0, 0, 0] += 1
    changed.save_pretrained(tmp_path / "changed")
    digests.append(load_pretrained(ResNet(**SAVED), str(tmp_path / "changed")))
    assert digests[0] == digests[1] != digests[2]
    network = build_network("deeplabv3plus", 2, {"pretrained": str(path), "channels": 8, **SAVED})
    assert network.pretrained_digest == digests[0]
    assert build_network("deeplabv3plus", 2, {"channels": 8, **SAVED}).pretrained_digest is None


def test_pretrained_without_transformers_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r'pip install "hemalum\[sam\]"'):
        DeepLabV3(pretrained="microsoft/resnet-50", channels=8, **NARROW)


@pytest.mark.fault
def test_options_that_the_networks_share_stand_once_and_are_taken_by_all() -> None:
    encoder = {"inputs", "backbone", "output_stride", "layers", "widths", "reduction", "pretrained"}
    plain, plus, csra = (network.option_defaults() for network in (DeepLabV3, DeepLabV3Plus, CSRANet))
    assert plain.keys() == encoder | {"outputs", "channels", "rates"}
    assert plus.keys() == plain.keys() | {"skips", "low_level"}
    assert csra.keys() == plus.keys() | {"raa", "reduced", "region", "grid", "heads", "depth", "growth"}
    assert (plain["backbone"], plus["backbone"], csra["backbone"]) == ("resnet50", "resnet101", "resnet101")
    assert (plus["skips"], csra["skips"]) == ((1,), (1, 2, 3))
    assert "rates" in option_defaults("csra_net")
    assert "rate" not in option_defaults("csra_net")
    with pytest.raises(HemalumError, match=r"network 'csra_net' does not take these options: .*'rate'"):
        build_network("csra_net", 1, {"rate": 1})


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet18"}, "backbone 'resnet18': there are resnet50, resnet101"),
        ({"output_stride": 4}, "output_stride 4: it can be 8, 16, 32"),
        ({"layers": [1, 1, 1]}, "a ResNet has four stages"),
        ({"widths": [10, 12, 16, 24]}, "each must be a multiple of reduction, 4"),
        ({"skips": [2, 1]}, "want some of 1, 2, 3, in order"),
        ({"skips": [4]}, "want some of 1, 2, 3, in order"),
        ({"region": 8}, "region 8: want a multiple of output_stride, 16"),
        ({"heads": 0}, "at least 1 of each"),
    ],
)
def test_options_that_are_not_possible(options: dict[str, Any], words: str) -> None:
    with pytest.raises(HemalumError, match=words):
        build_network("csra_net", 1, options)


def test_the_pyramid_is_its_equation() -> None:
    torch.manual_seed(0)
    pyramid, x = AtrousPyramid(4, 6, (1, 2, 3)).eval(), torch.randn(2, 4, 7, 9)

    def normed(y: torch.Tensor) -> torch.Tensor:  # batch norm's moments are 0 and 1
        return (y / 1.00001**0.5).relu()

    parts = [normed(torch.einsum("oi,bihw->bohw", pyramid.branches[0][0].weight[:, :, 0, 0], x))]
    for rate, branch in zip((1, 2, 3), pyramid.branches[1:], strict=True):
        around = nn.functional.pad(x, [rate] * 4)
        seen = [around[:, :, i * rate :, j * rate :][:, :, :7, :9] for i in range(3) for j in range(3)]
        parts.append(normed(torch.einsum("oik,kbihw->bohw", branch[0].weight.flatten(2), torch.stack(seen))))
    image = normed(torch.einsum("oi,bi->bo", pyramid.image.weight[:, :, 0, 0], x.mean((2, 3))))
    parts.append(image[:, :, None, None].expand(-1, -1, 7, 9))
    expected = normed(torch.einsum("oi,bihw->bohw", pyramid.join[0].weight[:, :, 0, 0], torch.cat(parts, 1)))
    torch.testing.assert_close(pyramid(x), expected)


def test_one_image_alone_trains() -> None:
    pyramid = AtrousPyramid(4, 6, (1, 2, 3)).train()
    assert pyramid(torch.rand(1, 4, 5, 5)).shape == (1, 6, 5, 5)
    assert torch.equal(pyramid.image_norm.running_mean, torch.zeros(6))


def test_dropped_logits_are_those_of_the_last_images_without_half_of_the_channels() -> None:
    torch.manual_seed(0)
    network = DeepLabV3Plus(2, channels=8, low_level=4, **NARROW)
    x = torch.rand(3, 3, 32, 32)
    outputs = network.train()(x, dropped=2, features=True)
    assert isinstance(outputs, Outputs)
    assert outputs.logits.shape == (3, 2, 32, 32)
    assert outputs.extras["dropped"].shape == (2, 2, 32, 32)
    assert outputs.extras["features"].shape == (3, 8, 8, 8)
    assert not torch.allclose(outputs.extras["dropped"], outputs.logits[1:])
    # the head's input and its weights explain the logits, up to the bias
    features, prototypes = outputs.extras["features"], outputs.extras["prototypes"]
    coarse = torch.einsum("bdhw,cd->bchw", features, prototypes) + network.head.bias.view(1, -1, 1, 1)
    logits = nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")
    torch.testing.assert_close(outputs.logits, logits)
    assert isinstance(network.eval()(x, dropped=2, features=True), torch.Tensor)


@pytest.mark.parametrize("region", [1, 2, 4])
def test_region_weights_against_another_implementation(region: int) -> None:
    x = np.random.default_rng(0).normal(size=(3, 8, 12))
    weights = region_weights(torch.tensor(x, dtype=torch.float32)[None], region)[0, 0].numpy()
    length = [np.hypot(ndimage.sobel(c, 0, mode="nearest"), ndimage.sobel(c, 1, mode="nearest")) for c in x]
    if region == 1:
        around = [np.pad(g, 1, mode="edge") for g in length]
        blocks = np.array([np.lib.stride_tricks.sliding_window_view(g, (3, 3)).reshape(8, 12, 9) for g in around])
    else:
        blocks = np.array(
            [
                g.reshape(8 // region, region, 12 // region, region).transpose(0, 2, 1, 3).reshape(
                    8 // region, 12 // region, -1
                )
                for g in length
            ]
        )  # fmt: skip
    variance = blocks.var(axis=-1).mean(axis=0)
    expected = 1 / (1 + np.exp(-(variance - variance.mean()) / variance.std()))
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-5)


def test_a_flat_image_weighs_all_regions_alike() -> None:
    x = torch.full((1, 2, 8, 8), 3.0, requires_grad=True)
    weights = region_weights(x, 4)
    torch.testing.assert_close(weights, torch.full((1, 1, 2, 2), 0.5))
    weights.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_channel_attention_by_hand() -> None:
    # one scale, one head, identity projections: scores = (w Q)ᵀ K / √C over tokens, ψ, softmax, times V, transposed
    attention = ChannelCrossAttention([3], heads=1)
    for layer in (attention.queries[0], attention.key, attention.value, attention.outs[0]):
        layer.weight.data = torch.eye(3)
    tokens, weight = torch.rand(1, 5, 3), torch.rand(1, 5, 1)
    t = tokens[0].numpy().astype(np.float64)
    t = (t - t.mean(1, keepdims=True)) / np.sqrt(t.var(1, keepdims=True) + 1e-6)
    scores = (t * weight[0].numpy()).T @ t / np.sqrt(3)
    scores = (scores - scores.mean()) / np.sqrt(scores.var() + 1e-5)
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    expected = (shares @ t.T).T
    np.testing.assert_allclose(attention([tokens], [weight])[0][0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_without_attention_csra_net_is_deeplab() -> None:
    torch.manual_seed(0)
    plain = CSRANet(2, raa=False, channels=8, **NARROW).eval()
    other = DeepLabV3Plus(2, skips=(1, 2, 3), channels=8, **NARROW).eval()
    other.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 48, 32)
    assert torch.equal(plain(x), other(x))


def test_without_skips_it_is_deeplabv3() -> None:
    torch.manual_seed(0)
    plain = DeepLabV3(2, channels=8, **NARROW).eval()
    for other in (
        DeepLabV3Plus(2, skips=(), channels=8, **NARROW),
        CSRANet(2, skips=(), raa=False, channels=8, **NARROW),
    ):
        other.load_state_dict(plain.state_dict())
        x = torch.rand(2, 3, 48, 32)
        assert torch.equal(plain(x), other.eval()(x))
        outputs = other.train()(x, dropped=1, features=True)
        assert outputs.extras["features"].shape == (2, 8, 3, 2)
        assert outputs.extras["dropped"].shape == (1, 2, 48, 32)


@pytest.mark.parametrize("skips", [(), (1, 3), (1, 2, 3)])
def test_every_weight_learns_whatever_the_decoder_takes(skips: tuple[int, ...]) -> None:
    # processes that train together wait for the gradient of every weight
    torch.manual_seed(0)
    network = CSRANet(
        2, skips=skips, channels=8, low_level=4, reduced=(4, 4, 6, 8), grid=2, heads=2, depth=2, **NARROW
    )
    network.train()(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_attention_memory_does_not_grow_with_the_square_of_pixels() -> None:
    # the largest tensor is that of the finest scale, never tokens x tokens
    network = CSRANet(1, channels=8, low_level=4, reduced=(4, 4, 6, 8), grid=4, heads=2, depth=1, **NARROW).eval()
    largest = 0

    def note_size(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, torch.Tensor):
            largest = max(largest, output.numel())

    hooks = [module.register_forward_hook(note_size) for module in network.attention.modules()]
    sizes = []
    for side in (128, 256):
        largest = 0
        network(torch.rand(1, 3, side, side))
        sizes.append(largest)
    for hook in hooks:
        hook.remove()
    assert sizes[1] == 4 * sizes[0]
