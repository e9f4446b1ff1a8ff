"""What a network sees, against scikit-image, and inside exported graphs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import color
from torch import Tensor, nn

from hemalum.data.stain.separation import STAINS
from hemalum.models.engines.openvino import shared_core
from hemalum.models.input import CHANNELS, STRONGEST, Channels, input_channels, to_input


@pytest.fixture
def images() -> Tensor:
    """(2, 3, 20, 28) of every color but the darkest, in [0, 1]."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(1, 256, (2, 3, 20, 28)).astype(np.float32) / 255)


def test_rgb_stays_as_it_is(images: Tensor) -> None:
    assert to_input(images, "RGB") is images


def test_gray_is_luminance(images: Tensor) -> None:
    expected = images.numpy() * np.array([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(to_input(images, "gray").numpy(), expected.sum(1, keepdims=True), atol=1e-6)


def test_hematoxylin_is_the_deconvolution_of_scikit_image(images: Tensor) -> None:
    pixels = images.permute(0, 2, 3, 1).numpy().astype(np.float64)
    # there, density is in units of that of 1e-6, and the directions' length counts: ours have length 1
    amounts = color.separate_stains(pixels, np.linalg.inv(STAINS))[..., 0] * -np.log(1e-6)
    expected = np.clip(amounts / STRONGEST, 0, 1)
    assert expected.std() > 0.1
    np.testing.assert_allclose(to_input(images, "hematoxylin")[:, 0].numpy(), expected, atol=2e-6)


def test_hematoxylin_of_pure_stains() -> None:
    """Pixels mixed from the three directions by hand give back how much hematoxylin went in."""
    amounts = np.array([[0.0, 0, 0], [0, 1.5, 0], [1, 0, 0], [0.5, 0.7, 0.3]])
    pixels = np.exp(-amounts @ STAINS).astype(np.float32)
    hematoxylin = to_input(torch.from_numpy(pixels.T[None, :, None]), "hematoxylin")
    np.testing.assert_allclose(hematoxylin.flatten().numpy(), amounts[:, 0] / STRONGEST, atol=1e-5)


@pytest.mark.parametrize("channels", CHANNELS)
def test_black_and_white_stay_in_range(channels: Channels) -> None:
    extremes = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
    seen = to_input(extremes, channels)
    assert seen.shape == (2, input_channels(channels), 2, 2)
    assert torch.isfinite(seen).all()
    assert 0 <= seen.min() <= seen.max() <= 1
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(to_input(extremes, channels), seen, rtol=0, atol=0)


class _Seen(nn.Module):
    def __init__(self, channels: Channels) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return to_input(images_BCHW, self.channels)


@pytest.mark.parametrize("channels", ["gray", "hematoxylin"])
def test_exported_graphs_agree(images: Tensor, tmp_path: Path, channels: Channels) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")
    module = _Seen(channels)
    expected = module(images).numpy()
    torch.onnx.export(module, (images,), tmp_path / "seen.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "seen.onnx")
    exported = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    np.testing.assert_allclose(exported, expected, atol=1e-5)
    converted = openvino.convert_model(module, example_input=images)
    compiled = shared_core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(images.numpy())[0], expected, atol=1e-5)
