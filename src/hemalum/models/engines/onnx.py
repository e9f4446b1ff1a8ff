"""ONNX: export of a model, and ONNX Runtime as an engine (extra `onnx`)."""

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum import __version__
from hemalum.cache import cached
from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.models.card import Card
from hemalum.models.file import CARD_KEY, Tensors
from hemalum.models.model import UNKNOWN_ORGAN, Model

log = logging.getLogger(__name__)

OPSET = 18


class OnnxEngine:
    """Runs the model through ONNX Runtime on the CPU, in f32."""

    name = "onnx"
    precision = "f32"
    parallel = batch = 1

    def __init__(self, model: Model, *, threads: int | None = None, precision: str | None = None) -> None:
        import onnxruntime

        if precision not in (None, "f32"):
            raise HemalumError(f"engine 'onnx' computes in f32, not {precision}")
        folder = cached(
            "onnx",
            f"{model.digest[:32]}-{OPSET}-{__version__}",
            lambda folder: export_onnx(model.with_organ(None).card, model.tensors, folder / "model.onnx"),
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        self._session = onnxruntime.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self._organs = bool(model.card.organs)

    def maps(self, images: NDArray[np.uint8], organ: int | None = None) -> NDArray[np.float32]:
        """See `Engine.maps`."""
        inputs: dict[str, Any] = {"images": np.ascontiguousarray(images)}
        if self._organs:
            inputs["organ"] = np.full(len(images), UNKNOWN_ORGAN if organ is None else organ, np.int64)
        result: NDArray[np.float32] = self._session.run(None, inputs)[0]
        return result


def export_onnx(card: Card, tensors: Tensors, path: Path | str) -> None:
    """Write the model as ONNX: `images` (N, H, W, 3) uint8 → `maps` (N, C, H·upsampling, W·upsampling) float32.

    N, H and W are free; H and W must be multiples of the card's stride, or are its window. Where the card has organs
    and names none, `organ` (N,) int64 is a second input: the index in the card's organs, -1 for unknown. The card is
    in the file's metadata.
    Raises HemalumError when the extra is not installed or the file cannot be written.
    """
    for module in ("onnx", "onnxscript"):
        if importlib.util.find_spec(module) is None:
            raise HemalumError(f"export to ONNX needs {module}: pip install 'hemalum[onnx]'")
    import onnx
    import torch

    from hemalum.models.map_model import build_map_model

    batch, rows, columns = (torch.export.Dim(name) for name in ("batch", "rows", "columns"))
    stride, window = card.stride, card.window
    high, wide = (window, window) if window else (4 * stride, 6 * stride)
    example: tuple[torch.Tensor, ...] = (torch.zeros(2, high, wide, 3, dtype=torch.uint8),)
    shapes: tuple[dict[int, Any], ...] = ({0: batch} | ({} if window else {1: stride * rows, 2: stride * columns}),)
    names = ["images"]
    if card.organs and card.organ is None:
        example, shapes = (*example, torch.zeros(2, dtype=torch.int64)), (*shapes, {0: batch})
        names.append("organ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own insides
        program = torch.onnx.export(
            build_map_model(card, tensors),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=["maps"],
            dynamic_shapes=shapes,
            verbose=False,
        )
    if program is None:
        raise HemalumError(f"model '{card.name}' could not be exported to ONNX")
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {CARD_KEY: card.model_dump_json()})
    with atomic_path(path) as temporary:
        onnx.save_model(proto, temporary)
