"""4-connected components of the foreground as runs of pixels: labeled in one pass, sorted by component."""

from typing import Any

import numpy as np

from hemalum.compiled import njit


@njit(nogil=True)
def find_runs(foreground: Any, threshold: Any) -> Any:
    """Row, start and stop of each run of foreground, in raster order, (N, 3) int32."""
    height, width = foreground.shape
    runs: Any = np.empty((4096, 3), np.int32)
    count = 0
    for y in range(height):
        if count + width // 2 + 1 > runs.shape[0]:
            runs = np.concatenate((runs, np.empty((runs.shape[0] + width, 3), np.int32)))
        x = 0
        while x < width:
            if not foreground[y, x] >= threshold:
                x += 1
                continue
            runs[count, 0] = y
            runs[count, 1] = x
            while x < width and foreground[y, x] >= threshold:
                x += 1
            runs[count, 2] = x
            count += 1
    return runs[:count]


@njit(nogil=True)
def find_root(root: Any, a: int) -> int:
    while root[a] != a:
        root[a] = root[root[a]]
        a = root[a]
    return a


@njit(nogil=True)
def join_runs(runs: Any) -> Any:
    """Component of each run, and of each component the box (top, bottom, left, right), area and holes.

    Components are 4-connected and count in raster order. Runs and their contacts are a planar graph, so each
    contact beyond those of a tree closes round one hole.
    """
    count = runs.shape[0]
    root = np.arange(count).astype(np.int32)
    holes = np.zeros(count, np.int32)
    above, current = 0, 0
    while current < count:
        row = runs[current, 0]
        end = current
        while end < count and runs[end, 0] == row:
            end += 1
        a, b = above, current
        if above < current and runs[above, 0] != row - 1:
            a = current
        while a < current and b < end:
            if runs[a, 1] < runs[b, 2] and runs[b, 1] < runs[a, 2]:
                i, j = find_root(root, a), find_root(root, b)
                if i == j:
                    holes[b] += 1
                else:
                    root[max(i, j)] = min(i, j)
            if runs[a, 2] <= runs[b, 2]:
                a += 1
            else:
                b += 1
        above, current = current, end

    component = np.empty(count, np.int32)
    boxes = np.empty((count, 6), np.int64)
    n = 0
    for r in range(count):
        y, x0, x1 = runs[r, 0], runs[r, 1], runs[r, 2]
        if root[r] == r:
            c = n
            n += 1
            boxes[c, 0], boxes[c, 1], boxes[c, 2], boxes[c, 3] = y, y + 1, x0, x1
            boxes[c, 4] = boxes[c, 5] = 0
        else:
            c = component[find_root(root, r)]
        component[r] = c
        boxes[c, 1] = y + 1
        boxes[c, 2] = min(boxes[c, 2], x0)
        boxes[c, 3] = max(boxes[c, 3], x1)
        boxes[c, 4] += x1 - x0
        boxes[c, 5] += holes[r]
    return component, boxes[:n]


@njit(nogil=True)
def sort_runs(component: Any, components: int) -> Any:
    """Runs in order of component, raster order within, and where each component begins."""
    begin = np.zeros(components + 1, np.int64)
    for c in component:
        begin[c + 1] += 1
    for c in range(components):
        begin[c + 1] += begin[c]
    next_slot = begin.copy()
    order = np.empty(component.size, np.int32)
    for r in range(component.size):
        order[next_slot[component[r]]] = r
        next_slot[component[r]] += 1
    return order, begin
