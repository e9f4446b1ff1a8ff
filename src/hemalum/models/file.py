"""The model file: one safetensors file with the card in its header. Nothing is unpickled.

Beside the weights it may hold the int8 form of the network, as two tensors of bytes under reserved names.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hemalum.errors import HemalumError, one_line
from hemalum.files import atomic_path
from hemalum.models.card import FORMAT, Card

Tensors = dict[str, NDArray[np.generic]]
CARD_KEY = "hemalum_card"  # also in exported models
MAX_BYTES = 4 * 2**30  # of a file, which is read into memory: ten times the largest network there is
MAX_CARD = 32_000_000  # characters; with the hashes of a million images a card has 8 million
INT8_TENSORS = ("int8.xml", "int8.bin")


@dataclass(frozen=True, slots=True, eq=False)
class Int8Network:
    """A network in int8, as OpenVINO IR: its description (XML) and its weights, bytes (N,) uint8 both."""

    description: NDArray[np.uint8]
    weights: NDArray[np.uint8]

    def tensors(self) -> Tensors:
        """As they stand in a model file."""
        return dict(zip(INT8_TENSORS, (self.description, self.weights), strict=True))


def save_model(path: Path | str, card: Card, tensors: Tensors, int8: Int8Network | None = None) -> None:
    """Write card and tensors to `path` atomically, and the int8 form, without which the card tells of none."""
    if int8 is None:
        card = card.model_copy(update={"int8": None})
    else:
        tensors = tensors | int8.tensors()
    with atomic_path(path) as temporary:
        contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        save_file(contiguous, temporary, metadata={CARD_KEY: card.model_dump_json()})


def load_card(path: Path | str) -> Card:
    """Read only the card of a model file.

    Raises HemalumError when the file is missing, truncated, foreign or of another format version.
    """
    return _read(Path(path), weights=False)[0]


def load_model_file(path: Path | str) -> tuple[Card, Tensors]:
    """Read a model file: its card and its weights.

    Raises HemalumError as `load_card` does.
    """
    return _read(Path(path))


def load_int8(path: Path | str) -> tuple[Card, Int8Network | None]:
    """Read the card of a model file, and the int8 form of its network where the card tells of one.

    Raises HemalumError as `load_card` does, and where the file does not hold what its card tells of.
    """
    path = Path(path)
    card, tensors = _read(path, weights=False, int8=True)
    if card.int8 is None:
        return card, None
    parts = [tensors.get(name) for name in INT8_TENSORS]
    if not all(part is not None and part.dtype == np.uint8 and part.ndim == 1 for part in parts):
        raise HemalumError(f"{path}: its card tells of an int8 form that it does not hold: quantize the model again")
    return card, Int8Network(*(np.asarray(part, np.uint8) for part in parts))


def _read(path: Path, *, weights: bool = True, int8: bool = False) -> tuple[Card, Tensors]:
    if not path.is_file():
        raise HemalumError(f"no such model file: {path}")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise HemalumError(f"{path} has {size / 2**30:.1f} GiB: no model of hemalum has more than {MAX_BYTES >> 30}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = [name for name in file.keys() if (int8 if name in INT8_TENSORS else weights)]  # noqa: SIM118
            values = {name: file.get_tensor(name) for name in names if CARD_KEY in metadata}
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: of a type that NumPy does not have
        raise HemalumError(
            f"{path} is not a readable model file (corrupt or truncated): {one_line(error)}"
        ) from error
    if CARD_KEY not in metadata:
        raise HemalumError(f"{path} is a safetensors file without a hemalum card: not a hemalum model")
    card = _card(path, metadata[CARD_KEY])
    for name, value in values.items():
        if name not in INT8_TENSORS:
            _check_weights(path, name, value)
    return card, values


def _check_weights(path: Path, name: str, value: NDArray[np.generic]) -> None:
    """Raise HemalumError for weights that no network can compute with."""
    if value.dtype.kind not in "fiub":
        raise HemalumError(f"{path}: its weights '{name}' are {value.dtype}, not numbers that a network takes")
    if value.dtype.kind != "f":
        return
    if not np.isfinite(value).all():
        broken = int(np.count_nonzero(~np.isfinite(value)))
        raise HemalumError(
            f"{path}: {broken:,} of {value.size:,} weights in '{name}' are not finite (NaN or infinite): the model "
            "is damaged, or its training went wrong; take another one, or train again"
        )
    if name.endswith("running_var") and (np.asarray(value, np.float32) < 0).any():
        raise HemalumError(f"{path}: '{name}' has negative variances: the model is damaged; take another one")


def _card(path: Path, text: str) -> Card:
    if len(text) > MAX_CARD:
        raise HemalumError(f"{path}: its card has {len(text):,} characters: no card has more than {MAX_CARD:,}")
    try:
        return Card.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        if field == "format":
            raise HemalumError(
                f"{path} has model format {first['input']}, this hemalum reads format {FORMAT}: "
                "use the hemalum version that wrote it, or train again"
            ) from error
        where = f" at '{field}'" if field else ""
        raise HemalumError(f"{path}: its card is not valid{where}: {message}") from error
