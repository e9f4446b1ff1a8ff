"""Images that a split has to keep together: tiles that were cut from one field, and copies of one image.

Published sets of tiles often do not say which tiles are neighbors (2018 Data Science Bowl). Across a cut,
values and slope go on: the last columns of the left tile continue in the first columns of the right one.
Two tiles are taken as neighbors when their edges agree better than with any other tile, and well enough
(Lin's concordance of values and of slopes, mean > 0.5). On that set this finds 437 pairs, and 74 when the
facing tile is mirrored, where no true neighbor can be: about one in six is chance, nearly all of them among
small fluorescence tiles with few nuclei. A wrong pair only makes a group larger; a missed one is a leak.

Copies that were re-encoded, resized, flipped or turned are recognized by thumbnails.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

AGREEMENT = 0.5
SIDE = 16  # of a thumbnail, px
SAME_SCENE = 0.95  # correlation of 16x16 thumbnails: frames of one scene; different fields stay below 0.9
SLOPES_PX = (1, 3)  # one for sharp images, one for noisy ones; the better counts
NOISE = 8.0  # gray levels squared: keeps flat edges from agreeing with each other
BLOCK = 512  # images compared at a time
# Correlation of thumbnails. Among the tiles of TNBC, NuInsSeg, CoNSeP and DSB2018 no two that differ reach 0.9
# (tests/data/test_near_duplicates.py); two fields of DSB2018 that are one come to 0.984, JPEG copies to 0.999.
ALIKE = 0.98
FLAT = 1.0  # gray levels (standard deviation): nearly blank images are alike without being the same


@dataclass(frozen=True)
class Edges:
    """(length,) float32 gray values and (2, length) slopes along the four sides; a (16, 16) gray thumbnail."""

    values: dict[str, NDArray[np.float32]]
    slopes: dict[str, NDArray[np.float32]]
    thumbnail: NDArray[np.float32]


def edges_of(image: NDArray[np.uint8]) -> Edges:
    """What `same_field` and `same_content` need to know of an image (H, W, 3) uint8."""
    picture = Image.fromarray(image).convert("L")
    gray = np.asarray(picture, np.float32)
    values = {"top": gray[0], "bottom": gray[-1], "left": gray[:, 0], "right": gray[:, -1]}
    lines = {"top": gray, "bottom": gray[::-1], "left": gray.T, "right": gray.T[::-1]}
    # slopes run down and to the right on both sides of a cut
    signs = {"top": 1, "bottom": -1, "left": 1, "right": -1}
    slopes = {
        side: np.stack([signs[side] * (inward[min(step, len(inward) - 1)] - inward[0]) for step in SLOPES_PX])
        for side, inward in lines.items()
    }
    thumbnail = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    copies = {side: value.copy() for side, value in values.items()}
    return Edges(copies, slopes, thumbnail)


def same_field(edges: Sequence[Edges], categories: Sequence[Hashable]) -> list[int]:
    """For each tile the index of the first tile of its field (itself when it has no neighbor).

    Only tiles of the same kind (`categories[i]`, e.g. stain and size) and the same shape are compared.
    """
    first = list(range(len(edges)))

    def root(index: int) -> int:
        while first[index] != index:
            first[index] = first[first[index]]
            index = first[index]
        return index

    comparable: dict[Hashable, list[int]] = defaultdict(list)
    for index, (edge, category) in enumerate(zip(edges, categories, strict=True)):
        comparable[(category, len(edge.values["top"]), len(edge.values["left"]))].append(index)
    for members in comparable.values():
        tiles = [edges[index] for index in members]
        pairs = [
            *_neighbors(tiles, "right", "left"),
            *_neighbors(tiles, "bottom", "top"),
            *_same_scene(tiles),
        ]
        for one, other in pairs:
            low, high = sorted((root(members[one]), root(members[other])))
            first[high] = low
    return [root(index) for index in range(len(edges))]


def _neighbors(tiles: Sequence[Edges], side: str, facing: str) -> list[tuple[int, int]]:
    """Pairs whose `side` and `facing` edges are each other's best match and agree well enough."""
    count = len(tiles)
    best_of_row = np.full(count, -1)
    best_of_column, column_score = np.full(count, -1), np.full(count, -np.inf)
    row_score = np.full(count, -np.inf)
    edges, opposite = _stack(tiles, side), _stack(tiles, facing)
    for start in range(0, count, BLOCK):
        rows = slice(start, min(start + BLOCK, count))
        value, *slopes = (_concordance(a[rows], b) for a, b in zip(edges, opposite, strict=True))
        score = (value + np.maximum.reduce(slopes)) / 2
        numbers = np.arange(rows.start, rows.stop)
        score[numbers - start, numbers] = -np.inf
        best_of_row[rows], row_score[rows] = score.argmax(axis=1), score.max(axis=1)
        better = score.max(axis=0) > column_score
        best_of_column[better] = score.argmax(axis=0)[better] + start
        column_score[better] = score.max(axis=0)[better]
    return [
        (row, int(column))
        for row, column in enumerate(best_of_row)
        if row_score[row] > AGREEMENT and best_of_column[column] == row
    ]


def _stack(tiles: Sequence[Edges], side: str) -> list[NDArray[np.float32]]:
    """The values and each of the slopes along one side, (tiles, length) each."""
    slopes = [np.stack([tile.slopes[side][index] for tile in tiles]) for index in range(len(SLOPES_PX))]
    return [np.stack([tile.values[side] for tile in tiles]), *slopes]


def _concordance(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, m) Lin's concordance of the rows of a (n, length) with those of b (m, length)."""
    mean_a, mean_b = a.mean(axis=1), b.mean(axis=1)
    covariance = (a - mean_a[:, None]) @ (b - mean_b[:, None]).T / np.float32(a.shape[1])
    spread = a.var(axis=1)[:, None] + b.var(axis=1)[None] + (mean_a[:, None] - mean_b[None]) ** 2
    agreement: NDArray[np.float32] = 2 * covariance / (spread + np.float32(NOISE))
    return agreement


def _same_scene(tiles: Sequence[Edges]) -> list[tuple[int, int]]:
    thumbnails = np.stack([_unit(tile.thumbnail) for tile in tiles])
    pairs = []
    for start in range(0, len(tiles), BLOCK):
        alike = thumbnails[start : start + BLOCK] @ thumbnails.T > SAME_SCENE
        pairs += [(int(i) + start, int(j)) for i, j in np.argwhere(alike) if i + start < j]
    return pairs


def _unit(thumbnail: NDArray[np.float32]) -> NDArray[np.float32]:
    centered = thumbnail.ravel() - thumbnail.mean()
    unit: NDArray[np.float32] = centered / np.float32(max(float(np.linalg.norm(centered)), 1e-6))
    return unit


def same_content(edges: Sequence[Edges]) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, of images whose thumbnails correlate at 0.98 or more, as they are, flipped or turned.

    Nearly blank ones are passed over.
    """
    structured = [index for index, edge in enumerate(edges) if edge.thumbnail.std() >= FLAT]
    if not structured:
        return
    stack = np.stack([edges[index].thumbnail for index in structured])
    variants = [
        np.stack([_unit(np.rot90(image, turn)) for image in flipped])
        for flipped in (stack, stack[..., ::-1])
        for turn in range(4)
    ]
    for start in range(0, len(stack), BLOCK):
        block = variants[0][start : start + BLOCK]
        alike = np.any([block @ variant.T >= ALIKE for variant in variants], axis=0)
        for row, column in np.argwhere(alike):
            if start + row < column:
                yield structured[start + row], structured[column]
