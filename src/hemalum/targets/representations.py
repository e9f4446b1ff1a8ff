"""What a network predicts so that touching nuclei can be told apart, and the way back to labeled nuclei.

Three ways of the field, side by side:

- `interior_boundary`: three classes, background, interior, boundary (Caicedo et al. 2019)
- `distance`: foreground and the distance to the nucleus's boundary (Naylor et al. 2018)
- `center_gradient`: foreground and the position relative to its center (HoVer-Net, Graham et al. 2019)

`combined` holds all channels, so that one network can be compared under each of the three. What networks for semantic
segmentation give: `foreground`, one probability, whose nuclei are told apart by their shape alone; `foreground_edge`,
with the edges of nuclei besides; `semantic`, the probability of each class of nucleus, named by a dataset or a card.
`typed` is `distance` with the classes of `semantic` beside it: nuclei are told apart as well as without classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemalum.errors import HemalumError, nearest
from hemalum.nuclei.peaks import measure_depth, smooth
from hemalum.nuclei.refining import refine
from hemalum.nuclei.separation import flood
from hemalum.nuclei.settings import SeparationSettings
from hemalum.targets.maps import (
    fill_center_gradient,
    fill_center_peaks,
    fill_distance,
    fill_interior_boundary,
)

Float = NDArray[np.float32]
Labels = NDArray[np.int32]

THICK = 16  # px: a nucleus that deep is at the top of the `foreground` representation's peaks
THIN = 12  # px: the same for `foreground_edge`, whose edges lower the peaks


@dataclass(frozen=True, slots=True)
class Head:
    """Channels that share an activation.

    softmax: n channels are probabilities in [0, 1] out of n + 1 logits; the first logit is background and its
    probability is not among the channels. sigmoid: [0, 1]; tanh: [-1, 1]; one logit per channel.
    `partial`: targets are NaN where nobody has said what is true, and a loss leaves those pixels out.
    """

    kind: Literal["softmax", "sigmoid", "tanh"]
    channels: tuple[str, ...]
    partial: bool = False

    @property
    def logits(self) -> int:
        """How many logits the network gives for this head."""
        return len(self.channels) + (self.kind == "softmax")


@dataclass(frozen=True, slots=True)
class Representation:
    """Channels, how labels become them (training targets) and how they become labels.

    `reader` gives foreground and peaks, both (H, W) float32, as `separation.flood` takes them; a peak depends
    on no more than `reach` px around. `probability` gives the foreground alone. `classes` names the classes of
    nuclei whose probabilities the last maps are, none where the maps know no classes. `smoothing` is the blur of the
    peaks in rounds of `peaks.smooth`; `reach` counts it.
    """

    name: str
    heads: tuple[Head, ...]
    encoder: Callable[[Labels], Float]
    reader: Callable[[Float], tuple[Float, Float]]
    probability: Callable[[Float], Float]
    reach: int = 0
    classes: tuple[str, ...] = ()
    smoothing: int = 0

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the maps, in order."""
        return tuple(channel for head in self.heads for channel in head.channels)

    @property
    def logits(self) -> int:
        """How many logits the network gives, over all heads."""
        return sum(head.logits for head in self.heads)

    def encode(self, labels: Labels, classes: Labels | None = None) -> Float:
        """Give the target maps (C, H, W) float32 of a label map (H, W) integer, 0 = background.

        `classes` (max id + 1,) is the class of each nucleus by its id, which maps of classes need; 0 is none of
        them. A nucleus cut by the edge of the map is seen as going on beyond it. Where the head of the classes is
        `partial` its maps are NaN at nuclei of class 0, and everywhere if no nucleus has a class, or `classes` is
        None. Raises HemalumError when not 2-D or without classes.
        """
        if labels.ndim != 2:
            raise HemalumError(f"label map must be (H, W), not {labels.shape}")
        if labels.size == 0:
            return np.zeros((len(self.channels), *labels.shape), np.float32)
        if not self.classes:
            return self.encoder(_dense(labels))
        class_maps = self._encode_classes(labels, classes)
        if len(self.channels) == len(self.classes):
            return class_maps
        return np.concatenate([self.encoder(_dense(labels)), class_maps])

    def _encode_classes(self, labels: Labels, classes: Labels | None) -> Float:
        unknown = self.unknown(labels, classes)
        if classes is None and not unknown.all():
            raise HemalumError(f"representation '{self.name}' needs the class of each nucleus")
        pixel_classes = np.zeros_like(labels) if classes is None else classes[labels]
        shares: Float = (pixel_classes == np.arange(1, len(self.classes) + 1)[:, None, None]).astype(np.float32)
        shares[:, unknown] = np.nan
        return shares

    def unknown(self, labels: Labels, classes: Labels | None) -> NDArray[np.bool_]:
        """Pixels (H, W) bool that say nothing about classes: no loss and no score by class counts them.

        None but where the head of the classes is `partial`; see `encode`.
        """
        if not self.heads[-1].partial:
            return np.zeros(labels.shape, np.bool_)
        # an image without any class has nothing but background to say about classes: were it counted, a network
        # would learn that such images hold nothing else
        if classes is None or not classes.any():
            return np.ones(labels.shape, np.bool_)
        nameless: NDArray[np.bool_] = (labels > 0) & (classes[labels] == 0)
        return nameless

    def foreground(self, maps: Float) -> Float:
        """Give the probability of nucleus (H, W) float32 of maps (C, H, W)."""
        return self.probability(self._checked(maps))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that nuclei are told apart by: none where all are of one."""
        return self.classes if len(self.classes) > 1 else ()

    def read(self, maps: Float) -> tuple[Float, ...]:
        """Give foreground, peaks and, where nuclei are told apart by class, that of each pixel, all (H, W) float32.

        The class is the most probable one of nuclei, a whole number from 1, also where there is none; of equally
        probable ones the first.
        """
        if not self.class_names:
            return self._read_peaks(maps)
        return *self._read_peaks(maps), self._classify_pixels(maps).astype(np.float32)

    def classify(self, maps: Float, threshold: float) -> Labels:
        """Give the class (H, W) int32 of each pixel of maps (C, H, W), 0 where foreground is below `threshold`."""
        foreground = self.foreground(maps)
        return np.where(foreground >= np.float32(threshold), self._classify_pixels(maps), 0).astype(np.int32)

    def separate(self, maps: Float, settings: SeparationSettings) -> Labels:
        """Give the label map (H, W) int32 of the nuclei in maps (C, H, W) float32; see `flood` and `refine`.

        Raises HemalumError when the maps do not have this representation's channels.
        """
        foreground, peaks = self.smoothed(settings)._read_peaks(self._checked(maps))
        return refine(flood(foreground, peaks, settings), settings)

    def smoothed(self, settings: SeparationSettings) -> "Representation":
        """Give the representation whose peaks are blurred as the settings have it, and reach as much further."""
        rounds = settings.smoothing
        return replace(self, smoothing=rounds, reach=self.reach - self.smoothing + rounds)

    def _read_peaks(self, maps: Float) -> tuple[Float, Float]:
        foreground, peaks = self.reader(maps)
        return foreground, smooth(peaks, self.smoothing) if self.smoothing else peaks

    def _classify_pixels(self, maps: Float) -> NDArray[np.int64]:
        pixel_classes: NDArray[np.int64] = maps[len(self.channels) - len(self.classes) :].argmax(axis=0) + 1
        return pixel_classes

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
    return (labels > 0).astype(np.float32)[None]


def _encode_foreground_edge(labels: Labels) -> Float:
    """The edge is what a 3 × 3 dilation of a nucleus has beyond its erosion: one pixel to each side."""
    edge = ndimage.maximum_filter(labels, 3, mode="nearest") != ndimage.minimum_filter(labels, 3, mode="nearest")
    return np.stack([labels > 0, edge]).astype(np.float32)


def _encode_interior_boundary(labels: Labels) -> Float:
    maps = np.zeros((2, *labels.shape), np.float32)
    fill_interior_boundary(labels, measure_depth(labels), int(labels.max()) + 1, maps)
    return maps


def _encode_distance(labels: Labels) -> Float:
    maps = np.zeros((2, *labels.shape), np.float32)
    fill_distance(labels, measure_depth(labels), int(labels.max()) + 1, maps)
    return maps


def _encode_center_gradient(labels: Labels) -> Float:
    maps = np.zeros((3, *labels.shape), np.float32)
    maps[0] = labels > 0
    fill_center_gradient(labels, int(labels.max()) + 1, maps[1:])
    return maps


def _encode_combined(labels: Labels) -> Float:
    maps = np.zeros((6, *labels.shape), np.float32)
    depth, ids = measure_depth(labels), int(labels.max()) + 1
    fill_interior_boundary(labels, depth, ids, maps[:2])
    fill_distance(labels, depth, ids, maps[2:4])
    fill_center_gradient(labels, ids, maps[4:])
    return maps


def _first(maps: Float) -> Float:
    foreground: Float = maps[0]
    return foreground


def _third(maps: Float) -> Float:
    foreground: Float = maps[2]
    return foreground


def _read_foreground(maps: Float) -> tuple[Float, Float]:
    """Peaks are the distance to the edge of the foreground, up to THICK px, so that it depends on no more around."""
    return maps[0], _relative_depth(maps[0], THICK)


def _read_foreground_edge(maps: Float) -> tuple[Float, Float]:
    """Peaks are the distance to the edge of the foreground, up to THIN px, where there is no edge of a nucleus.

    Cutting the shape where an edge is likely did worse than the shape alone on networks as they are: faint edges
    count for nothing, and stray ones cut nuclei in two. As a factor each counts as far as it is sure.
    """
    return maps[0], _relative_depth(maps[0], THIN) * (1 - maps[1])


def _relative_depth(foreground: Float, deepest: int) -> Float:
    """Distance to the edge of the foreground as a share of `deepest` px, at most 1."""
    inside = (foreground >= 0.5).astype(np.int32)
    depth: Float = np.minimum(measure_depth(inside) / np.float32(deepest), np.float32(1))
    return depth


def _any_class(maps: Float) -> Float:
    foreground: Float = maps.sum(axis=0)
    return foreground


def _read_semantic(maps: Float) -> tuple[Float, Float]:
    return _read_foreground(_any_class(maps)[None])


def _read_interior_boundary(maps: Float) -> tuple[Float, Float]:
    return _any_class(maps), maps[0]


def _read_distance(maps: Float) -> tuple[Float, Float]:
    return maps[0], maps[1]


def _read_center_gradient(maps: Float) -> tuple[Float, Float]:
    peaks = np.zeros(maps.shape[1:], np.float32)
    foreground, horizontal, vertical = (np.ascontiguousarray(channel, np.float32) for channel in maps)
    fill_center_peaks(foreground, horizontal, vertical, peaks)
    return maps[0], peaks


def _read_combined(maps: Float) -> tuple[Float, Float]:
    return _third(maps), maps[3]


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
            "foreground_edge",
            (Head("sigmoid", ("foreground", "edge")),),
            _encode_foreground_edge,
            _read_foreground_edge,
            _first,
            reach=THIN,
        ),
        Representation(
            "interior_boundary",
            (Head("softmax", ("interior", "boundary")),),
            _encode_interior_boundary,
            _read_interior_boundary,
            _any_class,
        ),
        Representation(
            "distance", (Head("sigmoid", ("foreground", "distance")),), _encode_distance, _read_distance, _first
        ),
        Representation(
            "center_gradient",
            (Head("sigmoid", ("foreground",)), Head("tanh", ("horizontal", "vertical"))),
            _encode_center_gradient,
            _read_center_gradient,
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
SEMANTIC, TYPED = "semantic", "typed"
BY_CLASS = (SEMANTIC, TYPED)  # made for the classes of a dataset or a card


def find_representation(name: str, classes: Sequence[str] = ()) -> Representation:
    """Give a representation by name; those of BY_CLASS are made for `classes`, in the order of their ids from 1.

    Raises HemalumError for an unknown name (the nearest is named), for one of BY_CLASS without classes, and for
    `typed` where a class is called like one of its other maps.
    """
    if name in BY_CLASS and not classes:
        raise HemalumError(f"representation '{name}' needs classes, and there are none")
    class_names = tuple(classes)
    if name == SEMANTIC:
        head = Head("softmax", class_names)
        return Representation(
            SEMANTIC, (head,), _encode_foreground, _read_semantic, _any_class, reach=THICK, classes=class_names
        )
    if name == TYPED:
        shape = REPRESENTATIONS["distance"]
        same = [kind for kind in class_names if kind in shape.channels]
        if same:
            raise HemalumError(
                f"representation '{TYPED}' has a map '{same[0]}': give the class '{same[0]}' another name"
            )
        heads = (*shape.heads, Head("softmax", class_names, partial=True))
        return Representation(TYPED, heads, _encode_distance, _read_distance, _first, classes=class_names)
    if name not in REPRESENTATIONS:
        raise HemalumError(f"unknown representation '{name}'{nearest(name, [*REPRESENTATIONS, *BY_CLASS])}")
    return REPRESENTATIONS[name]
