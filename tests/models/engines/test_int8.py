"""The int8 form of a model: where it is kept, when it is taken, what is refused. None of it needs NNCF.

The network of another model in floating point stands for the int8 form here: so its maps tell which of both has run.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from hemalum.errors import HemalumError
from hemalum.models.card import Int8, Int8Set
from hemalum.models.engines import openvino as engine_openvino
from hemalum.models.engines.engine import make_engine
from hemalum.models.engines.openvino import convert, has_int8
from hemalum.models.file import CARD_KEY, Int8Network, load_card, load_int8, load_model_file, save_model
from hemalum.models.model import Model, export_model, load_model

# one image of one set, and what it loses
CHEAP, COSTLY = 0.005, 0.006


def stated(cost: float) -> Int8:
    sets = [
        Int8Set(name=name, split_hash="0", windows=3, images=2, pq=0.5, pq_int8=round(0.5 - lost, 4))
        for name, lost in (("one", -0.1), ("two", cost))
    ]
    return Int8(made_by="a test", precision="f32", sets=sets)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, make_tiny_model: Callable[..., Model]) -> Int8Network:
    """The network of a model whose maps are the opposite."""
    path = tmp_path_factory.mktemp("int8") / "int8.xml"
    model = make_tiny_model()
    other = {name: -value if name.startswith("head") else value for name, value in model.tensors.items()}
    ov.save_model(convert(model.card, other), path)
    return Int8Network(np.fromfile(path, np.uint8), np.fromfile(path.with_suffix(".bin"), np.uint8))


@pytest.fixture
def make_int8(tiny_model: Model, network: Int8Network) -> Callable[[float], Model]:
    """The tiny model with an int8 form that loses as much PQ as stated."""

    def make(cost: float) -> Model:
        return replace(tiny_model, card=tiny_model.card.model_copy(update={"int8": stated(cost)}), int8=network)

    return make


@pytest.fixture
def image(make_blobs: Callable[..., NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return make_blobs(32, 48, 1)[None]


def test_the_cost_is_that_of_the_worst_set() -> None:
    assert stated(0.003).cost == 0.003
    assert stated(-0.2).cost == -0.1  # better on both


def test_classes_count_as_well() -> None:
    one = stated(0.003).sets[0]
    for mpq, cost in ((0.41, 0.003), (0.392, 0.008)):
        classes = one.model_copy(update={"mpq": 0.4, "mpq_int8": mpq})
        assert stated(0.003).model_copy(update={"sets": [classes, stated(0.003).sets[1]]}).cost == cost


@pytest.mark.parametrize(
    ("cost", "able", "precision"), [(CHEAP, True, "int8"), (COSTLY, True, "f32"), (CHEAP, False, "f32")]
)
def test_it_is_the_default_where_it_is_cheap_and_the_processor_able(
    cost: float,
    able: bool,
    precision: str,
    make_int8: Callable[[float], Model],
    monkeypatch: pytest.MonkeyPatch,
    image: NDArray[np.uint8],
) -> None:
    monkeypatch.setattr(engine_openvino, "has_int8", lambda: able)
    monkeypatch.setattr(engine_openvino, "choose_precision", lambda core: "f32")
    model = make_int8(cost)
    engine = make_engine("openvino", model)
    assert engine.precision == precision
    maps = make_engine("openvino", model, precision="f32").maps(image)
    opposite = 1 - maps
    assert np.abs(maps - opposite).max() > 0.1
    assert np.abs(engine.maps(image) - (opposite if precision == "int8" else maps)).max() < 1e-3


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_another_precision_turns_it_off(make_int8: Callable[[float], Model], precision: str) -> None:
    if precision.upper() not in engine_openvino.shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        precision = "f32"  # this processor has no bf16
    assert make_engine("openvino", make_int8(CHEAP), precision=precision).precision == precision


def test_a_processor_without_instructions_is_warned_of(
    make_int8: Callable[[float], Model], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_openvino, "has_int8", lambda: False)
    assert make_engine("openvino", make_int8(COSTLY), precision="int8").precision == "int8"
    assert "this processor lacks instructions for int8" in caplog.text


def test_instructions_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from llvmlite import binding

    for features, able in (({"avx2": True, "avxvnni": False}, False), ({"avx512vnni": True}, True)):
        has_int8.cache_clear()
        monkeypatch.setattr(binding, "get_host_cpu_features", lambda features=features: features)
        assert has_int8() is able
    has_int8.cache_clear()


@pytest.mark.fault
def test_a_model_without_it(tiny_model: Model) -> None:
    with pytest.raises(HemalumError, match=r"^model 'tiny' has no int8 form: make one \(hemalum quantize\)"):
        make_engine("openvino", tiny_model, precision="int8")


@pytest.mark.fault
@pytest.mark.parametrize("name", ["torch", "onnx"])
def test_other_engines_refuse_it(make_int8: Callable[[float], Model], name: str) -> None:
    model = make_int8(CHEAP)
    with pytest.raises(HemalumError, match=f"^engine '{name}' computes in f32"):
        make_engine(name, model, device="cpu", precision="int8")
    assert make_engine(name, model, device="cpu").precision == "f32"


def test_the_file_holds_it(make_int8: Callable[[float], Model], tmp_path: Path) -> None:
    model, path = make_int8(CHEAP), tmp_path / "m.safetensors"
    save_model(path, model.card, model.tensors, model.int8)
    loaded = load_model(path)
    assert loaded.card == model.card
    assert loaded.int8 is not None
    assert model.int8 is not None
    assert np.array_equal(loaded.int8.description, model.int8.description)
    assert np.array_equal(loaded.int8.weights, model.int8.weights)
    assert loaded.tensors.keys() == model.tensors.keys() == load_model_file(path)[1].keys()
    assert loaded.digest == model.digest


def test_weights_alone_tell_of_none(make_int8: Callable[[float], Model], tmp_path: Path) -> None:
    """What is trained from such a model, or exported, is not in int8."""
    model, path = make_int8(CHEAP), tmp_path / "m.safetensors"
    save_model(path, model.card, model.tensors)
    assert load_card(path).int8 is None
    assert load_int8(path)[1] is None
    export_model(model, tmp_path / "m.xml")
    exported = ov.Core().read_model(tmp_path / "m.xml")
    assert '"int8":null' in str(exported.get_rt_info([CARD_KEY]).value)


def test_another_form_is_another_entry(make_int8: Callable[[float], Model], tiny_model: Model) -> None:
    model = make_int8(CHEAP)
    assert model.int8 is not None
    other = replace(model, int8=replace(model.int8, weights=model.int8.weights[::-1]))
    assert len({tiny_model.digest, model.digest, other.digest}) == 3


@pytest.mark.fault
def test_a_file_that_lacks_what_its_card_tells_of(make_int8: Callable[[float], Model], tmp_path: Path) -> None:
    model, path = make_int8(CHEAP), tmp_path / "m.safetensors"
    save_model(path, model.card, model.tensors, model.int8)
    tensors = load_file(path)
    for broken in (
        {name: value for name, value in tensors.items() if name != "int8.bin"},
        tensors | {"int8.xml": np.zeros(4, np.float32)},
    ):
        save_file(broken, path, metadata={CARD_KEY: model.card.model_dump_json()})
        with pytest.raises(HemalumError, match=r"m.safetensors: its card tells of an int8 form that it does not"):
            load_model(path)


@pytest.mark.fault
@pytest.mark.parametrize("part", ["description", "weights"])
@pytest.mark.parametrize("keep", [0, 0.3, 0.9])
def test_a_damaged_form(make_int8: Callable[[float], Model], part: str, keep: float) -> None:
    model = make_int8(CHEAP)
    assert model.int8 is not None
    whole_part = getattr(model.int8, part)
    damaged = replace(model.int8, **{part: whole_part[: int(keep * len(whole_part))]})
    with pytest.raises(HemalumError, match=r"^model 'tiny': its int8 form cannot be read .*: quantize it again$"):
        make_engine("openvino", replace(model, int8=damaged, path=None), precision="int8")


@pytest.mark.fault
def test_a_form_of_another_network(make_int8: Callable[[float], Model], tmp_path: Path) -> None:
    model = make_int8(CHEAP)
    foreign = convert(model.card, model.tensors)
    foreign.input(0).get_tensor().set_names({"x"})
    ov.save_model(foreign, tmp_path / "x.xml")
    network = Int8Network(np.fromfile(tmp_path / "x.xml", np.uint8), np.fromfile(tmp_path / "x.bin", np.uint8))
    with pytest.raises(HemalumError, match="its int8 form has x, maps in the place of images, maps"):
        make_engine("openvino", replace(model, int8=network), precision="int8")
