from .card import Card as Card
from .card import Channels as Channels
from .card import NetworkSpec as NetworkSpec
from .card import SamEncoding as SamEncoding
from .card import Training as Training
from .card import TrainingSet as TrainingSet
from .file import CARD_KEY as CARD_KEY
from .file import Tensors as Tensors
from .file import load_card as load_card
from .file import load_model_file as load_model_file
from .file import save_model as save_model
from .input import input_channels as input_channels
from .input import to_input as to_input
from .map_model import activate as activate
from .map_model import build_map_model as build_map_model
from .model import UNKNOWN_ORGAN as UNKNOWN_ORGAN
from .model import Model as Model
from .model import default_model as default_model
from .model import export_model as export_model
from .model import load_model as load_model
from .model import shipped_models as shipped_models
from .network import build_network as build_network
from .network import measure_halo as measure_halo
from .network import takes as takes
from .sam import SamEncoder as SamEncoder
from .sam import check_sam as check_sam
from .sam import load_sam as load_sam
from .windows import Span as Span
from .windows import cut_windows as cut_windows
from .windows import missing as missing
from .windows import stitch as stitch
from .windows import window_halo as window_halo

__all__ = [
    "CARD_KEY",
    "UNKNOWN_ORGAN",
    "Card",
    "Channels",
    "Model",
    "NetworkSpec",
    "SamEncoder",
    "SamEncoding",
    "Span",
    "Tensors",
    "Training",
    "TrainingSet",
    "activate",
    "build_map_model",
    "build_network",
    "check_sam",
    "cut_windows",
    "default_model",
    "export_model",
    "input_channels",
    "load_card",
    "load_model",
    "load_model_file",
    "load_sam",
    "measure_halo",
    "missing",
    "save_model",
    "shipped_models",
    "stitch",
    "takes",
    "to_input",
    "window_halo",
]
