"""OpenVINO on the CPU, in int8 where the model has that form, else in the precision that is faster on the processor.

The converted model and the measured precision are kept (see `cache`), so later runs need no PyTorch. The int8 form
stands in the model file.
"""

import hashlib
import logging
import os
import platform
import queue
import threading
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from hemalum import __version__
from hemalum.cache import cached
from hemalum.errors import HemalumError, one_line
from hemalum.files import atomic_path
from hemalum.models.card import Card
from hemalum.models.file import CARD_KEY, Tensors
from hemalum.models.model import UNKNOWN_ORGAN, Model

log = logging.getLogger(__name__)

_first_use = threading.Lock()
CONVERSION = 1  # raise when `_convert` changes what it writes

# the convolutions that are timed, and how often
WIDTH, SIDE, LAYERS, ROUNDS = 64, 128, 4, 7
CLEARLY = 1.2  # times as long as in f32: what is nearly level stays bf16, whatever else the processor did just then
SMALL_COST = 0.005  # PQ on the worst dataset of the card: int8 is the default up to that
# LLVM's names of the instructions that multiply int8 and add up in int32; without them sums in int16 can overflow
INT8_INSTRUCTIONS = ("amx-int8", "avx512vnni", "avxvnni")
_PRECISION_FILE = "precision.txt"


def shared_core() -> Any:
    """The one `openvino.Core` of the process, which is never given up.

    Raises HemalumError in a process that was forked from one that has it: OpenVINO's threads are not there, and what
    waits for them waits for ever.

    Its CPU plugin replaces the thread's stack for signals, and puts back the one before when it goes. Two that go in
    the order they came leave a stack that is no longer there, and the next signal of a child process, such as one
    that loads training data, ends the program (OpenVINO 2026.4).
    """
    process, core = _only_core()
    if process != os.getpid():
        raise HemalumError(
            "this process was forked from one that had used OpenVINO, whose threads do not come along: start it by "
            "spawn (multiprocessing.get_context('spawn')), or use --engine torch"
        )
    return core


@cache
def _only_core() -> tuple[int, Any]:
    """And the process that made it."""
    return os.getpid(), ov.Core()


class OpenVinoEngine:
    """Runs the model with dynamic height and width, `parallel` windows at once, one thread each."""

    name = "openvino"
    batch = 1

    def __init__(self, model: Model, *, threads: int | None = None, precision: str | None = None) -> None:
        core = shared_core()
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        if precision is None and takes_int8(model):
            precision = "int8"
        elif precision is None:
            with _first_use:
                precision = choose_precision(core)
        if precision == "int8":
            network = _read_int8(core, model)
            settings["INFERENCE_PRECISION_HINT"] = "f32"  # of what is left in floating point
        else:
            key = f"{model.digest[:32]}-{CONVERSION}-{__version__}-ov{ov.__version__.split('-')[0]}"
            folder = cached("openvino", key, lambda folder: _convert(model, folder))
            network = core.read_model(folder / "model.xml")
            if precision is not None:
                settings["INFERENCE_PRECISION_HINT"] = precision
        compiled = core.compile_model(network, "CPU", settings)
        computed_in = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
        self.precision = "int8" if precision == "int8" else "bf16" if computed_in == "bf16" else "f32"
        self.parallel = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.parallel):
            self._requests.put(compiled.create_infer_request())
        # the bindings set themselves up when they first meet an array, and two threads that come there at
        # the same time wait for each other for ever (OpenVINO 2026.4: a static's guard against the GIL)
        self._organs = bool(model.card.organs)
        with _first_use:
            side = model.card.window or model.card.stride
            self.maps(np.zeros((1, side, side, 3), np.uint8))

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        """See `Engine.maps`. Raises HemalumError in a forked process (`shared_core`)."""
        shared_core()
        inputs: dict[int, Any] = {0: np.ascontiguousarray(images)}
        if self._organs:
            inputs[1] = np.full(len(images), UNKNOWN_ORGAN if organ is None else organ, np.int64)
        request = self._requests.get()
        try:
            request.infer(inputs, share_inputs=True)
            return np.array(request.get_output_tensor().data, np.float32)
        finally:
            self._requests.put(request)


def convert(card: Card, tensors: Tensors) -> ov.Model:
    """Convert a model: `images` (N, H, W, 3) uint8 → `maps`; N, H and W are free, or H and W the card's window.

    Where the card has organs and names none, `organ` (N,) int64 is a second input: the index in the card's organs,
    -1 for unknown.
    """
    import torch

    from hemalum.models.map_model import build_map_model

    side = card.window or 4 * card.stride
    free = card.window or -1
    example: dict[str, Any] = {"images_NHWC": torch.zeros(1, side, side, 3, dtype=torch.uint8)}
    shapes: dict[int, list[int]] = {0: [-1, free, free, 3]}
    names = ["images"]
    if card.organs and card.organ is None:
        example["organ_N"] = torch.zeros(1, dtype=torch.int64)
        shapes[1] = [-1]
        names.append("organ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own insides
        converted = ov.convert_model(build_map_model(card, tensors), example_input=example)
    converted.reshape(shapes)
    for index, name in enumerate(names):
        converted.input(index).get_tensor().set_names({name})
    converted.output(0).get_tensor().set_names({"maps"})
    return converted


def export_openvino(card: Card, tensors: Tensors, path: Path | str) -> None:
    """Write the model as OpenVINO IR, OUT.xml and OUT.bin beside it, with the card as `hemalum_card` in rt_info.

    Inputs and output are those of `convert`. Raises HemalumError when the files cannot be written.
    """
    path = Path(path)
    converted = convert(card, tensors)
    converted.set_rt_info(card.model_dump_json(), [CARD_KEY])
    # weights and description share a stem; the weights come first: a description without them is no model
    with atomic_path(path) as description, atomic_path(path.with_suffix(".bin")):
        ov.save_model(converted, description, compress_to_fp16=False)


def _convert(model: Model, folder: Path) -> None:
    log.info("converting model '%s' for OpenVINO, once", model.card.name)
    ov.save_model(convert(model.with_organ(None).card, model.tensors), folder / "model.xml", compress_to_fp16=False)


def takes_int8(model: Model) -> bool:
    """Whether int8 is the default: the model has that form at a small cost, and the processor can."""
    stated = model.card.int8
    return model.int8 is not None and stated is not None and stated.cost <= SMALL_COST and has_int8()


@cache
def has_int8() -> bool:
    """Whether this processor has instructions for int8 whose sums do not overflow."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    return any(features.get(name) for name in INT8_INSTRUCTIONS)


def _read_int8(core: Any, model: Model) -> Any:
    """The int8 form of a model. Raises HemalumError where it has none, or one that is damaged."""
    if model.int8 is None:
        raise HemalumError(
            f"model '{model.card.name}' has no int8 form: make one (hemalum quantize), or take another precision"
        )
    if not has_int8():
        log.warning("this processor lacks instructions for int8 (VNNI, AMX): maps may be wrong where sums overflow")
    where = model.path or f"model '{model.card.name}'"
    try:
        network = core.read_model(model.int8.description.tobytes(), model.int8.weights.tobytes())
        names = [port.any_name for port in (*network.inputs, *network.outputs)]
    except RuntimeError as error:
        raise HemalumError(f"{where}: its int8 form cannot be read ({one_line(error)}): quantize it again") from error
    expected = ["images", *(["organ"] if model.card.organs else []), "maps"]
    if names != expected:
        raise HemalumError(f"{where}: its int8 form has {', '.join(names)} in the place of {', '.join(expected)}")
    return network


def choose_precision(core: Any) -> str | None:
    """The faster of bf16 and f32 on this processor; None, OpenVINO's own choice, where it has no bf16.

    OpenVINO takes bf16 wherever the processor has instructions for it. An Intel processor with AVX512_BF16 and
    without AMX takes longer so than in float32 (`benchmarks/throughput.py --precision`). So it is measured, once for
    each processor, and kept, so that one always computes alike where the cache can be written.
    """
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    name = f"{core.get_property('CPU', 'FULL_DEVICE_NAME')} {_instructions()} {ov.__version__}"
    key = hashlib.sha256(name.encode()).hexdigest()[:32]

    def measure(folder: Path) -> None:
        seconds = time_precisions(core)
        faster = "f32" if seconds["bf16"] > CLEARLY * seconds["f32"] else "bf16"
        (folder / _PRECISION_FILE).write_text(f"{faster}\n")

    return (cached("precision", key, measure) / _PRECISION_FILE).read_text().strip()


def time_precisions(core: Any) -> dict[str, float]:
    """Seconds for a few convolutions by precision, the least of some rounds in turns."""
    rng = np.random.default_rng(0)
    first = last = ops.parameter([1, WIDTH, SIDE, SIDE], np.float32)
    for _ in range(LAYERS):
        weights = ops.constant(rng.normal(0, 0.05, (WIDTH, WIDTH, 3, 3)).astype(np.float32))
        last = ops.relu(ops.convolution(last, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
    model = ov.Model([last], [first])
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


def _instructions() -> str:
    """What tells processors of one name apart: a virtual machine may hide some of their instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.partition(":")[2] for line in lines if line.startswith("flags")), platform.machine())
