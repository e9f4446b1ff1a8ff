"""The nuclei of a window of a segmented slide, as an item starts with them."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hemalum.experiments import pixel_entropy
from hemalum.nuclei.nuclei import Nuclei
from hemalum.nuclei.polygons import Polygons
from hemalum.nuclei.store import NucleiStore, from_wkb
from hemalum.review.fields import Window
from hemalum.review.item import Start
from hemalum.review.kept_fields import NucleusFigures
from hemalum.review.nucleus import Ring, largest_piece, pixels_of, trace_piece, window_of


@dataclass(frozen=True, slots=True, eq=False)
class WindowNuclei:
    """The N nuclei that hold a pixel of a window, clipped to it, in px of it.

    `ids` (N,) are those of the store, and `outlines` whole, in px of the slide.
    """

    nuclei: Nuclei
    ids: NDArray[np.int64]
    outlines: Polygons

    def figures(self, threshold: float) -> NucleusFigures:
        """What is known of them from the table alone: the mean probability, and what follows from it."""
        probability = self.nuclei.table.column("probability").to_numpy().astype(np.float64)
        unknown = np.isnan(probability)
        entropy = pixel_entropy(np.nan_to_num(probability)).astype(np.float64)
        entropy[unknown] = np.nan
        return NucleusFigures(
            entropy, np.abs(probability - threshold), np.full(len(probability), np.nan), probability
        )


def window_nuclei(store: NucleiStore, window: Window) -> WindowNuclei:
    """The nuclei whose outline meets a window x, y, width, height (px of the slide), by their ids in the store.

    Of one that reaches beyond, the largest piece inside counts. All that are given are in `Start.of`, in this order.
    """
    nuclei = store.nuclei(window)
    table = store.window(*window, columns=["id", "geometry"])  # in the same order
    ids = table.column("id").to_numpy().astype(np.int64)
    rings: list[Ring] = []
    kept: list[int] = []
    height, width = nuclei.shape
    low, high = nuclei.outlines.bounds()
    beyond: NDArray[np.bool_] = np.any((low < 0) | (high > (width, height)), axis=1)
    offsets, coords = nuclei.outlines.offsets, nuclei.outlines.coords
    for row in range(len(nuclei)):
        ring: Ring = coords[offsets[row] : offsets[row + 1]]
        inside = clip_to_window(ring, nuclei.shape) if beyond[row] else ring
        if inside is not None:
            rings.append(inside)
            kept.append(row)
    ends = np.cumsum([0] + [len(ring) for ring in rings]).astype(np.int64)
    outlines = Polygons(np.concatenate([*rings, np.zeros((0, 2), np.float32)]), ends)
    clipped = replace(nuclei[np.array(kept, np.int64)], outlines=outlines)
    rows = Start.rows(clipped)
    taken = np.array(kept, np.int64)[rows]
    return WindowNuclei(clipped[rows], ids[taken], from_wkb(table.column("geometry")).take(taken))


def clip_to_window(ring: Ring, shape: tuple[int, int]) -> Ring | None:
    """The largest piece of a ring in an image of `shape` (H, W), px; None where it holds no pixel of it."""
    box = window_of([ring], shape)
    if box[0] >= box[2] or box[1] >= box[3]:
        return None
    mask = pixels_of(ring, box)
    if not mask.any():
        return None
    piece, _ = largest_piece(mask)
    return np.clip(trace_piece(piece, box), 0, np.array(shape[::-1], np.float32))
