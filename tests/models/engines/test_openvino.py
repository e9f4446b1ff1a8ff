"""Which precision a processor is given by default."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hemalum.models.engines import openvino as engine_openvino
from hemalum.models.engines.engine import make_engine
from hemalum.models.engines.openvino import choose_precision, shared_core, time_precisions
from hemalum.models.model import Model


class Processor:
    """What `choose_precision` asks an OpenVINO core."""

    def __init__(self, *capabilities: str, name: str = "one") -> None:
        self.properties = {"OPTIMIZATION_CAPABILITIES": capabilities, "FULL_DEVICE_NAME": name}

    def get_property(self, device: str, name: str) -> object:
        assert device == "CPU"
        return self.properties[name]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, float]]:
    """What the next measurements give, one after the other."""
    monkeypatch.setenv("HEMALUM_CACHE", str(tmp_path / "cache"))
    results: list[dict[str, float]] = []
    monkeypatch.setattr(engine_openvino, "time_precisions", lambda core: results.pop(0))
    return results


@pytest.mark.parametrize(("seconds", "faster"), [((0.1, 0.2), "bf16"), ((0.2, 0.1), "f32"), ((0.11, 0.1), "bf16")])
def test_what_is_clearly_faster_is_taken_and_measured_once(
    seconds: tuple[float, float], faster: str, measured: list[dict[str, float]]
) -> None:
    measured.append(dict(zip(("bf16", "f32"), seconds, strict=True)))
    processor = Processor("FP32", "BF16")
    assert [choose_precision(processor) for _ in range(3)] == [faster] * 3


def test_each_processor_has_a_precision_by_itself(measured: list[dict[str, float]]) -> None:
    measured += [{"bf16": 1.0, "f32": 2.0}, {"bf16": 2.0, "f32": 1.0}]
    assert choose_precision(Processor("BF16", name="one")) == "bf16"
    assert choose_precision(Processor("BF16", name="other")) == "f32"
    assert choose_precision(Processor("BF16", name="one")) == "bf16"


def test_a_processor_without_bf16_is_not_measured(measured: list[dict[str, float]]) -> None:
    assert choose_precision(Processor("FP32", "FP16")) is None


def test_both_precisions_can_be_measured() -> None:
    assert time_precisions(shared_core()).keys() == {"bf16", "f32"}


def test_an_engine_takes_the_faster_one_unless_one_is_set(
    make_tiny_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_tiny_model()
    if "BF16" not in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16")
    for faster, other in (("f32", "bf16"), ("bf16", "f32")):
        monkeypatch.setattr(engine_openvino, "choose_precision", lambda core, faster=faster: faster)
        assert make_engine("openvino", model).precision == faster
        assert make_engine("openvino", model, precision=other).precision == other
