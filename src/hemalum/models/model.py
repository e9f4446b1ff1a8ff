"""A model in memory: its card, its tensors and where they came from; loaded, and exported to other programs."""

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hemalum.errors import HemalumError, nearest
from hemalum.models.card import Card
from hemalum.models.file import Int8Network, Tensors, load_int8, load_model_file
from hemalum.nuclei.settings import SeparationSettings
from hemalum.settings import as_number

UNKNOWN_ORGAN = -1  # the index of an image whose organ nobody knows, for a network that tells organs apart
EXPORTS = (".onnx", ".xml")


@dataclass(frozen=True)
class Model:
    """Card, weights by name, their file (None: made in memory), and the network in int8 where the file holds that.

    `stated` is the separation that the file states, where another threshold has been set.
    """

    card: Card
    tensors: Tensors
    path: Path | None = None
    int8: Int8Network | None = None
    stated: SeparationSettings | None = None

    @cached_property
    def digest(self) -> str:
        """sha256 over all that decides the maps: network, scale, representation, weights, and the int8 form."""
        decisive = {"network", "representation", "output_upsampling", "mean", "std"}
        # fields that came later count where they say something, so that what was converted before stays good
        for name in ("channels", "window", "organs", "classes", "sam"):
            if getattr(self.card, name) != Card.model_fields[name].get_default(call_default_factory=True):
                decisive.add(name)
        digest = hashlib.sha256(self.card.model_dump_json(include=decisive).encode())
        tensors = self.tensors if self.int8 is None else self.tensors | self.int8.tensors()
        for name in sorted(tensors):
            value = np.ascontiguousarray(tensors[name])
            digest.update(f"{name}{value.dtype}{value.shape}".encode())
            digest.update(value.view(np.uint8).data if value.ndim else value.tobytes())
        return digest.hexdigest()

    @property
    def organ(self) -> int | None:
        """The organ's index for an engine, -1 where it is not known; None: the model tells none apart."""
        card = self.card
        if not card.organs:
            return None
        return UNKNOWN_ORGAN if card.organ is None else card.organs.index(card.organ)

    def with_organ(self, name: str | None) -> "Model":
        """The same model for images of one organ, by its name in the card; None: not known.

        Upper and lower case are one. Raises HemalumError for an organ that the model does not know (the nearest is
        named), or when it knows none.
        """
        organ = None
        if name is not None:
            if not self.card.organs:
                raise HemalumError(f"model '{self.card.name}' tells no organs apart: leave the organ out")
            organ = {known.casefold(): known for known in self.card.organs}.get(name.strip().casefold())
            if organ is None:
                line = f"model '{self.card.name}' does not know organ '{name}'{nearest(name, self.card.organs)}"
                raise HemalumError(line)
        changed = replace(self, card=self.card.model_copy(update={"organ": organ}))
        return changed.with_recall(self.card.recall_target)  # an organ may have a threshold of its own

    def with_threshold(self, threshold: float) -> "Model":
        """The same model with another threshold on the probability of nucleus; no nucleus above it is dropped."""
        stated = self.stated or self.card.separation
        kept = min(stated.min_probability, threshold)
        changed = stated.model_copy(update={"foreground": threshold, "min_probability": kept})
        return replace(self, card=self.card.model_copy(update={"separation": changed}), stated=stated)

    def with_recall(self, target: float | None) -> "Model":
        """The same model with the threshold that keeps a recall for images of its organ; None: as it is.

        Raises HemalumError where its card has no threshold for that.
        """
        target = as_number(target, "recall")
        if target is None:
            return self
        if isinstance(target, str):
            raise HemalumError(f"recall is '{target}': want a number")
        known = {calibration.target: calibration for calibration in self.card.recall}
        if target not in known:
            has = ", ".join(f"{one:g}" for one in known) or "none"
            raise HemalumError(
                f"model '{self.card.name}' has no threshold for a recall of {target:g} (it has {has}): "
                "hemalum calibrate sets one"
            )
        moved = self.with_threshold(known[target].of(self.card.organ).threshold)
        return replace(moved, card=moved.card.model_copy(update={"recall_target": target}))


def load_model(model: "str | Path | Model | None" = None) -> Model:
    """Load a model file by its path, a shipped model by its name, or `accurate`, else the first, where none is named.

    Raises HemalumError when there is no such model or its file cannot be read.
    """
    if isinstance(model, Model):
        return model
    shipped = shipped_models()
    if model is None:
        if not shipped:
            raise HemalumError("no model is shipped with this installation: give a model file with --model")
        path = shipped.get("accurate") or next(iter(shipped.values()))
    elif str(model) in shipped:
        path = shipped[str(model)]
    else:
        if not isinstance(model, str | os.PathLike):
            raise HemalumError(f"model is the name of a shipped model or a file, not {type(model).__name__}")
        path = Path(model)
        if not path.suffix and not path.exists():
            raise HemalumError(f"no shipped model and no file is called '{model}'{nearest(str(model), shipped)}")
    card, tensors = load_model_file(path)
    return Model(card, tensors, path, load_int8(path)[1])


def shipped_models() -> dict[str, Path]:
    """Model files inside the package, by name."""
    folder = Path(__file__).parent / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def export_model(model: Model, path: Path | str) -> list[Path]:
    """Write a model as ONNX (.onnx) or OpenVINO IR (.xml, with its weights in .bin); give the files.

    uint8 pixels in, maps out, the card inside. A model with an organ (`Model.with_organ`) has it built in; one that
    tells organs apart and has none takes the index as a second input.
    Raises HemalumError for another suffix, a missing extra, or when a file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    card = model.card.model_copy(update={"int8": None})  # what is exported is not in int8
    if suffix == ".onnx":
        from hemalum.models.engines.onnx import export_onnx

        export_onnx(card, model.tensors, path)
        return [path]
    if suffix == ".xml":
        from hemalum.models.engines.engine import require

        require("openvino", "openvino")
        from hemalum.models.engines.openvino import export_openvino

        export_openvino(card, model.tensors, path)
        return [path, path.with_suffix(".bin")]
    raise HemalumError(f"{path}: no format has this ending{nearest(suffix, EXPORTS)} (ONNX, OpenVINO)")
