"""A model in memory: its card, its tensors and where they came from."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hemalum import models
from hemalum.errors import HemalumError
from hemalum.models.card import Card
from hemalum.models.file import Tensors, load_model_file
from hemalum.names import nearest


@dataclass(frozen=True)
class Model:
    """Card, tensors by name, and the file they were read from (None for a model made in memory)."""

    card: Card
    tensors: Tensors
    path: Path | None = None

    @cached_property
    def digest(self) -> str:
        """sha256 over all that decides the maps: network, scale, representation and weights."""
        card = self.card.model_dump_json(include={"network", "representation", "enlarge", "mean", "std"})
        digest = hashlib.sha256(card.encode())
        for name in sorted(self.tensors):
            value = np.ascontiguousarray(self.tensors[name])
            digest.update(f"{name}{value.dtype}{value.shape}".encode())
            digest.update(value.view(np.uint8).data if value.ndim else value.tobytes())
        return digest.hexdigest()


def load_model(model: "str | Path | Model | None" = None) -> Model:
    """Load a model file by its path, a shipped model by its name, or the default one.

    Raises HemalumError when there is no such model or its file cannot be read.
    """
    if isinstance(model, Model):
        return model
    shipped = shipped_models()
    if model is None:
        if not shipped:
            raise HemalumError("no model is shipped with this installation: give a model file with --model")
        path = shipped[default_model(list(shipped))]
    elif str(model) in shipped:
        path = shipped[str(model)]
    else:
        path = Path(model)
        if not path.suffix and not path.exists():
            raise HemalumError(f"no shipped model and no file is called '{model}'{nearest(str(model), shipped)}")
    card, tensors = load_model_file(path)
    return Model(card, tensors, path)


def shipped_models() -> dict[str, Path]:
    """Model files inside the package, by name."""
    folder = Path(models.__file__).parent / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def default_model(names: list[str]) -> str:
    """The shipped model that is taken when none is named: `accurate` where there is one, else the first."""
    return "accurate" if "accurate" in names else names[0]
