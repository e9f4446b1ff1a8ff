"""From maps to labelled nuclei: a priority flood that finds its own markers.

Every pixel of the foreground has a level, the `peaks` map cut off at the marker threshold. The flood
goes from the highest level down. A plateau that no earlier pixel reaches starts a basin. Where two
basins meet, at a saddle, they become one nucleus unless both are at least `min_marker_area` large by
then and both rise at least `min_depth` above the saddle (the dynamics of a maximum: Grimaud 1992; the
flood is Meyer's, 1991). So a plateau at the marker threshold is a marker as in the usual marker
watershed, and a faint nucleus that stays below the threshold is one as well when it stands out from its
surroundings, or stands alone.

Why a result does not depend on what is far away, or already done: a pixel is claimed once, when it is
queued, and floods on under its own basin only; ties go by order of queueing, which starts in raster
order; the choice to join two basins looks at these two only. Taking all pixels of one nucleus out of the
foreground (TAKEN) therefore leaves every other nucleus as it was, to the last pixel. Nothing crosses
from one 4-connected component of the foreground into another, so a nucleus is final as soon as the whole
component that it lies in has been seen.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hemalum.errors import HemalumError
from hemalum.models.card import SeparationSettings

Float = NDArray[np.float32]
Labels = NDArray[np.int32]

TOP = 254  # levels 1..255 hold the peak map from 0 to 1; 0 is background
OPEN = np.int32(-(2**31))  # background known not to be a hole
TAKEN = np.float32(-1.0)
"""Foreground of a pixel of a nucleus committed earlier: never nucleus, and no hole reaches over it."""


def flood(foreground: Float, peaks: Float, settings: SeparationSettings) -> Labels:
    """Give the label map (H, W) int32 of the nuclei, 0 = background, ids 1..N in raster order of first pixel.

    `foreground` (H, W) float32 is the probability of nucleus, negative (TAKEN) where a pixel is out of play;
    `peaks` (H, W) float32 in [0, 1] is high in the middle of nuclei and low between them.
    Each nucleus is one 4-connected piece. Background that it encloses is filled up to `max_hole_area`, unless
    the hole touches another nucleus or the border of the map.

    Raises HemalumError when the two maps differ in shape or are not 2-D.
    """
    if foreground.ndim != 2 or foreground.shape != peaks.shape:
        raise HemalumError(
            f"separation needs two maps of one (H, W), got {foreground.shape} and {peaks.shape}"
        )
    if foreground.size == 0:
        return np.zeros(foreground.shape, np.int32)
    if foreground.size >= 2**31:
        raise HemalumError(f"separation takes at most 2^31 pixels at once, got {foreground.shape}: use bands")
    labels: Labels = _separate(
        np.ascontiguousarray(foreground, np.float32),
        np.ascontiguousarray(peaks, np.float32),
        np.float32(settings.foreground),
        np.float32(settings.marker),
        round(settings.min_depth * TOP),
        settings.min_marker_area,
        settings.min_area,
        settings.min_probability,
        settings.max_hole_area,
    )
    return labels


@njit(cache=True, nogil=True)
def _separate(
    foreground: Any,
    peaks: Any,
    threshold: Any,
    marker: Any,
    depth: int,
    marker_area: int,
    min_area: int,
    min_probability: float,
    max_hole: int,
) -> Any:
    height, width = foreground.shape
    level = _levels(foreground, peaks, threshold, marker)
    labels = np.zeros((height, width), np.int32)
    root = _grow(level, labels, depth, marker_area)
    _drop(labels, foreground, root, min_area, min_probability)
    if max_hole > 0:
        _fill_holes(labels, foreground, max_hole)
    _renumber(labels, root.size)
    return labels


@njit(cache=True, nogil=True)
def _levels(foreground: Any, peaks: Any, threshold: Any, marker: Any) -> Any:
    """Level of each pixel in a frame of zeros, (H + 2, W + 2) uint8: neighbours need no bounds check."""
    height, width = foreground.shape
    level = np.zeros((height + 2, width + 2), np.uint8)
    for y in range(height):
        for x in range(width):
            if foreground[y, x] >= threshold:
                value = min(peaks[y, x], marker)
                level[y + 1, x + 1] = np.uint8(1 + int(max(value, np.float32(0)) * TOP + np.float32(0.5)))
    return level


@njit(cache=True, nogil=True)
def _find(root: Any, a: int) -> int:
    while root[a] != a:
        root[a] = root[root[a]]
        a = root[a]
    return a


@njit(cache=True, nogil=True)
def _grow(level: Any, labels: Any, depth: int, marker_area: int) -> Any:
    """Flood `labels` (basin numbers from 1) and give the basin that each was joined to."""
    height, width = labels.shape
    stride = width + 2
    flat = level.ravel()
    basin = np.zeros(flat.size, np.int32)

    # pixels in order of level, raster order within a level
    start = np.zeros(258, np.int64)
    for i in range(flat.size):
        start[flat[i] + 1] += 1
    start[1] = 0
    for k in range(1, 257):
        start[k + 1] += start[k]
    order = np.empty(start[256], np.int32)
    place = start.copy()
    for i in range(flat.size):
        k = flat[i]
        if k:
            order[place[k]] = i
            place[k] += 1

    # one queue per level as a linked list: a pixel is queued once, so one `after` per pixel is enough
    after = np.empty(flat.size, np.int32)
    head = np.full(256, -1, np.int32)
    tail = np.full(256, -1, np.int32)
    capacity = 1024
    root = np.zeros(capacity, np.int32)
    peak = np.zeros(capacity, np.int32)
    area = np.zeros(capacity, np.int32)
    count = 0
    steps = (-stride, -1, 1, stride)

    for now in range(255, 0, -1):
        seed = start[now]
        while True:
            p = head[now]
            if p < 0:
                while seed < start[now + 1] and basin[order[seed]] != 0:
                    seed += 1
                if seed == start[now + 1]:
                    break
                p = order[seed]
                count += 1
                if count == capacity:
                    capacity *= 2
                    root = _longer(root, capacity)
                    peak = _longer(peak, capacity)
                    area = _longer(area, capacity)
                root[count] = count
                peak[count] = now
                basin[p] = count
            else:
                head[now] = after[p]
                if head[now] < 0:
                    tail[now] = -1
            own = basin[p]
            a = _find(root, own)
            area[a] += 1
            for step in steps:
                q = p + step
                if flat[q] == 0:
                    continue
                if basin[q] == 0:
                    basin[q] = own
                    # climbing out of a valley is not possible: the level of the way here stays
                    k = min(flat[q], now)
                    flat[q] = k
                    after[q] = -1
                    if tail[k] < 0:
                        head[k] = q
                    else:
                        after[tail[k]] = q
                    tail[k] = q
                elif flat[q] >= now and basin[q] != own:
                    b = _find(root, basin[q])
                    if b != a and (
                        min(peak[a], peak[b]) - now < depth or min(area[a], area[b]) < marker_area
                    ):
                        low, high = (a, b) if a > b else (b, a)
                        root[low] = high
                        peak[high] = max(peak[a], peak[b])
                        area[high] = area[a] + area[b]
                        a = high
    for y in range(height):
        row = (y + 1) * stride + 1
        for x in range(width):
            if basin[row + x]:
                labels[y, x] = _find(root, basin[row + x])
    return root[: count + 1]


@njit(cache=True, nogil=True)
def _longer(values: Any, size: int) -> Any:
    longer = np.zeros(size, values.dtype)
    longer[: values.size] = values
    return longer


@njit(cache=True, nogil=True)
def _drop(labels: Any, foreground: Any, root: Any, min_area: int, min_probability: float) -> None:
    """Set to 0 what is too small or too faint."""
    height, width = labels.shape
    area = np.zeros(root.size, np.int32)
    total = np.zeros(root.size, np.float64)
    for y in range(height):
        for x in range(width):
            n = labels[y, x]
            if n:
                area[n] += 1
                total[n] += foreground[y, x]
    for n in range(1, root.size):
        if area[n] < min_area or total[n] < min_probability * area[n]:
            area[n] = 0
    for y in range(height):
        for x in range(width):
            n = labels[y, x]
            if n and area[n] == 0:
                labels[y, x] = 0


@njit(cache=True, nogil=True)
def _fill_holes(labels: Any, foreground: Any, max_hole: int) -> None:
    """Fill 8-connected background that one nucleus encloses alone, in place; leaves OPEN elsewhere."""
    height, width = labels.shape
    stack = np.empty(max_hole + 1, np.int64)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            # the first pixel of a hole in raster order has the nucleus above it and to its left
            if labels[y, x] != 0 or labels[y, x - 1] <= 0 or labels[y - 1, x] != labels[y, x - 1]:
                continue
            owner = labels[y, x - 1]
            size = 1
            stack[0] = y * width + x
            labels[y, x] = -owner
            closed = True
            done = 0
            while closed and done < size:
                cy, cx = stack[done] // width, stack[done] % width
                done += 1
                if cy == 0 or cx == 0 or cy == height - 1 or cx == width - 1 or foreground[cy, cx] < 0:
                    closed = False
                    break
                for dy in range(-1, 2):
                    for dx in range(-1, 2):
                        n = labels[cy + dy, cx + dx]
                        if n == owner or n == -owner:
                            continue
                        if n != 0 or size > max_hole:
                            closed = False
                        elif closed:
                            stack[size] = (cy + dy) * width + cx + dx
                            labels[cy + dy, cx + dx] = -owner
                            size += 1
            if size > max_hole:
                closed = False
            # background found open is not searched again: the next search that meets it is open as well
            for i in range(size):
                labels[stack[i] // width, stack[i] % width] = owner if closed else OPEN


@njit(cache=True, nogil=True)
def _renumber(labels: Any, ids: int) -> None:
    number = np.zeros(ids, np.int32)
    count = 0
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            n = labels[y, x]
            if n > 0:
                if number[n] == 0:
                    count += 1
                    number[n] = count
                labels[y, x] = number[n]
            elif n < 0:
                labels[y, x] = 0
