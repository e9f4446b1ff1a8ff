"""Which precision a processor is given by default."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from hemalum.inference import precision
from hemalum.inference.engine_openvino import shared_core
from hemalum.inference.precision import choose_precision, measure


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
    monkeypatch.setattr(precision, "measure", lambda core: results.pop(0))
    return results


@pytest.mark.parametrize(("seconds", "faster"), [((0.1, 0.2), "bf16"), ((0.2, 0.1), "f32")])
def test_the_faster_one_is_taken_and_measured_once(
    seconds: tuple[float, float], faster: str, measured: list[dict[str, float]]
) -> None:
    measured.append(dict(zip(("bf16", "f32"), seconds, strict=True)))
    processor = Processor("FP32", "BF16")
    assert [choose_precision(processor) for _ in range(3)] == [faster] * 3


def test_each_processor_has_its_own(measured: list[dict[str, float]]) -> None:
    measured += [{"bf16": 1.0, "f32": 2.0}, {"bf16": 2.0, "f32": 1.0}]
    assert choose_precision(Processor("BF16", name="one")) == "bf16"
    assert choose_precision(Processor("BF16", name="other")) == "f32"
    assert choose_precision(Processor("BF16", name="one")) == "bf16"


def test_a_processor_without_bf16_is_not_measured(measured: list[dict[str, float]]) -> None:
    assert choose_precision(Processor("FP32", "FP16")) is None


def test_both_are_measured() -> None:
    seconds = measure(shared_core())
    assert seconds.keys() == {"bf16", "f32"}
    assert all(0 < value < 60 for value in seconds.values())


def test_the_network_measured_gives_the_same_in_both() -> None:
    """bf16 has 8 bits: what is compared is the same work."""
    core, model = shared_core(), precision._convolutions()
    x = np.random.default_rng(0).random((1, precision.WIDTH, precision.SIDE, precision.SIDE), np.float32)
    maps = [
        next(iter(core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": one})(x).values()))
        for one in ("f32", "bf16")
    ]
    assert isinstance(model, ov.Model)
    assert np.abs(maps[0]).max() > 0.1
    assert np.abs(maps[0] - maps[1]).max() < 0.05 * np.abs(maps[0]).max()
