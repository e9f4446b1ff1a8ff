"""Models in the formats of other programs: the verb `export`."""

from pathlib import Path

from hemalum.errors import HemalumError
from hemalum.inference.engine import require
from hemalum.inference.model import Model
from hemalum.names import nearest

EXPORTS = (".onnx", ".xml")


def export_model(model: Model, path: Path | str) -> list[Path]:
    """Write a model as ONNX (.onnx) or OpenVINO IR (.xml, with its weights in .bin); give the files.

    uint8 pixels in, maps out, the card inside. A model with an organ (`Model.with_organ`) has it built in; one that
    tells organs apart and has none takes the index as a second input.
    Raises HemalumError for another suffix, a missing extra, or when a file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        from hemalum.inference.engine_onnx import export_onnx

        export_onnx(model.card, model.tensors, path)
        return [path]
    if suffix == ".xml":
        require("openvino", "openvino")
        from hemalum.inference.engine_openvino import export_openvino

        export_openvino(model.card, model.tensors, path)
        return [path, path.with_suffix(".bin")]
    raise HemalumError(f"{path}: no format has this ending{nearest(suffix, EXPORTS)} (ONNX, OpenVINO)")
