"""Engines: what runs a model. One small protocol, three ways."""

import importlib.util
import logging
import shutil
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hemalum.cpus import limited_cpus
from hemalum.errors import HemalumError, nearest
from hemalum.models.model import Model
from hemalum.settings import as_whole_number

log = logging.getLogger(__name__)

ENGINES = ("torch", "openvino", "onnx")
PRECISIONS = ("f32", "bf16", "int8")


class Engine(Protocol):
    """A model ready to run. `maps` may be called from `parallel` threads at once."""

    name: str  # one of ENGINES
    precision: str  # what it computes in, one of PRECISIONS; the maps are float32 in any case
    parallel: int  # how many calls it works on at once
    batch: int  # how many windows it takes in one call

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        """Maps (N, C, H·upsampling, W·upsampling) float32 of images (N, H, W, 3) uint8; H, W multiples of stride.

        `organ` is the images' index in the card's organs, -1 where it is not known; None for a model without any.
        """
        ...


def make_engine(
    name: str,
    model: Model,
    *,
    device: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
) -> Engine:
    """Make the engine called `name`: "torch", "openvino", "onnx", or "auto".

    "auto" is PyTorch where there is a CUDA device, else OpenVINO, else PyTorch on the CPU. `device` is "auto",
    "cpu", or what PyTorch calls a device; OpenVINO and ONNX run on the CPU. `threads` limits CPU threads;
    without it they are those that affinity, control groups and SLURM leave (`hemalum.cpus`).
    `precision` is "f32", "bf16", or "int8" for OpenVINO and a model that has this form (`hemalum.quantize`). By
    default OpenVINO takes int8 where the model has it at a small cost (`openvino.SMALL_COST`) and the processor
    instructions for it, else what is faster on this processor; PyTorch takes bf16 on CUDA, and all else f32.

    Raises HemalumError for an unknown name, device or precision, or an engine that is not installed.
    """
    if not isinstance(device, str):
        raise HemalumError(f"device is {device!r}: want the name of one, as 'cpu' or 'cuda'")
    if precision is not None and precision not in PRECISIONS:
        raise HemalumError(f"unknown precision '{precision}'{nearest(precision, PRECISIONS)}")
    threads = as_whole_number(threads, "threads")
    if threads is not None and threads < 1:
        raise HemalumError(f"threads must be at least 1, not {threads}")
    threads = threads or limited_cpus()
    if name == "auto":
        name = _choose(device)
    if name != "torch" and device not in ("auto", "cpu"):
        raise HemalumError(f"engine '{name}' runs on the CPU, not on '{device}': use --engine torch")
    match name:
        case "torch":
            from hemalum.models.engines.pytorch import TorchEngine

            return TorchEngine(model, device=device, threads=threads, precision=precision)
        case "openvino":
            require("openvino", "openvino")
            from hemalum.models.engines.openvino import OpenVinoEngine

            return OpenVinoEngine(model, threads=threads, precision=precision)
        case "onnx":
            require("onnxruntime", "onnx")
            from hemalum.models.engines.onnx import OnnxEngine

            return OnnxEngine(model, threads=threads, precision=precision)
    raise HemalumError(f"unknown engine '{name}'{nearest(name, [*ENGINES, 'auto'])}")


def _choose(device: str) -> str:
    if device not in ("auto", "cpu"):
        return "torch"
    # looking for the driver first spares the import of torch, which takes seconds
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    if device == "auto" and driver:
        import torch

        if torch.cuda.is_available():
            return "torch"
    if importlib.util.find_spec("openvino") is None:
        log.warning("openvino is not installed: PyTorch runs the model, several times slower")
        return "torch"
    return "openvino"


def require(module: str, extra: str) -> None:
    """Raise HemalumError where the module of an engine is not installed."""
    if importlib.util.find_spec(module) is None:
        raise HemalumError(f"engine '{extra}' needs {module}: pip install 'hemalum[{extra}]'")
