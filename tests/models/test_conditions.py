"""Networks with windows of one size, organs, or one channel: through every engine, file and verb."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from hemalum.cli import main
from hemalum.errors import HemalumError
from hemalum.inference.batch import segment_paths
from hemalum.inference.segment import segment
from hemalum.models.card import Card, NetworkSpec
from hemalum.models.engines.engine import make_engine
from hemalum.models.engines.openvino import shared_core
from hemalum.models.file import save_model
from hemalum.models.input import to_input
from hemalum.models.model import Model, export_model, load_model
from hemalum.models.network import build_network
from hemalum.targets.representations import find_representation

ORGANS = ["human brain", "human kidney", "human liver"]
WINDOW = 64


def model_of(name: str, options: dict[str, Any], **changes: Any) -> Model:
    """A registered network with random weights, whose maps are neither empty nor full."""
    values: dict[str, Any] = {
        "name": name, "network": NetworkSpec(name=name, options=options), "representation": "foreground_edge",
        "mpp": 0.5, "halo": 0, "code_version": "0",
    } | changes  # fmt: skip
    torch.manual_seed(5)
    card_only = Card(**values | {"stride": 1})
    network = build_network(name, find_representation(card_only.representation, card_only.classes).logits, options)
    network.train()
    with torch.no_grad():
        for _ in range(3):  # batch norm has seen something
            network(torch.rand(4, options.get("inputs", 3), WINDOW, WINDOW), **_conditions(network, 4))
        for key, parameter in network.named_parameters():
            # FiLM starts without any difference between organs
            parameter.add_((0.3 if key.startswith("film.") else 0.02) * torch.randn_like(parameter))
    values["stride"] = int(network.stride)  # type: ignore[arg-type]
    return Model(Card(**values), {key: value.numpy().copy() for key, value in network.state_dict().items()})


def _conditions(network: torch.nn.Module, count: int) -> dict[str, torch.Tensor]:
    return {"organ": torch.arange(count) % 3} if "organ" in network.conditions else {}


SEU = {"widths": [4, 8, 16], "embedding": 4, "organs": 3}
MODELS: dict[str, Callable[[], Model]] = {
    "organs": lambda: model_of("seu_net", SEU, window=WINDOW, organs=ORGANS),
    "gray organs": lambda: model_of(
        "seu_net", SEU | {"inputs": 1}, window=WINDOW, organs=ORGANS, channels="hematoxylin"
    ),
    "gray": lambda: model_of("unet", {"widths": [4, 8, 16], "inputs": 1, "norm": True}, channels="gray"),
    "window": lambda: model_of("unet3plus", {"widths": [4, 8, 16]}, window=WINDOW),
    "edge": lambda: model_of("unet", {"widths": [4, 8, 16], "norm": True}),
}


@pytest.fixture(scope="module", params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> Model:
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def organ_model() -> Model:
    return MODELS["organs"]()


@pytest.fixture(scope="module")
def images(make_blobs: Callable[..., NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.stack([make_blobs(WINDOW, WINDOW, seed) for seed in range(2)])


def organs_of(model: Model) -> Sequence[int | None]:
    return [-1, 0, 2] if model.card.organs else [None]


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_engines_agree(model: Model, images: NDArray[np.uint8], name: str) -> None:
    reference, engine = (make_engine(one, model, device="cpu", precision="f32") for one in ("torch", name))
    for organ in organs_of(model):
        expected = reference.maps(images, organ)
        assert expected.std() > 0.01
        np.testing.assert_allclose(engine.maps(images, organ), expected, atol=2e-5)
        np.testing.assert_allclose(engine.maps(images[:1], organ), expected[:1], atol=2e-5)


def test_the_network_sees_what_it_was_made_for(images: NDArray[np.uint8]) -> None:
    """The maps of a model are those of the network on what the training stream shows it."""
    model = MODELS["gray"]()
    network = build_network("unet", 2, model.card.network.options).eval()
    network.load_state_dict({key: torch.from_numpy(value) for key, value in model.tensors.items()})
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        expected = network((to_input(pixels, "gray") - 0.5) / 0.25).sigmoid().numpy()
    np.testing.assert_allclose(make_engine("torch", model, device="cpu").maps(images), expected, atol=1e-5)


def test_organs_give_other_maps_and_unknown_is_none_of_them(organ_model: Model, images: NDArray[np.uint8]) -> None:
    engine = make_engine("torch", organ_model, device="cpu", precision="f32")
    maps = [engine.maps(images, organ) for organ in (-1, 0, 1, 2)]
    for one in range(4):
        for other in range(one):
            assert np.abs(maps[one] - maps[other]).max() > 1e-3
    assert np.array_equal(maps[0], engine.maps(images))  # nothing said: the rule as well


def test_one_converted_model_serves_every_organ(
    organ_model: Model, images: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEMALUM_CACHE", str(tmp_path))
    first = make_engine("openvino", organ_model.with_organ("human brain"), precision="f32")
    second = make_engine("openvino", organ_model.with_organ("human liver"), precision="f32")
    assert len(list((tmp_path / "openvino").iterdir())) == 1
    assert np.array_equal(first.maps(images, 2), second.maps(images, 2))


@pytest.mark.parametrize("organ", ["human kidney", "Human Kidney "])
def test_the_organ_that_is_said_is_that_of_the_result(
    organ_model: Model, make_blobs: Callable[..., NDArray[np.uint8]], organ: str
) -> None:
    image = make_blobs(100, 150, 3)
    engine = make_engine("torch", organ_model, device="cpu", precision="f32")
    seen: list[int | None] = []
    maps = engine.maps
    engine.maps = lambda images, organ=None: seen.append(organ) or maps(images, organ)  # type: ignore[method-assign]
    nuclei = segment(image, organ_model, mpp=0.5, engine=engine, organ=organ)
    assert set(seen) == {1}
    assert nuclei.notes["organ"] == "human kidney"


def test_no_organ_is_the_rule_and_said_so(
    organ_model: Model, make_blobs: Callable[..., NDArray[np.uint8]], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    rule = "the mean of all organs is taken"
    for name in "ab":
        Image.fromarray(make_blobs(80, 80, ord(name))).save(tmp_path / f"{name}.png")
    with caplog.at_level(logging.INFO):
        results = list(segment_paths([tmp_path], tmp_path / "out", ["csv"], organ_model, mpp=0.5, engine="torch"))
    assert [result.error for result in results] == [None, None]
    notes = [result.nuclei.notes["organ"] for result in results if result.nuclei is not None]
    assert notes == [f"not given: {rule}"] * 2
    messages = [record.message for record in caplog.records if "organ" in record.message]
    assert messages == [f"model 'seu_net' tells organs apart and none is given: {rule}; organ sets it"]


def test_organs_that_are_not_known(organ_model: Model, tiny_model: Model) -> None:
    with pytest.raises(HemalumError) as caught:
        organ_model.with_organ("human kidny")
    assert str(caught.value) == "model 'seu_net' does not know organ 'human kidny', did you mean 'human kidney'?"
    with pytest.raises(HemalumError) as caught:
        organ_model.with_organ("xyz")
    assert str(caught.value) == (
        "model 'seu_net' does not know organ 'xyz'; known: human brain, human kidney, human liver"
    )
    with pytest.raises(HemalumError) as caught:
        tiny_model.with_organ("human kidney")
    assert str(caught.value) == "model 'tiny' tells no organs apart: leave the organ out"


def test_a_digest_survives_the_file_and_tells_models_apart(tmp_path: Path, model: Model) -> None:
    save_model(tmp_path / "m.safetensors", model.card, model.tensors)
    assert load_model(tmp_path / "m.safetensors").digest == model.digest
    other = Model(model.card.model_copy(update={"window": 96}), model.tensors)
    assert other.digest != model.digest


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("organ", [None, "human liver"])
def test_exported_files_agree_and_carry_the_card(
    model: Model, images: NDArray[np.uint8], tmp_path: Path, suffix: str, organ: str | None
) -> None:
    if organ is not None and not model.card.organs:
        pytest.skip("tells no organs apart")
    chosen = model.with_organ(organ)
    files = export_model(chosen, tmp_path / f"model{suffix}")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in files)
    second = {"organ": np.array([2, 0])} if model.card.organs and organ is None else {}
    inputs = {"images": images} | second
    if suffix == ".onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(files[0], providers=["CPUExecutionProvider"])
        card = session.get_modelmeta().custom_metadata_map["hemalum_card"]
        assert [one.name for one in session.get_inputs()] == list(inputs)
        maps = session.run(["maps"], inputs)[0]
    else:
        read = shared_core().read_model(files[0])
        card = read.get_rt_info(["hemalum_card"]).value
        assert [one.any_name for one in read.inputs] == list(inputs)
        maps = shared_core().compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(inputs)["maps"]
    assert json.loads(card) == json.loads(chosen.card.model_dump_json())
    engine = make_engine("torch", model, device="cpu", precision="f32")
    if second:
        expected = np.concatenate([engine.maps(images[i : i + 1], int(second["organ"][i])) for i in (0, 1)])
    else:
        expected = engine.maps(images, chosen.organ)
    np.testing.assert_allclose(maps, expected, atol=2e-5)


@pytest.mark.fault
def test_segment_and_export_by_the_command_line(
    organ_model: Model, tmp_path: Path, make_blobs: Callable[..., NDArray[np.uint8]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, image = tmp_path / "m.safetensors", tmp_path / "i.png"
    save_model(path, organ_model.card, organ_model.tensors)
    Image.fromarray(make_blobs(80, 100, 1)).save(image)
    words = ["segment", str(image), "-o", str(tmp_path / "out"), "-m", str(path), "--mpp", "0.5", "--engine", "torch"]
    assert main([*words, "--organ", "human liver"]) == 0
    assert json.loads((tmp_path / "out" / "i.geojson").read_text())["hemalum"]["organ"] == "human liver"
    capsys.readouterr()
    assert main([*words, "--organ", "human livr"]) == 2
    assert capsys.readouterr().err == (
        "error: model 'seu_net' does not know organ 'human livr', did you mean 'human liver'?\n"
    )
    assert main(["export", str(path), str(tmp_path / "model.pb")]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'model.pb'}: no format has this ending; known: .onnx, .xml (ONNX, OpenVINO)\n"
    )
    assert main(["export", str(path), str(tmp_path / "model.xml"), "--organ", "human liver"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "model.xml"), str(tmp_path / "model.bin")]
