"""What runs a network: PyTorch, OpenVINO or ONNX."""

import sys as _sys

import lazy_loader as _lazy

# OpenVINO and NNCF would send statistics of their use, and end where the user has no home to note consent in
_sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
