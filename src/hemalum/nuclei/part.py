"""Nuclei of a band of an image, outlined and measured on the separation grid: what results are joined from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hemalum.nuclei.morphology import Columns, moments, vote
from hemalum.nuclei.polygons import Polygons, trace


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Finished nuclei of one band of an image, measured on the separation grid."""

    polygons: Polygons
    first: NDArray[np.int32]
    raw: Columns

    def __len__(self) -> int:
        return len(self.polygons)

    def where(self, kept: NDArray[np.bool_]) -> "Part":
        """Give the nuclei of a mask (N,) bool."""
        return Part(
            self.polygons.take(np.flatnonzero(kept)),
            self.first[kept],
            {name: values[kept] for name, values in self.raw.items()},
        )


def measure(
    labels: NDArray[np.int32],
    image: NDArray[np.uint8] | None = None,
    probability: NDArray[np.float32] | None = None,
    *,
    class_map: NDArray[np.float32] | None = None,
    threshold: float | None = None,
    origin: tuple[int, int] = (0, 0),
    smooth: bool = True,
) -> Part:
    """Outline and measure every nucleus of a label map (H, W) int32 whose labels are 4-connected pieces.

    `image` (H, W, 3) uint8, or smaller by a whole factor, and `probability` (H, W) float32 belong to the same
    pixels; with a `threshold`, outlines lie where the probability crosses it. `origin` is row and column of
    labels[0, 0] on the full separation grid. `class_map` (H, W) float32, the most probable class of each pixel from
    1, gives each nucleus a class by `vote`. A nucleus gives the same numbers to the last bit whichever band it is
    measured in.
    """
    along = None if threshold is None else probability
    outlines = trace(labels, along, threshold or 0.5, smooth=smooth, origin=origin)
    raw = moments(labels, outlines, image, probability)
    if class_map is not None:
        raw["class"] = vote(labels, outlines.ids, class_map, probability, threshold or 0.0)
    return Part(outlines.polygons, outlines.first, raw)
