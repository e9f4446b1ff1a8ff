"""From maps to labeled nuclei: a priority flood that finds its own markers.

Every pixel of the foreground has a level, the `peaks` map cut off at the marker threshold. The flood
goes from the highest level down. A plateau that no earlier pixel reaches starts a basin. Where two
basins meet, at a saddle, they become one nucleus unless both are at least `min_marker_area` large by
then and both rise at least `min_depth` above the saddle (the dynamics of a maximum: Grimaud 1992; the
flood is Meyer's, 1991). So a plateau at the marker threshold is a marker as in the usual marker
watershed, and a faint nucleus that stays below the threshold is one as well when it stands out from its
surroundings, or stands alone.

Why a result does not depend on what is far away: a pixel is claimed once, when it is queued, and floods on under its
own basin only; ties go by order of queueing, which starts in raster order; the choice to join two basins looks at
these two only. Nothing crosses from one 4-connected component of the foreground into another, so a nucleus is final
as soon as the whole component that it lies in has been seen.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.compiled import njit
from hemalum.errors import HemalumError
from hemalum.nuclei.components import find_root, find_runs, join_runs, sort_runs
from hemalum.nuclei.merging import merge_convex
from hemalum.nuclei.settings import SeparationSettings

Float = NDArray[np.float32]
Labels = NDArray[np.int32]

TOP = 254  # levels 1..255 hold the peak map from 0 to 1; 0 is background
OPEN = np.int32(-(2**31))  # background known not to be a hole


def flood(foreground: Float, peaks: Float, settings: SeparationSettings) -> Labels:
    """Give the label map (H, W) int32 of the nuclei, 0 = background, ids 1..N in raster order of first pixel.

    `foreground` (H, W) float32 is the probability of nucleus;
    `peaks` (H, W) float32 in [0, 1] is high in the middle of nuclei and low between them.
    Each nucleus is one 4-connected piece. Background that it encloses is filled up to `max_hole_area`, unless
    the hole touches another nucleus or the border of the map.

    Raises HemalumError when the two maps differ in shape or are not 2-D.
    """
    if foreground.ndim != 2 or foreground.shape != peaks.shape:
        raise HemalumError(f"separation needs two maps of one (H, W), got {foreground.shape} and {peaks.shape}")
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
        settings.min_relative_depth,
        settings.merge_depth,
        settings.min_marker_area,
        settings.min_area,
        settings.min_probability,
        settings.max_hole_area,
    )
    return labels


@njit(nogil=True)
def _separate(  # noqa: PLR0913, C901 (compiled: a loop in a function of its own is slower)
    foreground: Any,
    peaks: Any,
    threshold: Any,
    marker: Any,
    depth: int,
    share: float,
    merge_depth: float,
    marker_area: int,
    min_area: int,
    min_probability: float,
    max_hole: int,
) -> Any:
    """One component of the foreground after the other, each in a small frame that stays in the cache."""
    labels = np.zeros(foreground.shape, np.int32)
    runs = find_runs(foreground, threshold)
    component, boxes = join_runs(runs)
    order, begin = sort_runs(component, boxes.shape[0])
    most, largest = 1, 1
    for c in range(boxes.shape[0]):
        most = max(most, boxes[c, 4])
        largest = max(largest, (boxes[c, 1] - boxes[c, 0] + 2) * (boxes[c, 3] - boxes[c, 2] + 2))
    level = np.zeros(largest, np.uint8)
    basin = np.empty(largest, np.int32)
    next_pixel = np.empty(largest, np.int32)
    pixels = np.empty(most, np.int32)
    root = np.empty(most + 1, np.int32)
    peak = np.empty(most + 1, np.int32)
    area = np.empty(most + 1, np.int32)
    total = np.empty(most + 1, np.float64)
    head = np.full(256, -1, np.int32)
    tail = np.full(256, -1, np.int32)
    start = np.empty(258, np.int32)

    first = np.empty(runs.shape[0] + 1, np.int64)  # first pixel of each kept nucleus
    kept = 0
    pierced = np.empty(boxes.shape[0], np.int32)
    n_pierced = 0
    for c in range(boxes.shape[0]):
        if boxes[c, 4] < min_area:
            continue
        members = order[begin[c] : begin[c + 1]]
        top, left, stride = boxes[c, 0] - 1, boxes[c, 2] - 1, boxes[c, 3] - boxes[c, 2] + 2
        start[:] = 0
        for r in members:
            y, at = runs[r, 0], (runs[r, 0] - top) * stride - left
            for x in range(runs[r, 1], runs[r, 2]):
                value = max(min(peaks[y, x], marker), np.float32(0))
                k = 1 + int(value * TOP + np.float32(0.5))
                level[at + x] = k
                basin[at + x] = 0
                start[k + 1] += 1
        for k in range(1, 257):
            start[k + 1] += start[k]
        for r in members:
            at = (runs[r, 0] - top) * stride - left
            for i in range(at + runs[r, 1], at + runs[r, 2]):
                k = level[i]
                pixels[start[k]] = i
                start[k] += 1  # ends as the start of the level above
        count = _grow(
            level, basin, next_pixel, pixels, start, head, tail, root, peak, area, stride, depth, share, marker_area
        )
        if merge_depth > 0 and count > 1:
            merge_convex(level, basin, pixels[: boxes[c, 4]], root, peak, area, count, stride, merge_depth)

        for n in range(1, count + 1):
            root[n] = find_root(root, n)
            area[n] = 0
            total[n] = 0
        for r in members:
            y, at = runs[r, 0], (runs[r, 0] - top) * stride - left
            for x in range(runs[r, 1], runs[r, 2]):
                n = root[basin[at + x]]
                area[n] += 1
                total[n] += foreground[y, x]
        has_hole = boxes[c, 5] > 0
        for n in range(1, count + 1):
            peak[n] = 0  # from here on the number of the nucleus, -1 where dropped
            if area[n] and (area[n] < min_area or total[n] < min_probability * area[n]):
                peak[n] = -1
                has_hole = True
        for r in members:
            y, at = runs[r, 0], (runs[r, 0] - top) * stride - left
            for x in range(runs[r, 1], runs[r, 2]):
                level[at + x] = 0
                n = root[basin[at + x]]
                if peak[n] == 0:
                    if kept == first.size:
                        first = np.concatenate((first, np.empty(kept, np.int64)))
                    first[kept] = y * labels.shape[1] + x
                    kept += 1
                    peak[n] = kept
                if peak[n] > 0:
                    labels[y, x] = peak[n]
        if has_hole:
            pierced[n_pierced] = c
            n_pierced += 1

    rank = np.empty(kept + 1, np.int32)
    rank[0] = 0
    for i, n in enumerate(np.argsort(first[:kept])):
        rank[n + 1] = i + 1
    for r in range(runs.shape[0]):
        for x in range(runs[r, 1], runs[r, 2]):
            labels[runs[r, 0], x] = rank[labels[runs[r, 0], x]]
    if max_hole > 0:
        stack = np.empty(max_hole + 1, np.int64)
        for c in pierced[:n_pierced]:
            _fill_holes(labels, boxes[c], stack)
    return labels


@njit(nogil=True)
def _grow(  # noqa: PLR0913 (compiled: arrays in and out)
    level: Any,
    basin: Any,
    next_pixel: Any,
    pixels: Any,
    stop: Any,
    head: Any,
    tail: Any,
    root: Any,
    peak: Any,
    area: Any,
    stride: int,
    depth: int,
    share: float,
    marker_area: int,
) -> int:
    """Flood one component; give the number of basins.

    `level` is 0 around the component; `pixels` are its pixels by level, raster order within one, those of
    level k up to stop[k]. `basin` gets numbers from 1; `root` says which basin each was joined to. One queue
    per level as a linked list: a pixel is queued once, so one `next_pixel` per pixel is enough.
    """
    count = 0
    for current in range(255, 0, -1):
        seed = stop[current - 1]
        last = stop[current]
        while True:
            p = head[current]
            if p < 0:
                while seed < last and basin[pixels[seed]] != 0:
                    seed += 1
                if seed == last:
                    break
                p = pixels[seed]
                count += 1
                root[count] = count
                peak[count] = current
                area[count] = 0
                basin[p] = count
            else:
                head[current] = next_pixel[p]
                if head[current] < 0:
                    tail[current] = -1
            basin_id = basin[p]
            a = basin_id if root[basin_id] == basin_id else find_root(root, basin_id)
            area[a] += 1
            for step in (-stride, -1, 1, stride):
                q = p + step
                if level[q] == 0:
                    continue
                if basin[q] == 0:
                    basin[q] = basin_id
                    # climbing out of a valley is not possible: the level of the way here stays
                    k = min(level[q], current)
                    level[q] = k
                    next_pixel[q] = -1
                    if tail[k] < 0:
                        head[k] = q
                    else:
                        next_pixel[tail[k]] = q
                    tail[k] = q
                elif level[q] >= current and basin[q] != basin_id:
                    b = find_root(root, basin[q])
                    if b == a:
                        continue
                    lower = min(peak[a], peak[b])
                    # level 1 is a peak of 0
                    limit = max(depth, share * (lower - 1))
                    if lower - current < limit or min(area[a], area[b]) < marker_area:
                        low, high = (a, b) if a > b else (b, a)
                        root[low] = high
                        peak[high] = max(peak[a], peak[b])
                        area[high] = area[a] + area[b]
                        a = high
    return count


@njit(nogil=True)
def _fill_holes(labels: Any, box: Any, stack: Any) -> None:  # noqa: C901 (compiled, as above)
    """Fill, within a component's box, 8-connected background that one nucleus encloses alone."""
    top, bottom, left, right = box[0], box[1] - 1, box[2], box[3] - 1
    width = labels.shape[1]
    for y in range(top + 1, bottom):
        for x in range(left + 1, right):
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
                v, u = stack[done] // width, stack[done] % width
                done += 1
                # a hole does not reach the edge of the box
                if v in (top, bottom) or u in (left, right):
                    closed = False
                    break
                for dv in range(-1, 2):
                    for du in range(-1, 2):
                        n = labels[v + dv, u + du]
                        if n == owner or n == -owner:
                            continue
                        if n != 0 or size == stack.size:
                            closed = False
                        elif closed:
                            stack[size] = (v + dv) * width + u + du
                            labels[v + dv, u + du] = -owner
                            size += 1
            if size == stack.size:
                closed = False
            # background found open is not searched again: the next search that meets it is open as well
            for i in range(size):
                labels[stack[i] // width, stack[i] % width] = owner if closed else OPEN
    for y in range(top, bottom + 1):
        for x in range(left, right + 1):
            if labels[y, x] == OPEN:
                labels[y, x] = 0
