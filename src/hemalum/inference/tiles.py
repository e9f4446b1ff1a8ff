"""Windows: how an image is cut for the network. All lengths are in px at the model's scale.

All windows of an image have one size. A window is read with a halo on the sides where the image goes on,
so the network sees there what it would see in the whole image; at the image's own border there is none.
Each window answers for its core; the cores cover the image once. A network whose pixels depend on the whole input
gets windows of one size instead, that of its card (`models.windows`).
"""

from dataclasses import dataclass
from itertools import pairwise

from hemalum.models.card import Card
from hemalum.models.windows import Span, cut_windows, window_halo

WINDOW_AREA = 5_000_000  # px that the network sees at once, over all windows at work; about 100 bytes each
BAND_AREA = 8_000_000  # px of a band on the separation grid; two are held, 11 bytes per px (15 with classes)


@dataclass(frozen=True, slots=True)
class Grid:
    """Windows as the product of spans of rows and columns; `rows` are the bands, from top to bottom.

    `window` is the size of windows of one size (`exact_windows`), which reach beyond a smaller image; else None.
    """

    rows: list[Span]
    columns: list[Span]
    window: int | None = None

    @property
    def cost(self) -> int:
        """Pixels that the network sees in all."""
        return sum(span.stop - span.start for span in self.rows) * sum(
            span.stop - span.start for span in self.columns
        )


def cut(length: int, parts: int, halo: int, stride: int) -> list[Span]:
    """Cut 0..length into `parts` spans of equal length, starts and lengths multiples of `stride`.

    `length` and `halo` are multiples of stride. Gives fewer spans when the halo leaves no room for so many.
    """
    cells, border = length // stride, halo // stride
    # n spans that overlap by two halos: n · size - (n - 1) · 2 · halo >= length
    parts = max(1, min(parts, cells - 2 * border))
    size = min(cells, -(-(cells + (parts - 1) * 2 * border) // parts))
    if parts == 1 or size == cells:
        return [Span(0, length, 0, length)]
    starts = [index * (cells - size) // (parts - 1) for index in range(parts)]
    edges = [0, *(start + border for start in starts[1:]), cells]
    return [
        Span(start * stride, (start + size) * stride, core * stride, core_stop * stride)
        for start, (core, core_stop) in zip(starts, pairwise(edges), strict=True)
    ]


def plan_grid(card: Card, shape: tuple[int, int], *, reach: int, upsampling: int, parallel: int = 1) -> Grid:
    """Windows of a model for an image of (h, w) px at its scale.

    `reach` px around a pixel decide its peak. A px is `upsampling` px of the separation grid wide. `parallel` windows
    are at work at once.
    """
    if card.window is not None:
        return exact_windows(shape, card.window, stride=card.stride, reach=reach)
    return plan_windows(
        shape,
        halo=card.halo + reach,
        stride=card.stride,
        area=WINDOW_AREA // parallel,
        band_area=BAND_AREA // upsampling**2,
    )


def exact_windows(shape: tuple[int, int], window: int, *, stride: int, reach: int) -> Grid:
    """Windows of exactly `window` px a side for an image of (h, w) px; see `models.windows`."""
    halo = window_halo(window, stride, reach)
    return Grid(cut_windows(shape[0], window, halo), cut_windows(shape[1], window, halo), window)


def plan_windows(shape: tuple[int, int], *, halo: int, stride: int, area: int, band_area: int) -> Grid:
    """Choose the cheapest windows for an image of (h, w) px; its sides and `halo` are made up to whole strides.

    A window has at most `area` px and a band (one row of windows) at most `band_area`, unless that made
    windows flatter than six halos: then the cost of the halo weighs more than the memory.
    """
    height, width, halo = (length + -length % stride for length in (*shape, halo))
    flattest = 6 * halo + stride
    best: tuple[bool, int, Grid] | None = None
    for parts in range(1, width // stride + 1):
        columns = cut(width, parts, halo, stride)
        wide = columns[0].stop - columns[0].start
        if parts > 1 and (len(columns) < parts or wide < flattest):
            break
        rows = _at_most(max(min(area // wide, band_area // width), flattest), height, halo, stride)
        grid = Grid(rows, columns)
        choice = ((rows[0].stop - rows[0].start) * wide > area, grid.cost, grid)
        if best is None or choice[:2] < best[:2]:
            best = choice
    if best is None:
        raise ValueError(f"no windows for {height} x {width} px at stride {stride}")
    return best[2]


def _at_most(limit: int, length: int, halo: int, stride: int) -> list[Span]:
    """The fewest equal spans of at most `limit` px, where the halo leaves room for them."""
    parts = max(1, -(-(length - 2 * halo) // max(limit - 2 * halo, 1)))
    while True:
        spans = cut(length, parts, halo, stride)
        # starts and lengths are whole strides, which may cost one span more
        if spans[0].stop - spans[0].start <= limit or len(spans) < parts:
            return spans
        parts += 1
