"""The two fixed grids that an image is cut by: tiles for the network, cells for separation.

All lengths are px at the model's scale. Where tiles and cells lie follows from the image's size and the model alone,
never from what is segmented when or by whom: so does every map and every nucleus.

A tile is what the network sees at once. It answers for its core, the window without a halo on the sides where the
image goes on; the cores cover the image once. At the right and lower border the last window is moved back into the
image. A cell is what is separated at once, from the maps of its core and a halo around it; a nucleus belongs to the
cell whose core holds its peak.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

from hemalum.models.card import Card
from hemalum.models.windows import Span, cut_windows, window_halo

CELL = 1024  # px
CELL_HALO = 96  # px: with 64 some differ (benchmarks/seams.py)


@dataclass(frozen=True, slots=True)
class Box:
    """Rows top..bottom and columns left..right of an image at the model's scale."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def grown(self, by: int, shape: tuple[int, int]) -> "Box":
        """The box and `by` px around it, inside an image of (h, w) px."""
        return Box(
            max(self.top - by, 0), max(self.left - by, 0),
            min(self.bottom + by, shape[0]), min(self.right + by, shape[1]),
        )  # fmt: skip

    def meet(self, other: "Box") -> "Box":
        """What two boxes have in common."""
        return Box(
            max(self.top, other.top), max(self.left, other.left),
            min(self.bottom, other.bottom), min(self.right, other.right),
        )  # fmt: skip

    def slices(self, origin: "Box", scale: int = 1) -> tuple[slice, slice]:
        """Rows and columns of this box in an array that begins at the corner of `origin`, `scale` times as fine."""
        return (
            slice((self.top - origin.top) * scale, (self.bottom - origin.top) * scale),
            slice((self.left - origin.left) * scale, (self.right - origin.left) * scale),
        )


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Tiles as the product of spans of rows and columns.

    `window` is the side of windows of one size (the card's), which is mirrored beyond a smaller image; else None.
    """

    rows: list[Span]
    columns: list[Span]
    window: int | None = None

    @property
    def side(self) -> int:
        """Longest side of what the network sees of a tile, px."""
        return max(span.stop - span.start for span in (*self.rows, *self.columns))

    def over(self, box: Box) -> Iterator[tuple[int, int]]:
        """Row and column numbers of the tiles whose cores meet a box."""
        return product(_over(self.rows, box.top, box.bottom), _over(self.columns, box.left, box.right))

    def core(self, tile: tuple[int, int]) -> Box:
        """What a tile answers for."""
        row, column = self.rows[tile[0]], self.columns[tile[1]]
        return Box(row.core_start, column.core_start, row.core_stop, column.core_stop)

    def seen(self, tile: tuple[int, int]) -> Box:
        """What the network sees of a tile; it may go beyond the image."""
        row, column = self.rows[tile[0]], self.columns[tile[1]]
        return Box(row.start, column.start, row.stop, column.stop)


def _over(spans: list[Span], start: int, stop: int) -> list[int]:
    return [number for number, span in enumerate(spans) if span.core_start < stop and span.core_stop > start]


def plan_tiles(card: Card, shape: tuple[int, int], *, reach: int) -> TileGrid:
    """Tiles of a model for an image of (h, w) px at its scale; `reach` px around a pixel decide its peak."""
    if card.window is not None:
        halo = window_halo(card.window, card.stride, reach)
        return TileGrid(
            cut_windows(shape[0], card.window, halo), cut_windows(shape[1], card.window, halo), card.window
        )
    halo = min(card.halo, card.tiling.halo) + reach
    window = max(card.tiling.window, 4 * halo)
    window += -window % card.stride
    rows, columns = (cut_tiles(length, window, halo, card.stride) for length in shape)
    return TileGrid(rows, columns)


def cut_tiles(length: int, window: int, halo: int, stride: int) -> list[Span]:
    """Cut 0..length into spans of `window` px, a multiple of stride, that overlap by two halos, the last one by more.

    A span that is the only one, or the last one, ends at a whole stride, which may be beyond the image.
    """
    padded = length + -length % stride
    if padded <= window:
        return [Span(0, padded, 0, length)]
    step = window - 2 * halo
    starts = [0]
    while starts[-1] + window < padded and starts[-1] + window - halo < length:
        starts.append(min(starts[-1] + step, padded - window))
    edges = [0, *(number * step + halo for number in range(1, len(starts))), length]
    return [
        Span(start, start + window, core, core_stop)
        for start, (core, core_stop) in zip(starts, pairwise(edges), strict=True)
    ]


def cut_cells(shape: tuple[int, int], side: int = CELL) -> list[list[Box]]:
    """Cores of the cells of an image of (h, w) px, row by row: as many as `side` px fill, all of nearly one size."""
    rows, columns = ([length * n // -(-length // side) for n in range(-(-length // side) + 1)] for length in shape)
    return [[Box(top, left, bottom, right) for left, right in pairwise(columns)] for top, bottom in pairwise(rows)]
