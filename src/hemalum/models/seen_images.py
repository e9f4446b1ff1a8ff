"""Which images a model has seen, told by their pixels: hashes in its card against those of the images at hand."""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from hemalum.models.card import Training

# of each image the first bytes of its `pixel_hash`: among a hundred thousand images that a model knows, as many
# others have one in common by chance once in 28,000 times
BYTES = 6
PACKED = r"^(?:[A-Za-z0-9+/]{8})*$"  # base64 of that, eight letters an image
RECORDED = Path(__file__).with_name("recorded_images.json")  # of the shipped models' sets, whose cards have no hashes

Use = Literal["trained", "validated"]


class SetKey(NamedTuple):
    """What tells a set and its split: two whose images have the same names may have one hash, so its name as well."""

    name: str
    split_hash: str


class Packed(NamedTuple):
    """The images of a set that were learned from, and those that chose the weights, as `pack_images` gives them."""

    trained: str
    validated: str


def pack_images(pixel_hashes: Iterable[str]) -> str:
    """Hashes of images (`pixel_hash`, hexadecimal) as a card holds them, sorted: eight letters an image."""
    short = sorted({bytes.fromhex(one[: 2 * BYTES]) for one in pixel_hashes})
    return base64.b64encode(b"".join(short)).decode()


def join_packed(one: str, other: str) -> str:
    """The images of both, as `pack_images` gives them."""
    return pack_images(short.hex() for short in unpack(one) | unpack(other))


def unpack(packed: str) -> frozenset[bytes]:
    """The first `BYTES` of each hash."""
    joined = base64.b64decode(packed)
    return frozenset(joined[start : start + BYTES] for start in range(0, len(joined), BYTES))


@dataclass(frozen=True)
class SeenImages:
    """What the weights of a model have learned from, and what they were chosen by, earlier trainings included.

    `unrecorded` names the sets whose images the card does not tell, so that a hash that is not found says nothing.
    """

    trained: frozenset[bytes]
    validated: frozenset[bytes]
    unrecorded: tuple[str, ...]

    @classmethod
    def of(cls, training: "Training | None", at_hand: Mapping[SetKey, Packed] | None = None) -> "SeenImages":
        """What a card's training tells; of none, nothing is known.

        `at_hand` are sets whose images are known from elsewhere, for cards that were written before they had hashes.
        """
        if training is None:
            return cls(frozenset(), frozenset(), ("its training",))
        known = _recorded() | dict(at_hand or {})
        trained: set[bytes] = set()
        validated: set[bytes] = set()
        unrecorded = []
        for used in training.seen:
            packed = None if used.images is None else Packed(used.images, used.validated or "")
            packed = packed or known.get(SetKey(used.name, used.split_hash))
            if packed is None:
                unrecorded.append(used.name)
                continue
            trained |= unpack(packed.trained)
            validated |= unpack(packed.validated)
        return cls(frozenset(trained), frozenset(validated), tuple(dict.fromkeys(unrecorded)))

    def use_of(self, pixel_hash: str) -> Use | None:
        """What an image was used for; None where it is not among those that are known."""
        short = bytes.fromhex(pixel_hash[: 2 * BYTES])
        return "trained" if short in self.trained else "validated" if short in self.validated else None


@cache
def _recorded() -> dict[SetKey, Packed]:
    rows = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {SetKey(row["name"], row["split_hash"]): Packed(row["trained"], row["validated"]) for row in rows}
