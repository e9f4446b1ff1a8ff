"""Joins basins that were cut inside one nucleus: their border is shallow and their union is convex.

A nucleus with uneven chromatin has more than one maximum, and valleys between them as deep as those between some
touching nuclei. But its pieces make up a convex shape, and two nuclei seldom do. So two neighbors become one when

    (lower maximum − saddle) / lower maximum  +  WEIGHT · (solidity of the parts − solidity of the union)

is below `depth`, the parts' solidity being the mean by area. Solidity is counted on the grid: pixels of a basin /
pixels in the convex hull of their centers. It is 1 for a digitized convex shape of any size, which area by area
would not be. Two round nuclei that just touch lose 0.12 of it, two that overlap by a quarter of their diameter 0.05.

As in the flood, nothing depends on what is far away or already done: pairs are looked at from the shallowest to the
deepest, ties by the numbers of the basins, over and over until no more are joined; a pair that is turned down
changes nothing, and whether it is depends on the two alone.
"""

from typing import Any

import numpy as np

from hemalum.compiled import njit
from hemalum.nuclei.components import find_root

WEIGHT = 2.0  # depth that one unit of solidity counts for: the best of 0, 1, 2, 4, the last three nearly alike
GAIN = 0.1  # solidity that a union is expected to win over its parts at most


@njit(nogil=True)
def merge_convex(
    level: Any,
    basin: Any,
    pixels: Any,
    root: Any,
    peak: Any,
    area: Any,
    count: int,
    stride: int,
    depth: float,
) -> None:
    """Join basins of one flooded component, in place in `root`, `peak` and `area`; see `separation._grow`."""
    for n in range(1, count + 1):
        root[n] = find_root(root, n)
    pairs = _find_pairs(level, basin, pixels, root, peak, count, stride, depth)
    if pairs.shape[0] == 0:
        return
    involved = np.zeros(count + 1, np.bool_)
    for i in range(pairs.shape[0]):
        involved[pairs[i, 0]] = involved[pairs[i, 1]] = True
    top, bottom, begin, ends = _measure_rows(basin, pixels, root, involved, stride)
    size = ends.shape[0]
    solid = np.zeros(count + 1)
    for n in range(1, count + 1):
        if involved[n]:
            solid[n] = area[n] / count_hull(ends[begin[n] : begin[n] + bottom[n] - top[n]])
    changed = True
    while changed:
        changed = False
        for i in range(pairs.shape[0]):
            a, b = find_root(root, pairs[i, 0]), find_root(root, pairs[i, 1])
            if a == b:
                continue
            first, last = min(top[a], top[b]), max(bottom[a], bottom[b])
            if size + last - first > ends.shape[0]:
                ends = np.concatenate((ends, np.empty((ends.shape[0] + last - first, 2), np.int32)))
            union = ends[size : size + last - first]
            for y in range(first, last):
                union[y - first, 0], union[y - first, 1] = stride, -1
                for n in (a, b):
                    if top[n] <= y < bottom[n]:
                        k = begin[n] + y - top[n]
                        union[y - first, 0] = min(union[y - first, 0], ends[k, 0])
                        union[y - first, 1] = max(union[y - first, 1], ends[k, 1])
            # level 1 is a peak of 0
            lower = min(peak[a], peak[b]) - 1
            relative = (lower + 1 - pairs[i, 2]) / max(lower, 1)
            hull = count_hull(union)
            convex = (area[a] + area[b]) / hull
            parts = (area[a] * solid[a] + area[b] * solid[b]) / (area[a] + area[b])
            if relative + WEIGHT * (parts - convex) >= depth:
                continue
            low, high = (a, b) if a > b else (b, a)
            root[low] = high
            peak[high] = max(peak[a], peak[b])
            area[high] = area[a] + area[b]
            solid[high] = convex
            top[high], bottom[high], begin[high] = first, last, size
            size += last - first
            changed = True


@njit(nogil=True)
def _find_pairs(
    level: Any, basin: Any, pixels: Any, root: Any, peak: Any, count: int, stride: int, depth: float
) -> Any:
    """Touching basins and their saddle, (N, 3) int64, less than `depth` below the lower maximum, shallowest first."""
    keys: Any = np.empty(64, np.int64)
    size = 0
    for p in pixels:
        a = root[basin[p]]
        for q in (p + 1, p + stride):
            if level[q] == 0:
                continue
            b = root[basin[q]]
            saddle = min(level[p], level[q])
            lower = min(peak[a], peak[b])
            # deeper borders stay deeper when basins are joined
            if a == b or lower - saddle >= (depth + WEIGHT * GAIN) * (lower - 1):
                continue
            if size == keys.size:
                keys = np.concatenate((keys, np.empty(size, np.int64)))
            keys[size] = (min(a, b) * np.int64(count + 1) + max(a, b)) * 256 + 255 - saddle
            size += 1
    keys = np.sort(keys[:size])
    kept = 0
    for i in range(size):  # of each pair the first, which has the highest saddle
        if i == 0 or keys[i] >> 8 != keys[i - 1] >> 8:
            keys[kept] = keys[i]
            kept += 1
    pairs = np.empty((kept, 3), np.int64)
    below = np.empty(kept, np.int64)
    for i in range(kept):
        pairs[i, 0], pairs[i, 1] = divmod(keys[i] >> 8, count + 1)
        pairs[i, 2] = 255 - (keys[i] & 255)
        below[i] = (min(peak[pairs[i, 0]], peak[pairs[i, 1]]) - pairs[i, 2]) * np.int64(kept) + i
    return pairs[np.argsort(below)]


@njit(nogil=True)
def _measure_rows(basin: Any, pixels: Any, root: Any, involved: Any, stride: int) -> Any:
    """First row, row after the last, and first and last column of each row, for each basin involved."""
    top = np.full(involved.size, 2**30, np.int32)
    bottom = np.zeros(involved.size, np.int32)
    for p in pixels:
        n = root[basin[p]]
        if involved[n]:
            y = p // stride
            top[n] = min(top[n], y)
            bottom[n] = max(bottom[n], y + 1)
    begin = np.zeros(involved.size, np.int64)
    size = 0
    for n in range(involved.size):
        if involved[n]:
            begin[n] = size
            size += bottom[n] - top[n]
    ends = np.empty((size, 2), np.int32)
    ends[:, 0] = stride
    ends[:, 1] = -1
    for p in pixels:
        n = root[basin[p]]
        if involved[n]:
            k, x = begin[n] + p // stride - top[n], p % stride
            ends[k, 0] = min(ends[k, 0], x)
            ends[k, 1] = max(ends[k, 1], x)
    return top, bottom, begin, ends


@njit(nogil=True)
def count_hull(ends: Any) -> Any:
    """Count the pixels whose centers lie in the convex hull of rows given by first and last column, (N, 2) int."""
    rows = ends.shape[0]
    chain = np.empty(rows, np.int64)
    pixels = rows
    for side in range(2):
        sign = 1 - 2 * side  # the right side is the left one mirrored
        size = 0
        for y in range(rows):
            while size > 1:
                u, v = chain[size - 2], chain[size - 1]
                cross = (ends[v, side] - ends[u, side]) * (y - u) - (ends[y, side] - ends[u, side]) * (v - u)
                if sign * cross < 0:
                    break
                size -= 1
            chain[size] = y
            size += 1
        for i in range(size):
            u, x = chain[i], np.int64(ends[chain[i], side])
            pixels -= sign * x
            if i + 1 < size:
                v = chain[i + 1]
                run, rise = np.int64(ends[v, side]) - x, v - u
                for y in range(1, rise):
                    # rounded towards the inside
                    pixels -= sign * x + -((-sign * run * y) // rise)
    return pixels
