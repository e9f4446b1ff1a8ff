"""Label maps of whole nuclei made neat: cuts between touching nuclei are straightened, spurs are taken off.

The flood decides what is one nucleus and leaves two marks of the maps' noise: its cuts are jagged, and a ridge of
foreground one or two pixels wide hangs on to the nucleus that reached it first. Both are mended here, once a nucleus
is final, so that the flood itself stays free of them: what a nucleus has claimed there decides what it leaves to
others, and what is made of it here only what is shown of it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemalum.compiled import njit
from hemalum.nuclei.polygons import first_pixels
from hemalum.nuclei.settings import SeparationSettings

Labels = NDArray[np.int32]

ROUNDS = 3  # of straightening: a cut moves by up to a pixel in each, a jag is gone after two
SPUR_LENGTH = 2  # widths that a spur is longer than: shorter ones are the pointed ends of nuclei
SPUR_SHARE = 0.1  # what a nucleus may lose: one that is thin to a larger part is a thin nucleus


def refine(labels: Labels, settings: SeparationSettings) -> Labels:
    """Give the label map (H, W) int32 with straight cuts and without spurs, ids in raster order of first pixel.

    Every nucleus of `labels` is one 4-connected piece and stays one; none goes. With `straighten` r, a pixel at the
    border of two nuclei goes to the other one where that has more pixels within r px. With `spur_width` w, what a
    square of w + 1 px does not reach inside a nucleus is taken off when it is longer than 2 w and a dead end.
    """
    if not (settings.straighten or settings.spur_width) or labels.size == 0:
        return labels
    refined = np.ascontiguousarray(labels).copy()
    if settings.straighten:
        _straighten(refined, _disc(settings.straighten), ROUNDS)
    if settings.spur_width:
        _remove_spurs(refined, settings.spur_width)
    numbers = np.zeros(int(refined.max()) + 1, np.int32)
    ids, _ = first_pixels(refined, numbers.size)
    numbers[ids] = np.arange(1, len(ids) + 1)
    return numbers[refined]


def _disc(radius: int) -> NDArray[np.int64]:
    """Offsets (N, 2) of the pixels within `radius`."""
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    inside = rows**2 + columns**2 <= radius**2 + radius  # rounder than a sharp radius
    return np.stack([rows[inside], columns[inside]], axis=1).astype(np.int64)


@njit(nogil=True)
def _straighten(labels: Any, disc: Any, rounds: int) -> None:
    """Move border pixels, in raster order, for some rounds; each goes over those that are at a border by then."""
    height, width = labels.shape
    flat = labels.ravel()
    border = _find_borders(labels)
    for _ in range(rounds):
        further = np.empty(4 * border.size, np.int64)
        size = 0
        for p in border:
            y, x = p // width, p % width
            label = flat[p]
            best = other = np.int32(0)
            most = 0
            for v, u in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
                if not (0 <= v < height and 0 <= u < width):
                    continue
                n = labels[v, u]
                if n == 0 or n in (label, other):
                    continue
                other = n
                label_pixels = other_pixels = 0
                for k in range(disc.shape[0]):
                    i, j = y + disc[k, 0], x + disc[k, 1]
                    if 0 <= i < height and 0 <= j < width:
                        label_pixels += labels[i, j] == label
                        other_pixels += labels[i, j] == other
                if other_pixels > label_pixels and other_pixels > most:
                    best, most = other, other_pixels
            if best and _can_leave(labels, y, x):
                labels[y, x] = best
                for v, u in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
                    if 0 <= v < height and 0 <= u < width and labels[v, u]:
                        further[size] = v * width + u
                        size += 1
        if size == 0:
            break
        border = np.unique(np.concatenate((border, further[:size])))


@njit(nogil=True)
def _find_borders(labels: Any) -> Any:
    """Pixels (N,) int64, in raster order, with another nucleus at one of their edges."""
    height, width = labels.shape
    border = np.zeros(height * width, np.bool_)
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label == 0:
                continue
            if x + 1 < width and labels[y, x + 1] != label and labels[y, x + 1] != 0:
                border[y * width + x] = border[y * width + x + 1] = True
            if y + 1 < height and labels[y + 1, x] != label and labels[y + 1, x] != 0:
                border[y * width + x] = border[(y + 1) * width + x] = True
    return np.flatnonzero(border)


@njit(nogil=True)
def _can_leave(labels: Any, y: int, x: int) -> bool:
    """Whether a nucleus stays one 4-connected piece without this pixel, by the eight pixels around it."""
    height, width = labels.shape
    label = labels[y, x]
    ring = np.zeros(8, np.bool_)
    for k in range(8):
        v = y + (-1, -1, -1, 0, 1, 1, 1, 0)[k]
        u = x + (-1, 0, 1, 1, 1, 0, -1, -1)[k]
        ring[k] = 0 <= v < height and 0 <= u < width and labels[v, u] == label
    # neighbors by edge are at 1, 3, 5, 7; two that follow each other are joined by the corner between them
    neighbors = joined = 0
    for k in range(1, 8, 2):
        neighbors += ring[k]
        joined += ring[k] and ring[(k + 1) % 8] and ring[(k + 2) % 8]
    return neighbors - joined == 1 or (neighbors == 4 and joined == 4)


@njit(nogil=True)
def _find_thick(labels: Any, side: int) -> Any:
    """Pixels of an opening with a square of `side` px, nucleus by nucleus, (H, W) uint8."""
    height, width = labels.shape
    # plain loops along rows over all pixels, so that they become vector instructions
    rows = np.zeros((height, width), np.uint8)  # such a run of one nucleus begins here
    for y in range(height):
        for x in range(width - side + 1):
            rows[y, x] = labels[y, x] > 0
        for k in range(1, side):
            for x in range(width - side + 1):
                rows[y, x] &= labels[y, x] == labels[y, x + k]
    squares = np.zeros((height, width), np.uint8)  # such a square begins here
    for y in range(height - side + 1):
        for x in range(width):
            squares[y, x] = rows[y, x]
        for k in range(1, side):
            for x in range(width):
                squares[y, x] &= rows[y + k, x] & (labels[y, x] == labels[y + k, x])
    thick = np.zeros((height, width), np.uint8)
    spread = np.zeros(width, np.uint8)
    for y in range(height - side + 1):
        spread[:] = 0
        for k in range(side):
            for x in range(width - side + 1):
                spread[x + k] |= squares[y, x]
        for k in range(side):
            for x in range(width):
                thick[y + k, x] |= spread[x]
    return thick


@njit(nogil=True)
def _remove_spurs(labels: Any, spur: int) -> None:
    height, width = labels.shape
    thick = _find_thick(labels, spur + 1)
    area = np.zeros(labels.max() + 1, np.int64)
    core = np.zeros(area.size, np.int64)
    for y in range(height):
        for x in range(width):
            area[labels[y, x]] += 1
            core[labels[y, x]] += thick[y, x]
    area[0] = 0
    allowed = area - (area * (1 - SPUR_SHARE)).astype(np.int64)
    stack = np.empty(int(max(area.max(), 1)), np.int64)
    seen = np.zeros((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label == 0 or thick[y, x] or seen[y, x] or core[label] == 0:
                continue
            size, length = _measure_thin(labels, thick, seen, y, x, stack)
            if length <= SPUR_LENGTH * spur or size > allowed[label]:
                continue
            for i in range(size):
                labels[stack[i] // width, stack[i] % width] = -label
            if _is_one_piece(labels, stack, size, area[label] - size, label):
                for i in range(size):
                    labels[stack[i] // width, stack[i] % width] = 0
                area[label] -= size
                allowed[label] -= size
            else:
                for i in range(size):
                    labels[stack[i] // width, stack[i] % width] = label


@njit(nogil=True)
def _measure_thin(labels: Any, thick: Any, seen: Any, y: int, x: int, stack: Any) -> Any:
    """Collect a 4-connected thin piece in `stack`; give its size and how far it reaches from the thick ones (px)."""
    height, width = labels.shape
    label = labels[y, x]
    stack[0] = y * width + x
    seen[y, x] = True
    size, done = 1, 0
    while done < size:
        v, u = stack[done] // width, stack[done] % width
        done += 1
        for i, j in ((v - 1, u), (v, u - 1), (v, u + 1), (v + 1, u)):
            if 0 <= i < height and 0 <= j < width and labels[i, j] == label and not thick[i, j] and not seen[i, j]:
                seen[i, j] = True
                stack[size] = i * width + j
                size += 1
    # layer by layer from the thick pixels: those of this piece that touch them first
    order = np.empty(size, np.int64)
    reached = np.zeros(size, np.bool_)
    piece = np.sort(stack[:size])
    ahead = 0
    for k in range(size):
        v, u = piece[k] // width, piece[k] % width
        for i, j in ((v - 1, u), (v, u - 1), (v, u + 1), (v + 1, u)):
            if 0 <= i < height and 0 <= j < width and labels[i, j] == label and thick[i, j] and not reached[k]:
                reached[k] = True
                order[ahead] = k
                ahead += 1
    length, done, layer = 0, 0, ahead
    while done < layer:
        length += 1
        while done < layer:
            p = piece[order[done]]
            done += 1
            for q in (p - width, p - 1, p + 1, p + width):
                k = np.searchsorted(piece, q)
                if k < size and piece[k] == q and not reached[k] and abs(p % width - q % width) <= 1:
                    reached[k] = True
                    order[ahead] = k
                    ahead += 1
        layer = ahead
    return size, length


@njit(nogil=True)
def _is_one_piece(labels: Any, spur: Any, size: int, left: int, label: int) -> bool:
    """Whether the `left` pixels of a nucleus are one 4-connected piece without its spur, which holds -label."""
    height, width = labels.shape
    begin = -1
    for k in range(size):
        v, u = spur[k] // width, spur[k] % width
        for i, j in ((v - 1, u), (v, u - 1), (v, u + 1), (v + 1, u)):
            if 0 <= i < height and 0 <= j < width and labels[i, j] == label:
                begin = i * width + j
    if begin < 0:
        return False
    piece = np.empty(left, np.int64)
    piece[0] = begin
    mark = np.int32(-(2**31) + 1)
    labels[begin // width, begin % width] = mark
    count, done = 1, 0
    while done < count:
        v, u = piece[done] // width, piece[done] % width
        done += 1
        for i, j in ((v - 1, u), (v, u - 1), (v, u + 1), (v + 1, u)):
            if 0 <= i < height and 0 <= j < width and labels[i, j] == label:
                labels[i, j] = mark
                piece[count] = i * width + j
                count += 1
    for k in range(count):
        labels[piece[k] // width, piece[k] % width] = label
    return count == left
