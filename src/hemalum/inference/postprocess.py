"""Nuclei of an image of any height, from its maps band by band.

Why the result is that of one pass over the whole image, to the last pixel:

- Separation never crosses from one 4-connected component of the foreground into another, and what a component
  becomes is decided by its own pixels and their order (`hemalum.nuclei.separation` says why), which does not change
  when other pixels are added below or other components are taken away.
- A component that does not touch the last row known so far is complete. Its nuclei are committed: outlined,
  measured, and their pixels marked TAKEN. Pixels of it that became no nucleus stay as they are, and become
  none again, unless the component is cut by the first row that is kept; then they are made background.
  Everything enclosed by a complete component is complete as well, so holes are decided, too;
  a hole with a committed nucleus in it stays a hole, because TAKEN is neither nucleus nor hole.
- The other components are carried over with one row of background above them, and separated again, from the
  beginning, with the next rows.

Rows at which separation is done follow from the size of the image alone (`step_rows`), never from windows or
bands. This matters in one case: a component taller than two steps (some hundred nuclei in an unbroken chain).
To keep memory bounded, its nuclei that end more than a step above the last row are then committed although a
change far below could in theory still reach them through the chain. Since the rows are fixed, this too gives
the same result for every cutting into windows. A single nucleus taller than that is none and is left out.

A nucleus gets its class when it is committed, by the vote of all its pixels, so one on the edge of a band votes once.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from hemalum.inference.bands import Band
from hemalum.nuclei.nuclei import Part, measure
from hemalum.nuclei.refining import refine
from hemalum.nuclei.separation import TAKEN, flood
from hemalum.nuclei.settings import SeparationSettings

log = logging.getLogger(__name__)

STEP_AREA = 1 << 22  # px separated at once, beside what is carried over
SHORTEST_STEP = 256  # rows at the model's scale


def step_rows(width: int, upsampling: int) -> int:
    """Rows at the model's scale between two separations, for an image `width` px wide at that scale."""
    return max(STEP_AREA // (width * upsampling**2), SHORTEST_STEP)


def separate_bands(
    bands: Iterable[Band],
    shape: tuple[int, int],
    settings: SeparationSettings,
    *,
    upsampling: int = 1,
    step: int | None = None,
    tallest: int = 2,
) -> Iterator[Part]:
    """Give the nuclei of an image of (h, w) px at the model's scale, measured on the separation grid.

    `bands` come from top to bottom without gaps; `step` is `step_rows` unless given. A component may be
    `tallest` steps tall before it is cut.
    """
    step = step or step_rows(shape[1], upsampling)
    buffer = _Buffer(settings, upsampling, shape[0], step, tallest * step)
    for band in bands:
        yield from buffer.add(band)


class _Buffer:
    """Rows of maps and image that are not yet finished, from `top` on (in rows at the model's scale)."""

    def __init__(self, settings: SeparationSettings, upsampling: int, height: int, step: int, tallest: int) -> None:
        self.settings = settings
        self.upsampling, self.height, self.step, self.tallest = upsampling, height, step, tallest
        self.warned = False
        self.top = 0
        self.due = min(step, height)  # row at which the next separation is done
        self.waiting: list[Band] = []

    def add(self, band: Band) -> Iterator[Part]:
        """Take the next rows; give what is finished."""
        self.waiting.append(band)
        while self.waiting and self.waiting[-1].stop >= self.due > self.top:
            part = self._separate()
            if len(part):
                yield part
            if self.due == self.height:
                self.waiting = []
                return
            self.due = min(self.due + self.step, self.height)

    def _separate(self) -> Part:
        """Separate rows top..due, keep what is unfinished, give what is finished."""
        e, top, due = self.upsampling, self.top, self.due
        threshold = np.float32(self.settings.foreground)
        known = [band.rows(top, due, e) for band in self.waiting]
        maps = np.concatenate([band.maps for band in known], axis=1)
        image = np.concatenate([band.image for band in known])
        foreground, peaks, *classes = maps
        class_map = classes[0] if classes else None
        labels = flood(foreground, peaks, self.settings)
        open_labels = np.zeros(int(labels.max()) + 1, np.bool_)
        open_pixels = np.zeros((0, 0), np.bool_)
        first_kept, clear = due, False
        if due < self.height:
            open_pixels = find_open(foreground, threshold)
            open_labels[labels[open_pixels]] = True
            open_labels[0] = False
            first = _first_row(open_pixels)
            clear = len(labels) - first > self.tallest * e
            if clear:
                self._force(labels, open_pixels, open_labels)
                first = _first_row(open_pixels)
            first_kept = top + max(first - 1, 0) // e
        if open_labels.any():
            labels[open_labels[labels]] = 0
        refined = refine(labels, self.settings)  # what follows goes by what nuclei have claimed
        part = measure(
            refined, image, foreground, class_map=class_map, threshold=self.settings.foreground, origin=(top * e, 0)
        )
        if due < self.height:
            cut = (first_kept - top) * e
            kept = foreground[cut:]
            # of closed components that the first kept row cuts, what became no nucleus turns background
            closed = (kept >= threshold) & ~open_pixels[cut:]
            if not clear:
                closed &= find_open(kept[::-1], threshold)[::-1]
            kept[closed] = 0
            kept[labels[cut:] > 0] = TAKEN
        rest = [band.rows(due, band.stop, e) for band in self.waiting if band.stop > due]
        unfinished = Band(first_kept, due, image[first_kept - top :].copy(), maps[:, (first_kept - top) * e :].copy())
        self.waiting = [unfinished, *rest]
        self.top = first_kept
        return part

    def _force(
        self, labels: NDArray[np.int32], open_pixels: NDArray[np.bool_], open_labels: NDArray[np.bool_]
    ) -> None:
        """Close what lies more than a step above the last row, in place."""
        rows = len(labels)
        limit = rows - self.step * self.upsampling
        boxes = ndimage.find_objects(labels, len(open_labels) - 1)
        first = np.array([rows, *(rows if box is None else box[0].start for box in boxes)])
        last = np.array([-1, *(-1 if box is None else box[0].stop - 1 for box in boxes)])
        tall = open_labels & (last >= limit) & (first < rows - self.tallest * self.upsampling)
        open_labels &= (last >= limit) & ~tall
        if tall.any():
            if not self.warned:
                log.warning("areas without a nucleus's shape, over %d rows tall, are left out", self.tallest)
                self.warned = True
            labels[tall[labels]] = 0
        open_pixels[:limit] &= open_labels[labels[:limit]]


def _first_row(pixels: NDArray[np.bool_]) -> int:
    """The first row with a True pixel, or the number of rows."""
    rows: NDArray[np.bool_] = np.any(pixels, axis=1)
    return int(np.argmax(rows)) if rows.any() else len(rows)


@njit(cache=True, nogil=True)
def find_open(foreground: Any, threshold: Any) -> Any:
    """Pixels of the 4-connected components of foreground >= threshold that touch the last row, (H, W) bool."""
    height, width = foreground.shape
    reached = np.zeros((height, width), np.bool_)
    stack = np.empty(4 * width + 64, np.int64)
    size = 0
    for x in range(width):
        if foreground[height - 1, x] >= threshold:
            reached[height - 1, x] = True
            stack[size] = (height - 1) * width + x
            size += 1
    while size:
        size -= 1
        y, x = stack[size] // width, stack[size] % width
        if size + 4 > stack.size:
            stack = np.concatenate((stack, np.empty_like(stack)))
        for step in range(4):
            v, u = y + (step == 0) - (step == 1), x + (step == 2) - (step == 3)
            if 0 <= v < height and 0 <= u < width and not reached[v, u] and foreground[v, u] >= threshold:
                reached[v, u] = True
                stack[size] = v * width + u
                size += 1
    return reached
