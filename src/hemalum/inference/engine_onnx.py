"""ONNX: export of a model, and ONNX Runtime as an engine (extra `onnx`)."""

import importlib.util
import logging
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemalum import __version__
from hemalum.cache import cached
from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.inference.model import Model
from hemalum.models.card import Card
from hemalum.models.file import Tensors

log = logging.getLogger(__name__)

OPSET = 18


class OnnxEngine:
    """Runs the model through ONNX Runtime on the CPU, in f32."""

    name = "onnx"
    precision = "f32"
    parallel = 1

    def __init__(self, model: Model, *, threads: int | None = None, precision: str | None = None) -> None:
        import onnxruntime

        if precision not in (None, "f32"):
            raise HemalumError(f"engine 'onnx' computes in f32, not {precision}")
        folder = cached(
            "onnx",
            f"{model.digest[:32]}-{OPSET}-{__version__}",
            lambda folder: export_onnx(model.card, model.tensors, folder / "model.onnx"),
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        self._session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine.maps`."""
        result: NDArray[np.float32] = self._session.run(None, {"images": np.ascontiguousarray(images)})[0]
        return result


def export_onnx(card: Card, tensors: Tensors, path: Path | str) -> None:
    """Write the model as ONNX: `images` (N, H, W, 3) uint8 → `maps` (N, C, H·enlarge, W·enlarge) float32.

    N, H and W are free; H and W must be multiples of the card's stride. The card is in the file's metadata.
    Raises HemalumError when the extra is not installed or the file cannot be written.
    """
    for module in ("onnx", "onnxscript"):
        if importlib.util.find_spec(module) is None:
            raise HemalumError(f"export to ONNX needs {module}: pip install 'hemalum[onnx]'")
    import onnx
    import torch

    from hemalum.networks.map_model import build

    batch, rows, columns = (torch.export.Dim(name) for name in ("batch", "rows", "columns"))
    stride = card.stride
    example = torch.zeros(2, 4 * stride, 6 * stride, 3, dtype=torch.uint8)
    shapes = {0: batch, 1: stride * rows, 2: stride * columns}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own insides
        program = torch.onnx.export(
            build(card, tensors),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["maps"],
            dynamic_shapes=(shapes,),
            verbose=False,
        )
    if program is None:
        raise HemalumError(f"model '{card.name}' could not be exported to ONNX")
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {"hemalum_card": card.model_dump_json()})
    with atomic_path(path) as temporary:
        onnx.save_model(proto, temporary)
