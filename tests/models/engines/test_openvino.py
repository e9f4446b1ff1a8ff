"""Which precision a processor is given by default."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hemalum.errors import HemalumError
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


@pytest.mark.fault
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Python 3.12 on, for forking beside threads
def test_a_forked_process_says_what_to_do_instead_of_waiting_for_ever() -> None:
    shared_core()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        try:
            shared_core()
            answer = "went on"
        except HemalumError as error:
            answer = str(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 1000).decode() == (
        "this process was forked from one that had used OpenVINO, whose threads do not come along: start it by spawn "
        "(multiprocessing.get_context('spawn')), or use `engine` torch"
    )
    shared_core()
