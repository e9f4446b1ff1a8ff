"""Histograms as inline SVG, drawn by hand: no plotting library, no script, readable when printed."""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from hemalum.errors import counted

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 14, 44
_MOST_BINS = 32
PERCENTILES = (0.5, 25, 75, 99.5)
# for readers that do not apply a page's style to what is drawn in it; a style sheet overrides these
_STROKES = {
    "grid": 'stroke="#ddd6e6"',
    "axis": 'stroke="#5f5770"',
    "median": 'stroke="#e0932f" stroke-width="2" stroke-dasharray="4 3"',
}


def bin_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges of equal bins (Freedman-Diaconis, 1981) between the 0.5th and 99.5th percentile, at most 32 bins.

    `values` is (N,) with at least one entry, all finite. The tails outside are counted in the outermost bins.
    """
    return equal_bins(np.percentile(values, PERCENTILES).tolist(), len(values))


def equal_bins(percentiles: Sequence[float], total: int) -> NDArray[np.float64]:
    """The same for `total` values whose `PERCENTILES` are known."""
    low, quarter, three, high = percentiles
    if high - low <= 1e-12 * max(1.0, abs(high)):
        half = max(abs(low) * 0.05, 0.5)
        return np.array([low - half, low + half])
    step = 2 * (three - quarter) / total ** (1 / 3)
    # compared before dividing: the quartiles of discrete values may be (next to) equal
    count = _MOST_BINS if step * _MOST_BINS <= high - low else math.ceil((high - low) / step)
    return np.linspace(low, high, min(max(count, 5), _MOST_BINS) + 1, dtype=np.float64)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high], at most `most` + 1."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(step * k, 12) for k in range(first, last + 1)]


def histogram_svg(values: NDArray[np.float64], label: str) -> Markup:
    """One histogram with its median marked, as an SVG element with a title for screen readers.

    `values` is (N,); what is not finite is left out. `label` names the quantity with its unit.
    """
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Markup('<p class="none">{}: no values</p>').format(label)
    edges = bin_edges(values)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return bars_svg(edges, counts, float(np.median(values)), label)


def bars_svg(edges: NDArray[np.float64], counts: NDArray[np.int64], median: float, label: str) -> Markup:
    """The same of what was counted before: `counts` (K,) between `edges` (K + 1,)."""
    first, last = float(edges[0]), float(edges[-1])
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    top = max(int(counts.max()), 1)

    def x(value: float) -> float:
        return LEFT + across * (value - first) / (last - first)

    def y(count: float) -> float:
        return TOP + up * (1 - count / top)

    title = f"Histogram of {label}: {counted(int(counts.sum()), 'nucleus')}, median {median:.4g}"
    parts = [
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="11" fill="#5f5770" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
    ]
    for tick in ticks(0, top, 4):
        if tick == int(tick):
            parts.append(_line("grid", LEFT, y(tick), WIDTH - RIGHT, y(tick)))
            parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{int(tick):,}</text>')
    for count, left, right in zip(counts, edges[:-1], edges[1:], strict=True):
        width = max(x(right) - x(left) - 1, 0.5)
        parts.append(
            f'<rect fill="#8f74bd" x="{x(left) + 0.5:.1f}" y="{y(count):.1f}" width="{width:.1f}" '
            f'height="{TOP + up - y(count):.1f}"/>'
        )
    for tick in ticks(first, last, 6):
        parts.append(f'<text x="{x(tick):.1f}" y="{TOP + up + 16}" text-anchor="middle">{tick:g}</text>')
    at = min(max(x(median), LEFT), WIDTH - RIGHT)
    parts += [
        _line("axis", LEFT, TOP + up, WIDTH - RIGHT, TOP + up),
        _line("median", at, TOP - 6, at, TOP + up),
        f'<text class="label" x="{LEFT + across / 2}" y="{HEIGHT - 8}" text-anchor="middle">',
        f"{escape(label)}</text>",
        "</svg>",
    ]
    return Markup("".join(parts))


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" {_STROKES[kind]} x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
