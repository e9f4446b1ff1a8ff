"""What every registered network keeps to; a new row in NETWORKS needs a row in SMALL and no further line."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # the documented class; torch has no public path to it

from hemalum.errors import HemalumError
from hemalum.inference.segment import segment
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.engines.onnx import export_onnx
from hemalum.models.engines.openvino import convert, shared_core
from hemalum.models.engines.pytorch import TorchEngine
from hemalum.models.map_model import build_map_model
from hemalum.models.model import Model
from hemalum.models.network import build_network, measure_halo
from hemalum.networks import NETWORKS, Network, Outputs
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
    },
    "unet": {"widths": [4, 8, 16], "norm": True},
    "unet3plus": {"widths": [4, 8, 16]},
    "unet_plus_plus": {"widths": [4, 8, 16]},
}


# options that change what the contract asks for, beside the row's own
FURTHER = {
    "compact without aliases": ("compact", {"widths": [8, 16, 24], "depths": [0, 1, 1], "antialias": True}),
    "eunet3plus with an embedding": (
        "eunet3plus",
        {"widths": [4, 8, 16], "embedding": 8, "reduction": 2, "dropout": 0.0},
    ),
    "micro_net at one size": ("micro_net", {"base": 2, "padding": "valid", "dropout": 0.0}),
}
CASES = {name: (name, SMALL[name]) for name in sorted(NETWORKS) if name in SMALL} | FURTHER
EXPORTED = [case for case in CASES if "embedding" not in case]  # with SAM inside: tests/inference
Built = tuple[Card, dict[str, NDArray[Any]], NDArray[np.uint8], NDArray[np.float32]]
AGREE = 2e-5  # largest difference of maps in [0, 1] from PyTorch, in float32


# what has no gradient before the first step, since the layer that reads it starts at zero
FROM_THE_SECOND_STEP = {"SEUNet": ["embedding.weight"]}


def build_case(case: str, outputs: int = 3, **options: object) -> Network:
    name, small = CASES[case]
    torch.manual_seed(0)
    return build_network(name, outputs, small | options)


@pytest.fixture(params=list(CASES))
def network(request: pytest.FixtureRequest) -> Network:
    return build_case(request.param)


def side(network: Network, factor: int = 4) -> int:
    """The side that the network was built for, or `factor` times its stride."""
    return network.fixed_window or factor * network.stride


def conditions(network: Network, images: int) -> dict[str, Tensor]:
    """What forward takes besides pixels, different for each image; organs begin with the unknown one."""
    values = {
        "organ": torch.arange(images) - 1,
        "embedding": torch.randn(images, network.embedding_channels or 0, 4, 4),
    }
    return {name: values[name] for name in network.conditions}


def run(network: Network, x: Tensor) -> Outputs:
    return Outputs.of(network(x, **conditions(network, len(x))))


def test_every_registered_network_has_a_row_here() -> None:
    lacking = sorted(NETWORKS.keys() - SMALL.keys())
    assert not lacking, (
        f"add a row to SMALL in {__file__} for {', '.join(lacking)}: options that make it run in no time"
    )
    assert not SMALL.keys() - NETWORKS.keys()


def test_it_declares_modules_that_it_has(network: Network) -> None:
    """Late modules are its own, and not all of it; the layer that is called final is run once, on a map."""
    modules = dict(network.named_children())
    late = set(network.late_modules)
    assert late, "declare late_modules: what a refinement trains"
    assert late & modules.keys() < modules.keys()
    shapes: list[torch.Size] = []
    network.get_submodule(network.final_layer).register_forward_pre_hook(
        lambda _, inputs: shapes.append(inputs[0].shape)
    )
    run(network.eval(), torch.rand(2, 3, side(network), side(network)))
    assert [(len(shape), shape[0]) for shape in shapes] == [(4, 2)]


def test_conditions_and_toggles_are_what_forward_and_the_network_have(network: Network) -> None:
    assert set(network.conditions) <= {"organ", "embedding"}
    assert ("embedding" in network.conditions) == (network.embedding_channels is not None)
    for name in network.stage_toggles:
        assert vars(network)[name] is True
    parameters = inspect.signature(network.forward).parameters
    assert network.feature_outputs == ({"dropped", "features"} <= parameters.keys())


@pytest.mark.parametrize("factors", [(1, 1), (3, 5), (7, 2)])
def test_any_multiple_of_the_stride_comes_out_at_its_own_size(network: Network, factors: tuple[int, int]) -> None:
    height, width = (side(network, factor) for factor in factors)
    logits = network.eval()(torch.zeros(2, 3, height, width), **conditions(network, 2))
    assert isinstance(logits, Tensor)  # in eval nothing but logits
    assert logits.shape == (2, 3, height, width)


def test_a_size_that_the_network_was_not_built_for_is_refused(network: Network) -> None:
    window = network.fixed_window
    if window is None:
        pytest.skip("takes every multiple of its stride")
    wrong = torch.zeros(1, 3, window, window + 4)
    with pytest.raises(ValueError, match=f"{window}.*{window + 4}"):
        network(wrong)


def test_a_training_step_of_one_image(network: Network) -> None:
    x = torch.rand(1, 3, side(network), side(network))
    try:
        outputs = run(network.train(), x)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # how PyTorch says so
            raise
        pytest.skip("has batch norm over one value per image")
    assert outputs.logits.shape == (1, 3, *x.shape[2:])
    for logits in outputs.aux_logits:
        assert logits.shape == outputs.logits.shape
    outputs.logits.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_gradient_reaches_every_parameter(network: Network) -> None:
    outputs = run(network.train(), torch.rand(4, 3, side(network), side(network)))
    parts = [outputs.logits, *outputs.aux_logits, *outputs.extras.values()]
    torch.stack([part.square().mean() for part in parts]).sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == FROM_THE_SECOND_STEP.get(type(network).__name__, [])


def test_the_same_twice_and_after_a_file(network: Network, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    x = torch.rand(2, 3, side(network), side(network))
    network.eval()
    values = conditions(network, 2)
    tensors = {name: value.numpy() for name, value in network.state_dict().items()}
    save_file(tensors, tmp_path / "weights.safetensors")
    other = build_case(request.node.callspec.params["network"])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(
        {name: torch.from_numpy(value) for name, value in load_file(tmp_path / "weights.safetensors").items()}
    )
    with torch.inference_mode():
        first = network(x, **values)
        assert torch.equal(first, network(x, **values))
        assert torch.equal(first, other.eval()(x, **values))


def test_no_two_tensors_share_their_memory(network: Network) -> None:
    """A model file holds each tensor by itself: tied ones would come apart."""
    addresses = [value.untyped_storage().data_ptr() for value in network.state_dict().values() if value.numel()]
    assert len(set(addresses)) == len(addresses)


def test_images_of_a_batch_do_not_see_each_other_in_eval(network: Network) -> None:
    x = torch.rand(3, 3, side(network), side(network), dtype=torch.float64)
    values = conditions(network, 3)
    network.eval().double()  # so that what instance norm makes of rounding is small
    with torch.inference_mode():
        alone = network(x[1:2], **{name: value[1:2] for name, value in values.items()})
        torch.testing.assert_close(network(x, **values)[1:2], alone, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite(network: Network, dtype: torch.dtype) -> None:
    x = torch.rand(1, 3, side(network), side(network), dtype=dtype)
    with torch.inference_mode():
        assert torch.isfinite(run(network.eval().to(dtype), x).logits).all()


def test_a_training_step_in_mixed_precision_is_finite(network: Network) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        outputs = run(network.train(), torch.rand(2, 3, side(network), side(network)))
    outputs.logits.square().mean().backward()
    assert torch.isfinite(outputs.logits).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


class _Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation gives, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for value in results if isinstance(results, tuple | list) else (results,):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.untyped_storage().nbytes() // value.element_size())
        return results


@pytest.mark.parametrize("case", list(CASES))
def test_memory_grows_with_pixels_not_with_their_square(case: str) -> None:
    """No tensor at twice the side has much more than four times the elements: attention keeps no table of pairs."""
    largest = []
    small = side(build_case(case))
    for factor in (1, 2):
        built_for = "size" in NETWORKS[CASES[case][0]].option_defaults()
        network = build_case(case, **({"size": factor * small} if built_for else {})).eval()
        if network.fixed_window is not None and not built_for:
            pytest.skip("takes one size only")
        with torch.inference_mode(), _Largest() as largest_tensor:
            run(network, torch.rand(1, 3, factor * small, factor * small))
        largest.append(largest_tensor.elements)
    assert largest[1] <= 4.5 * largest[0]


@pytest.fixture(scope="module", params=EXPORTED)
def model(request: pytest.FixtureRequest) -> Built:
    """Card, tensors, images and the maps that PyTorch makes of them; weights are moved off their start values."""
    case = request.param
    network = build_case(case, outputs=2)
    window = side(network) if network.fixed_window is not None or network.global_context else None
    height, width = (window, window) if window else (3 * network.stride, 5 * network.stride)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        run(network.train(), torch.randn(4, 3, window or height, window or height))  # batch norm's running moments
    name, options = CASES[case]
    organs = [f"organ {number}" for number in range(3)] if "organ" in network.conditions else []
    card = Card(
        name="t", network=NetworkSpec(name=name, options=options), representation="distance", mpp=0.5, halo=0,
        stride=network.stride, window=window, organs=organs, code_version="0",
    )  # fmt: skip
    tensors = {name: value.numpy() for name, value in network.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    organ_N = (torch.tensor([-1, 1]),) if organs else ()
    with torch.inference_mode():
        maps = build_map_model(card, tensors)(torch.from_numpy(images), *organ_N).numpy()
    assert maps.std() > 5e-3  # there is something to agree on
    return card, tensors, images, maps


def model_inputs(card: Card, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    return {"images": images} | ({"organ": np.array([-1, 1])} if card.organs else {})


def test_openvino_agrees(model: Built) -> None:
    card, tensors, images, maps = model
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = shared_core().compile_model(convert(card, tensors), "CPU", settings)
    assert np.abs(compiled(model_inputs(card, images))[0] - maps).max() < AGREE


@pytest.mark.slow  # an export takes seconds, however small the network
def test_onnx_agrees(model: Built, tmp_path: Path) -> None:
    card, tensors, images, maps = model
    export_onnx(card, tensors, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert np.abs(session.run(None, model_inputs(card, images))[0] - maps).max() < AGREE


def test_an_image_of_any_size_becomes_nuclei(model: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way of `hemalum segment`, over an image lower than a window and wider than two."""
    card, tensors, _, _ = model
    engine, shapes = TorchEngine(Model(card, tensors), device="cpu", precision="f32"), []
    maps = engine.maps

    def half_foreground(images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        shapes.append(images.shape[1:])
        result = maps(images, organ)
        result[:, 0] = result[:, 0] > np.median(result[:, 0])  # whatever the weights
        return result

    monkeypatch.setattr(engine, "maps", half_foreground)
    wide = 2 * (card.window or 100) + 37
    image = np.random.default_rng(1).integers(0, 256, (70, wide, 3), np.uint8)
    nuclei = segment(image, Model(card, tensors), mpp=0.5, engine=engine)
    assert nuclei.label_map().shape == (70, wide)
    assert nuclei.count > 0
    assert ("organ" in nuclei.notes) == bool(card.organs)
    if card.window is not None:
        assert set(shapes) == {(card.window, card.window, 3)}
    else:
        assert all(height % card.stride == width % card.stride == 0 for height, width, _ in shapes)


def test_a_pixel_beyond_the_halo_changes_nothing_and_one_within_it_does(network: Network) -> None:
    if network.global_context or network.fixed_window is not None:
        pytest.skip("sees its whole input, or takes one size: it is run in windows of the training tile's size")
    halo = measure_halo(network, network.stride)
    network.eval().double()  # so that a far and faint influence is not rounded away
    side = 2 * halo + 4 * network.stride
    center = side // 2 - side // 2 % network.stride
    x = torch.rand(1, 3, side, side, dtype=torch.float64)
    expected = network(x)[0, :, center : center + network.stride, center : center + network.stride]
    outside = x.clone()
    outside[:, :, : center - halo] += 1
    outside[:, :, center + network.stride + halo :] += 1
    outside[:, :, :, : center - halo] += 1
    outside[:, :, :, center + network.stride + halo :] += 1
    inner = network(outside)[0, :, center : center + network.stride, center : center + network.stride]
    torch.testing.assert_close(inner, expected, rtol=0, atol=0)
    tight = x.clone()
    tight[:, :, : center - halo + network.stride] += 10
    changed = network(tight)[0, :, center : center + network.stride, center : center + network.stride]
    assert not torch.equal(changed, expected)


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


@pytest.mark.fault
def test_unknown_network_names_the_nearest() -> None:
    with pytest.raises(HemalumError, match=r"unknown network 'compct', did you mean 'compact'\?"):
        build_network("compct", 1, {})


@pytest.mark.fault
def test_unknown_option_is_named() -> None:
    with pytest.raises(HemalumError, match=r"'unet' does not take these options: .*wdths"):
        build_network("unet", 1, {"wdths": [4, 8]})
