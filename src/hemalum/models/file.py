"""The model file: one safetensors file with the card in its header. Nothing is unpickled."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.models.card import FORMAT, Card

Tensors = dict[str, NDArray[np.generic]]
CARD_KEY = "hemalum_card"  # also in exported models


def save_model(path: Path | str, card: Card, tensors: Tensors) -> None:
    """Write card and tensors to `path` atomically."""
    with atomic_path(path) as temporary:
        contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        save_file(contiguous, temporary, metadata={CARD_KEY: card.model_dump_json()})


def load_card(path: Path | str) -> Card:
    """Read only the card of a model file.

    Raises HemalumError when the file is missing, truncated, foreign or of another format version.
    """
    return _read(Path(path), tensors=False)[0]


def load_model_file(path: Path | str) -> tuple[Card, Tensors]:
    """Read a model file: its card and its tensors.

    Raises HemalumError as `load_card` does.
    """
    return _read(Path(path), tensors=True)


def _read(path: Path, *, tensors: bool) -> tuple[Card, Tensors]:
    if not path.is_file():
        raise HemalumError(f"no such model file: {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = file.keys()  # not a dict: safe_open has no iteration
            values = {name: file.get_tensor(name) for name in names} if tensors else {}
    except (SafetensorError, OSError) as error:
        raise HemalumError(f"{path} is not a readable model file (corrupt or truncated): {error}") from error
    if CARD_KEY not in metadata:
        raise HemalumError(f"{path} is a safetensors file without a hemalum card: not a hemalum model")
    return _card(path, metadata[CARD_KEY]), values


def _card(path: Path, text: str) -> Card:
    try:
        return Card.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if field == "format":
            raise HemalumError(
                f"{path} has model format {first['input']}, this hemalum reads format {FORMAT}: "
                "use the hemalum version that wrote it, or train again"
            ) from error
        raise HemalumError(f"{path}: its card is not valid at '{field}': {first['msg']}") from error
