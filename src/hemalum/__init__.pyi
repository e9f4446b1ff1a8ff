from .data.check import check_dataset as check_dataset
from .data.dataset import Dataset as Dataset
from .data.importing import import_dataset as import_dataset
from .errors import HemalumError as HemalumError
from .experiments.calibrate import calibrate as calibrate
from .experiments.compare import compare as compare
from .experiments.evaluate import evaluate as evaluate
from .experiments.quantize import quantize as quantize
from .experiments.refine import refine as refine
from .experiments.reproduce import reproduce as reproduce
from .inference.batch import segment_paths as segment_paths
from .inference.segment import segment as segment
from .inference.slide import segment_slide as segment_slide
from .models.model import load_model as load_model
from .nuclei.nuclei import Nuclei as Nuclei
from .nuclei.store.opening import open_store as open_store
from .nuclei.store.store import NucleiStore as NucleiStore
from .slides.slide import open_slide as open_slide
from .training.enhance import enhance as enhance
from .training.train import train as train

__version__: str

__all__ = [
    "Dataset",
    "HemalumError",
    "Nuclei",
    "NucleiStore",
    "calibrate",
    "check_dataset",
    "compare",
    "enhance",
    "evaluate",
    "import_dataset",
    "load_model",
    "open_slide",
    "open_store",
    "quantize",
    "refine",
    "reproduce",
    "segment",
    "segment_paths",
    "segment_slide",
    "train",
]
