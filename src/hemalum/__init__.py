"""hemalum: nucleus segmentation for histopathology.

The public API is what `__all__` lists. Each name is imported when it is first used, so that `import hemalum` and
`hemalum --help` load neither torch nor NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hemalum.errors import HemalumError

if TYPE_CHECKING:
    from hemalum.data.check import check_dataset
    from hemalum.data.dataset import Dataset
    from hemalum.data.importing import import_dataset
    from hemalum.inference.model import load_model
    from hemalum.inference.segment import segment
    from hemalum.instances.nuclei import Nuclei
    from hemalum.studies.compare import compare
    from hemalum.studies.evaluate import evaluate
    from hemalum.training.train import train

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "HemalumError",
    "Nuclei",
    "__version__",
    "check_dataset",
    "compare",
    "evaluate",
    "import_dataset",
    "load_model",
    "segment",
    "train",
]

_WHERE = {
    "Dataset": "hemalum.data.dataset",
    "Nuclei": "hemalum.instances.nuclei",
    "check_dataset": "hemalum.data.check",
    "compare": "hemalum.studies.compare",
    "evaluate": "hemalum.studies.evaluate",
    "import_dataset": "hemalum.data.importing",
    "load_model": "hemalum.inference.model",
    "segment": "hemalum.inference.segment",
    "train": "hemalum.training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'hemalum' has no attribute '{name}'")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
