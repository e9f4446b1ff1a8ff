from .engine import Engine as Engine
from .engine import make_engine as make_engine
from .engine import require as require
from .onnx import export_onnx as export_onnx
from .openvino import export_openvino as export_openvino
