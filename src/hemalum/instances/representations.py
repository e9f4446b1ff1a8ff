"""What a network predicts so that touching nuclei can be told apart, and the way back to labelled nuclei.

Three ways of the field, side by side:

- `interior_boundary`: three classes, background, interior, boundary (Caicedo et al. 2019)
- `distance`: foreground and the distance to the nucleus's boundary (Naylor et al. 2018)
- `centre_gradient`: foreground and the position relative to its centre (HoVer-Net, Graham et al. 2019)

`combined` holds all channels, so that one network can be compared under each of the three. `foreground` is what a
network for semantic segmentation gives, one probability: its nuclei are told apart by their shape alone.
Channel 0 is the one to overwrite with `separation.TAKEN` where a pixel belongs to a nucleus committed
earlier; the other channels stay as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.instances.depth import measure_depth
from hemalum.instances.separation import TAKEN, flood
from hemalum.models.card import SeparationSettings

Float = NDArray[np.float32]
Labels = NDArray[np.int32]

RIM = 1.5  # px: pixels of a nucleus nearer than this to a pixel outside it are boundary
STEEP = np.float32(4)  # a centre map that falls by 1 / STEEP over three pixels marks a boundary
FAINT = np.float32(0.1)  # no foreground threshold that makes sense is lower
THICK = 16  # px: a nucleus that thick is at the top of the `foreground` representation's peaks


@dataclass(frozen=True, slots=True)
class Head:
    """Channels that share an activation.

    softmax: n channels are probabilities in [0, 1] out of n + 1 logits; the first logit is background and its
    probability is not among the channels. sigmoid: [0, 1]; tanh: [-1, 1]; linear: any; one logit per channel.
    """

    kind: Literal["softmax", "sigmoid", "tanh", "linear"]
    channels: tuple[str, ...]

    @property
    def logits(self) -> int:
        """How many logits the network gives for this head."""
        return len(self.channels) + (self.kind == "softmax")


@dataclass(frozen=True, slots=True)
class Representation:
    """Channels, how labels become them (training targets) and how they become labels.

    `reader` gives foreground and peaks, both (H, W) float32, as `separation.flood` takes them; a peak depends
    on no more than `reach` px around. `probability` gives the foreground alone.
    """

    name: str
    heads: tuple[Head, ...]
    encoder: Callable[[Labels], Float]
    reader: Callable[[Float], tuple[Float, Float]]
    probability: Callable[[Float], Float]
    reach: int = 0

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the maps, in order."""
        return tuple(channel for head in self.heads for channel in head.channels)

    @property
    def logits(self) -> int:
        """How many logits the network gives, over all heads."""
        return sum(head.logits for head in self.heads)

    def encode(self, labels: Labels) -> Float:
        """Give the target maps (C, H, W) float32 of a label map (H, W) integer, 0 = background.

        A nucleus cut by the edge of the map is seen as going on beyond it. Raises HemalumError when not 2-D.
        """
        if labels.ndim != 2:
            raise HemalumError(f"label map must be (H, W), not {labels.shape}")
        if labels.size == 0:
            return np.zeros((len(self.channels), *labels.shape), np.float32)
        return self.encoder(_dense(labels))

    def foreground(self, maps: Float) -> Float:
        """Give the probability of nucleus (H, W) float32 of maps (C, H, W); negative where TAKEN."""
        return self.probability(self._checked(maps))

    def separate(self, maps: Float, settings: SeparationSettings) -> Labels:
        """Give the label map (H, W) int32 of the nuclei in maps (C, H, W) float32; see `separation.flood`.

        Raises HemalumError when the maps do not have this representation's channels.
        """
        foreground, peaks = self.reader(self._checked(maps))
        return flood(foreground, peaks, settings)

    def _checked(self, maps: Float) -> Float:
        if maps.ndim != 3 or maps.shape[0] != len(self.channels):
            raise HemalumError(
                f"{self.name} maps must be ({len(self.channels)}, H, W): {', '.join(self.channels)}; got {maps.shape}"
            )
        return maps


def select(maps: Float, source: Representation, target: Representation) -> Float:
    """Give the channels of `target` (C', H, W) out of `maps` (C, H, W) of `source`.

    Raises HemalumError when `source` lacks a channel.
    """
    missing = [channel for channel in target.channels if channel not in source.channels]
    if missing:
        raise HemalumError(f"{source.name} maps have no channel {missing[0]}, which {target.name} needs")
    return maps[[source.channels.index(channel) for channel in target.channels]]


def _dense(labels: Labels) -> Labels:
    """Ids small enough for tables indexed by id; values stay distinct."""
    if int(labels.max()) <= 4 * labels.size + 1024 and int(labels.min()) >= 0:
        return np.ascontiguousarray(labels, np.int32)
    ids = np.unique(labels[labels > 0])
    dense = np.searchsorted(ids, labels).astype(np.int32) + 1
    return np.where(labels > 0, dense, np.int32(0))


def _encode_foreground(labels: Labels) -> Float:
    foreground: Float = (labels > 0).astype(np.float32)[None]
    return foreground


def _encode_interior_boundary(labels: Labels) -> Float:
    maps = np.zeros((2, *labels.shape), np.float32)
    _interior_boundary(labels, measure_depth(labels), int(labels.max()) + 1, maps[0], maps[1])
    return maps


def _encode_distance(labels: Labels) -> Float:
    maps = np.zeros((2, *labels.shape), np.float32)
    _distance(labels, measure_depth(labels), int(labels.max()) + 1, maps[0], maps[1])
    return maps


def _encode_centre_gradient(labels: Labels) -> Float:
    maps = np.zeros((3, *labels.shape), np.float32)
    maps[0] = labels > 0
    _centre_gradient(labels, int(labels.max()) + 1, maps[1], maps[2])
    return maps


def _encode_combined(labels: Labels) -> Float:
    maps = np.zeros((6, *labels.shape), np.float32)
    distance, ids = measure_depth(labels), int(labels.max()) + 1
    _interior_boundary(labels, distance, ids, maps[0], maps[1])
    _distance(labels, distance, ids, maps[2], maps[3])
    _centre_gradient(labels, ids, maps[4], maps[5])
    return maps


def _first(maps: Float) -> Float:
    foreground: Float = maps[0]
    return foreground


def _sum_of_classes(maps: Float) -> Float:
    foreground: Float = maps[0] + maps[1]
    foreground[maps[0] < 0] = TAKEN
    return foreground


def _third(maps: Float) -> Float:
    foreground: Float = maps[2].copy()
    foreground[maps[0] < 0] = TAKEN
    return foreground


def _read_foreground(maps: Float) -> tuple[Float, Float]:
    """Peaks are the distance to the edge of the foreground, up to THICK px, so that it depends on no more around."""
    inside = (maps[0] >= 0.5) | (maps[0] < 0)  # TAKEN pixels were foreground
    return maps[0], np.minimum(measure_depth(inside.astype(np.int32)) / np.float32(THICK), np.float32(1))


def _read_interior_boundary(maps: Float) -> tuple[Float, Float]:
    return _sum_of_classes(maps), maps[0]


def _read_distance(maps: Float) -> tuple[Float, Float]:
    return maps[0], maps[1]


def _read_centre_gradient(maps: Float) -> tuple[Float, Float]:
    peaks = np.zeros(maps.shape[1:], np.float32)
    foreground, horizontal, vertical = (np.ascontiguousarray(channel, np.float32) for channel in maps)
    _centre_peaks(foreground, horizontal, vertical, peaks)
    return maps[0], peaks


def _read_combined(maps: Float) -> tuple[Float, Float]:
    return _third(maps), maps[3]


@njit(cache=True, nogil=True)
def _largest(labels: Any, distance: Any, ids: int) -> Any:
    largest = np.zeros(ids, np.float32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n and distance[y, x] > largest[n]:
                largest[n] = distance[y, x]
    return largest


@njit(cache=True, nogil=True)
def _interior_boundary(labels: Any, distance: Any, ids: int, interior: Any, boundary: Any) -> None:
    height, width = labels.shape
    largest = _largest(labels, distance, ids)
    beside = np.zeros(labels.shape, np.int32)  # a nucleus beside this background pixel
    for y in range(height):
        for x in range(width):
            n = labels[y, x]
            if n == 0:
                continue
            if distance[y, x] > RIM:
                interior[y, x] = 1.0
                continue
            # a nucleus that is all rim keeps its middle, so that it can still be told from its neighbours
            if distance[y, x] == largest[n]:
                interior[y, x] = 1.0
            else:
                boundary[y, x] = 1.0
            for v in range(max(y - 1, 0), min(y + 2, height)):
                for u in range(max(x - 1, 0), min(x + 2, width)):
                    if labels[v, u] == 0:
                        if beside[v, u] == 0:
                            beside[v, u] = n
                        elif beside[v, u] != n:
                            boundary[v, u] = 1.0


@njit(cache=True, nogil=True)
def _distance(labels: Any, distance: Any, ids: int, foreground: Any, relative: Any) -> None:
    largest = _largest(labels, distance, ids)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n:
                foreground[y, x] = 1.0
                # one nucleus over the whole map has no boundary in sight: infinite distance
                relative[y, x] = distance[y, x] / largest[n] if np.isfinite(largest[n]) else 1.0


@njit(cache=True, nogil=True)
def _centre_gradient(labels: Any, ids: int, horizontal: Any, vertical: Any) -> None:
    height, width = labels.shape
    area = np.zeros(ids, np.float64)
    centre = np.zeros((ids, 2), np.float64)
    for y in range(height):
        for x in range(width):
            n = labels[y, x]
            if n:
                area[n] += 1
                centre[n, 0] += x
                centre[n, 1] += y
    reach = np.zeros((ids, 4), np.float64)  # left, right, up, down of the centre
    for n in range(1, ids):
        if area[n]:
            centre[n] /= area[n]
    for y in range(height):
        for x in range(width):
            n = labels[y, x]
            if n:
                reach[n, 0] = max(reach[n, 0], centre[n, 0] - x)
                reach[n, 1] = max(reach[n, 1], x - centre[n, 0])
                reach[n, 2] = max(reach[n, 2], centre[n, 1] - y)
                reach[n, 3] = max(reach[n, 3], y - centre[n, 1])
    for y in range(height):
        for x in range(width):
            n = labels[y, x]
            if n:
                dx, dy = x - centre[n, 0], y - centre[n, 1]
                side = reach[n, 0] if dx < 0 else reach[n, 1]
                horizontal[y, x] = dx / side if side > 0 else 0.0
                side = reach[n, 2] if dy < 0 else reach[n, 3]
                vertical[y, x] = dy / side if side > 0 else 0.0


@njit(cache=True, nogil=True)
def _centre_peaks(foreground: Any, horizontal: Any, vertical: Any, peaks: Any) -> None:
    """1 at the centre of a nucleus, 0 on its boundary and wherever a map falls instead of rising.

    HoVer-Net takes a wide Sobel filter scaled to each tile's extremes, which depends on the tile; this rule
    looks one pixel around. The fall matters between touching nuclei: there a map turns from 1 to -1, and the
    0 on the way would look like a centre; inside a nucleus there is none. Towards the background maps fade
    with the foreground, so they are divided by it. Pixels fainter than FAINT stay 0.
    """
    height, width = horizontal.shape
    for y in range(height):
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            if foreground[y, x] < FAINT:
                continue
            h, v = horizontal[y, x], vertical[y, x]
            left, right = horizontal[y, max(x - 1, 0)], horizontal[y, min(x + 1, width - 1)]
            fall_h = max(left, h) - min(h, right)
            fall_v = max(vertical[up, x], v) - min(v, vertical[down, x])
            edge = max(abs(h), abs(v), STEEP * max(fall_h, fall_v))
            peaks[y, x] = max(np.float32(0), 1 - edge / foreground[y, x])


REPRESENTATIONS: dict[str, Representation] = {
    representation.name: representation
    for representation in (
        Representation(
            "foreground",
            (Head("sigmoid", ("foreground",)),),
            _encode_foreground,
            _read_foreground,
            _first,
            reach=THICK,
        ),
        Representation(
            "interior_boundary",
            (Head("softmax", ("interior", "boundary")),),
            _encode_interior_boundary,
            _read_interior_boundary,
            _sum_of_classes,
        ),
        Representation(
            "distance", (Head("sigmoid", ("foreground", "distance")),), _encode_distance, _read_distance, _first
        ),
        Representation(
            "centre_gradient",
            (Head("sigmoid", ("foreground",)), Head("tanh", ("horizontal", "vertical"))),
            _encode_centre_gradient,
            _read_centre_gradient,
            _first,
            reach=1,
        ),
        Representation(
            "combined",
            (
                Head("softmax", ("interior", "boundary")),
                Head("sigmoid", ("foreground", "distance")),
                Head("tanh", ("horizontal", "vertical")),
            ),
            _encode_combined,
            _read_combined,
            _third,
        ),
    )
}
