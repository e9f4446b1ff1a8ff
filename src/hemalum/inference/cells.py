"""Nuclei of one cell, from the maps of its core and a halo around it.

A nucleus belongs to the cell whose core holds its peak: the first pixel, in raster order, of those where its peak map
is highest. A cell looks at no other cell. What it finds depends on the maps around it alone, so nuclei are the same
whatever else is segmented, when, and by whom.

Separation never crosses from one 4-connected component of the foreground into another, so a nucleus of a component
that ends inside the box is exactly what separating the whole image gives. A component that goes on beyond the box may
be changed by what is not seen; the halo is so wide that this does not reach the core (`benchmarks/seams.py` counts).
Where a nucleus of the core comes within `MARGIN` px of the border of the box, the box grows, up to `LARGEST` px
around the core; what touches the border still is a clump of no nuclei, and is left out and counted. So what may
differ from separating the whole image are clumps in which single "nuclei" are larger than the halo: where they go on
beyond the box, two cells may see their inner borders differently.
"""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hemalum.compiled import njit
from hemalum.inference.grid import CELL_HALO, Box
from hemalum.nuclei.part import Part, measure
from hemalum.nuclei.refining import refine
from hemalum.nuclei.separation import flood
from hemalum.nuclei.settings import SeparationSettings

Item = TypeVar("Item")
Result = TypeVar("Result")

MARGIN = 16  # px around a nucleus that are seen at least
LARGEST = 4 * CELL_HALO  # px around the core: a nucleus that is larger is none
TOO_LARGE = "left_out_too_large"  # note of a result


@dataclass(frozen=True, slots=True, eq=False)
class BoxMaps:
    """An image's pixels (h, w, 3) uint8 in a box at the model's scale, and its maps (2 or 3, h·u, w·u) float32:
    foreground, peaks and, where nuclei have classes, the class of each pixel from 1."""

    box: Box
    image: NDArray[np.uint8]
    maps: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class CellNuclei:
    """What separating a cell gives: the nuclei of its core, on the separation grid, and what lies beside them.

    `neighbors` is what else was found in the halo, where it is asked for. `left_out` counts, by reason, what was
    found and is no nucleus.
    """

    core: Box
    part: Part
    neighbors: Part
    left_out: Counter[str]

    def where(self, kept: NDArray[np.bool_]) -> "CellNuclei":
        """The cell with the nuclei of a mask (N,) bool."""
        return replace(self, part=self.part.where(kept))


def separate_cell(
    read: Callable[[Box], BoxMaps],
    core: Box,
    shape: tuple[int, int],
    settings: SeparationSettings,
    *,
    upsampling: int = 1,
    halo: int = CELL_HALO,
    margin: int = MARGIN,
    with_neighbors: bool = False,
) -> CellNuclei:
    """Nuclei of a cell of an image of (h, w) px. `read` gives the maps of a box.

    `core`, `halo` and `margin`, what has to be seen around each nucleus, are px at the model's scale.
    """
    while True:
        seen = read(core.grown(halo, shape))
        foreground, peaks, *classes = seen.maps
        labels = refine(flood(foreground, peaks, settings), settings)
        kept = find_own(labels, peaks, np.float32(settings.marker), seen.box, core, upsampling)
        if halo >= LARGEST or not (kept & at_border(labels, seen.box, shape, 1 + margin * upsampling)).any():
            break
        halo *= 2
    cut = kept & at_border(labels, seen.box, shape)
    kept &= ~cut
    wanted = np.arange(len(kept), dtype=np.int32)
    if not with_neighbors:
        wanted[~kept] = 0
    origin = seen.box.top * upsampling, seen.box.left * upsampling
    part = measure(
        wanted[labels], seen.image, foreground,
        class_map=classes[0] if classes else None, threshold=settings.foreground, origin=origin,
    )  # fmt: skip
    rows, columns = (part.first - np.array(origin, np.int32)).T
    inside = kept[labels[rows, columns]]
    return CellNuclei(core, part.where(inside), part.where(~inside), Counter({TOO_LARGE: int(cut.sum())}))


def find_own(
    labels: NDArray[np.int32], peaks: NDArray[np.float32], marker: np.float32, box: Box, core: Box, upsampling: int
) -> NDArray[np.bool_]:
    """Which labels (0..N,) of a box have their peak in the core."""
    points = find_peaks(labels, peaks, marker, int(labels.max()) + 1)
    rows, columns = core.slices(box, upsampling)
    inside: NDArray[np.bool_] = (
        (points[:, 0] >= rows.start) & (points[:, 0] < rows.stop)
        & (points[:, 1] >= columns.start) & (points[:, 1] < columns.stop)
    )  # fmt: skip
    inside[0] = False
    return inside


def at_border(labels: NDArray[np.int32], box: Box, shape: tuple[int, int], width: int = 1) -> NDArray[np.bool_]:
    """Which labels (0..N,) have a pixel in the outermost `width` of a box, where the image goes on beyond it."""
    touching = np.zeros(int(labels.max()) + 1, np.bool_)
    for border, inside in (
        (labels[:width], box.top > 0), (labels[-width:], box.bottom < shape[0]),
        (labels[:, :width], box.left > 0), (labels[:, -width:], box.right < shape[1]),
    ):  # fmt: skip
        if inside:
            touching[border] = True
    return touching


def run_ahead(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Generator[Result, None, None]:
    """What `work` gives for each item, in order; `workers` threads are at most two items each ahead of the reader."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="cell") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@njit(nogil=True)
def find_peaks(labels: Any, peaks: Any, marker: Any, count: int) -> Any:
    """Row and column (count, 2) of each label's first pixel among those where min(peaks, marker) is highest."""
    points = np.full((count, 2), -1, np.int64)
    highest = np.full(count, np.float32(-1.0), np.float32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            label = labels[y, x]
            if label and min(peaks[y, x], marker) > highest[label]:
                highest[label] = min(peaks[y, x], marker)
                points[label, 0] = y
                points[label, 1] = x
    return points
