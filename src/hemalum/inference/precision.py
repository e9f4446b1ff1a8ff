"""The precision in which a processor runs convolutions fastest with OpenVINO.

OpenVINO takes bf16 wherever the processor has instructions for it. An Intel processor with AVX512_BF16 and without
AMX takes longer so than in float32 (`benchmarks/throughput.py --precision`). So it is measured, once for each.
"""

import hashlib
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from hemalum.cache import cached

WIDTH, SIDE, LAYERS, ROUNDS = 64, 128, 4, 7
CLEARLY = 1.2  # times as long as in f32: what is nearly level stays bf16, whatever else the processor did just then
_FILE = "precision.txt"


def choose_precision(core: Any) -> str | None:
    """The faster of bf16 and f32 on this processor; None, OpenVINO's own choice, where it has no bf16.

    What was measured is kept, so that a processor always computes alike where the cache can be written.
    """
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    name = f"{core.get_property('CPU', 'FULL_DEVICE_NAME')} {_instructions()} {ov.__version__}"
    key = hashlib.sha256(name.encode()).hexdigest()[:32]
    folder = cached("precision", key, lambda folder: _write(folder / _FILE, measure(core)))
    return (folder / _FILE).read_text().strip()


def measure(core: Any) -> dict[str, float]:
    """Seconds for a few convolutions by precision, the least of some rounds in turns."""
    model = _convolutions()
    compiled = {
        precision: core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        for precision in ("bf16", "f32")
    }
    x = np.ones((1, WIDTH, SIDE, SIDE), np.float32)
    seconds = dict.fromkeys(compiled, float("inf"))
    for _ in range(ROUNDS):
        for precision, network in compiled.items():
            start = time.perf_counter()
            network(x)
            seconds[precision] = min(seconds[precision], time.perf_counter() - start)
    return seconds


def _convolutions() -> ov.Model:
    rng = np.random.default_rng(0)
    first = x = ops.parameter([1, WIDTH, SIDE, SIDE], np.float32)
    for _ in range(LAYERS):
        weights = ops.constant(rng.normal(0, 0.05, (WIDTH, WIDTH, 3, 3)).astype(np.float32))
        x = ops.relu(ops.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
    return ov.Model([x], [first])


def _write(path: Path, seconds: dict[str, float]) -> None:
    path.write_text("f32\n" if seconds["bf16"] > CLEARLY * seconds["f32"] else "bf16\n")


def _instructions() -> str:
    """What tells processors of one name apart: a virtual machine may hide some of their instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.partition(":")[2] for line in lines if line.startswith("flags")), platform.machine())
