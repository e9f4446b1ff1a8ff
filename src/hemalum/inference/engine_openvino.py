"""OpenVINO on the CPU. The converted model is kept (see `cache`), so later runs need no PyTorch."""

import logging
import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from hemalum import __version__
from hemalum.cache import cached
from hemalum.inference.model import Model

log = logging.getLogger(__name__)

_first_use = threading.Lock()
CONVERSION = 1  # raise when `_convert` changes what it writes


class OpenVinoEngine:
    """Runs the model with dynamic height and width, `parallel` windows at once, one thread each."""

    name = "openvino"

    def __init__(self, model: Model, *, threads: int | None = None, precision: str | None = None) -> None:
        key = f"{model.digest[:32]}-{CONVERSION}-{__version__}-ov{ov.__version__.split('-')[0]}"
        folder = cached("openvino", key, lambda folder: _convert(model, folder))
        core = ov.Core()
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        if precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = precision
        compiled = core.compile_model(core.read_model(folder / "model.xml"), "CPU", settings)
        kind = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
        self.precision = "bf16" if kind == "bf16" else "f32"
        self.parallel = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.parallel):
            self._requests.put(compiled.create_infer_request())
        # the bindings set themselves up when they first meet an array, and two threads that come there at
        # the same time wait for each other for ever (OpenVINO 2026.4: a static's guard against the GIL)
        with _first_use:
            side = model.card.stride
            self.maps(np.zeros((1, side, side, 3), np.uint8))

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine.maps`."""
        request = self._requests.get()
        try:
            request.infer({0: np.ascontiguousarray(images)}, share_inputs=True)
            return np.array(request.get_output_tensor().data, np.float32)
        finally:
            self._requests.put(request)


def _convert(model: Model, folder: Path) -> None:
    import torch

    from hemalum.networks.map_model import build

    log.info("converting model '%s' for OpenVINO, once", model.card.name)
    side = 4 * model.card.stride
    example = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    converted = ov.convert_model(build(model.card, model.tensors), example_input=example)
    converted.reshape([-1, -1, -1, 3])
    ov.save_model(converted, folder / "model.xml", compress_to_fp16=False)
