"""The model's outline at a point: the nucleus that it separates there, else what stands out from around it."""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hemalum.errors import HemalumError
from hemalum.inference import segment_with_maps
from hemalum.models.engines.engine import Engine
from hemalum.models.model import Model
from hemalum.review.nucleus import Ring, largest_piece, trace_piece
from hemalum.slides import Slide

KEPT_BYTES = 256 * 2**20  # of maps that may be wanted again
# chosen on the test images of tnbc and four of consep (benchmarks/proposals.py, docs/decisions.md)
SHARE = 0.2  # of the probability at a point, that its surroundings must have
REACH = 0.65  # usual diameters around a point
LEAST = 0.05  # probability at a point: where there is less, the model sees nothing


@dataclass(frozen=True, slots=True, eq=False)
class ModelMaps:
    """What the model says of an item: `probability` of nucleus (H, W) float32, and the nuclei that it separates as a
    label map (H, W) int32. `threshold` is that of its separation, `diameter` that of a usual nucleus in px."""

    probability: NDArray[np.float32]
    labels: NDArray[np.int32]
    threshold: float
    diameter: float

    @property
    def size(self) -> int:
        """Bytes."""
        return self.probability.nbytes + self.labels.nbytes

    def propose(self, x: float, y: float) -> Ring | None:
        """An outline (M, 2) float32 at a point, px, last point = first; None where there is none.

        Raises HemalumError for a point outside.
        """
        height, width = self.labels.shape
        if not (0 <= x <= width and 0 <= y <= height):
            raise HemalumError(f"({x:g}, {y:g}) lies outside of the image ({width} x {height} px)")
        row, column = min(int(y), height - 1), min(int(x), width - 1)
        reach = int(np.ceil(REACH * self.diameter))
        top, left = max(row - reach, 0), max(column - reach, 0)
        window = (left, top, min(column + reach + 1, width), min(row + reach + 1, height))
        area = (slice(window[1], window[3]), slice(window[0], window[2]))
        labels = self.labels[area]
        id = int(self.labels[row, column])
        if id:
            inside = self.labels == id
            rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            around = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
            piece, _ = largest_piece(inside[around[1] : around[3], around[0] : around[2]])
            return trace_piece(piece, around)
        mask = grow(self.probability[area], labels > 0, (row - top, column - left), self.threshold, self.diameter)
        return None if mask is None else trace_piece(mask, window)


def grow(
    probability: NDArray[np.float32], taken: NDArray[np.bool_], at: tuple[int, int], threshold: float, diameter: float
) -> NDArray[np.bool_] | None:
    """The piece (h, w) around a point, row and column, that is likelier nucleus than what is around it.

    It holds the pixels, not `taken`, within `REACH` diameters that have `SHARE` of the probability near the point,
    never more than the threshold, and are connected with it. None where there is no such
    probability, or the point is none of them.
    """
    smooth = ndimage.gaussian_filter(probability, diameter / 20)
    near = max(round(diameter / 10), 1)
    around = tuple(slice(max(middle - near, 0), middle + near + 1) for middle in at)
    peak = float(np.where(taken[around], 0, smooth[around]).max())
    if peak < LEAST:
        return None
    rows, columns = np.ogrid[: smooth.shape[0], : smooth.shape[1]]
    within = (rows - at[0]) ** 2 + (columns - at[1]) ** 2 <= (REACH * diameter) ** 2
    inside = (smooth >= min(SHARE * peak, threshold)) & within & ~taken
    if not inside[at]:
        return None
    pieces, _ = ndimage.label(inside)
    grown: NDArray[np.bool_] = pieces == pieces[at]
    return grown


def read_maps(
    pixels: NDArray[np.uint8], name: str, model: Model, engine: Engine, *, mpp: float | None, stain: str
) -> ModelMaps:
    """The maps of an image (H, W, 3) uint8 at a scale, µm per px. Raises HemalumError as `segment_with_maps` does."""
    with Slide.of(pixels, name=name, mpp=mpp) as source:
        nuclei, maps = segment_with_maps(source, model, engine, mpp=mpp, stain=stain)
    scale = nuclei.mpp or model.card.mpp
    return ModelMaps(
        maps.probability,
        nuclei.label_map().astype(np.int32),
        model.card.separation.foreground,
        model.card.nucleus_diameter_um / scale,
    )


class MapCache:
    """The maps used last, in at most `KEPT_BYTES`."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most, self._lock = most, threading.Lock()
        self._kept: dict[str, ModelMaps] = {}

    def get(self, id: str) -> ModelMaps | None:
        """The maps of an item where they are kept."""
        with self._lock:
            maps = self._kept.pop(id, None)
            if maps is not None:
                self._kept[id] = maps  # the last one used is the last to go
            return maps

    def keep(self, id: str, maps: ModelMaps) -> None:
        """Keep maps, and forget those not used for longest."""
        with self._lock:
            self._kept[id] = maps
            while len(self._kept) > 1 and sum(one.size for one in self._kept.values()) > self._most:
                del self._kept[next(iter(self._kept))]
