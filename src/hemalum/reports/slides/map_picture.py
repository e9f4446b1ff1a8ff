"""A map of a slide as a picture: cells in even colors, a color bar with its unit, a scale bar, and notes."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hemalum.nuclei.io.colors import class_color
from hemalum.nuclei.store import Layer, SlideMaps
from hemalum.reports.figures.contact_sheet import FAINT, FRAME, GROUND, INK, LARGE, MARGIN, SMALL, SheetPen
from hemalum.reports.segmentation.histogram import ticks

# viridis (van der Walt & Smith, CC0): steps that look even, also to color-blind readers; dark is much, on white
SCALE = np.array(
    [
        (253, 231, 37), (216, 226, 25), (173, 220, 48), (132, 212, 75), (94, 201, 98), (63, 188, 115),
        (40, 174, 128), (31, 160, 136), (33, 145, 140), (38, 130, 142), (44, 114, 142), (51, 99, 141),
        (59, 82, 139), (66, 64, 134), (71, 45, 123), (72, 24, 106), (68, 1, 84),
    ],
    np.float64,
)  # fmt: skip
MOST = 760  # px, longer side of a map; a grid of more cells is merged
BAR, BAR_SIDE = 16, 130  # px: width of the color bar, and of the column that it stands in
BAR_LENGTHS = (25, 50, 100, 200, 500, 1000, 2000, 5000, 10000)  # µm of scale bars
BAR_SHARE = 0.25  # of the picture that a scale bar may take
EXTREMES = (1.0, 99.0)  # percentiles of a map at which colors end
NO_NUCLEI = (226, 226, 230)  # of 255: searched without a find
NO_CLASS = (214, 214, 218)  # of 255; one of the colors of classes is white
LEAST_WIDTH = 420  # px of a picture: its notes need room


@dataclass(frozen=True, slots=True)
class ColorRange:
    """The values at which the colors of a map begin and end, and whether some lie below and above."""

    low: float
    high: float
    below: bool = False
    above: bool = False


def draw_map(
    maps: SlideMaps, layer: Layer | str, *, title: str | None = None, limits: tuple[float, float] | None = None
) -> Image.Image:
    """Draw one of `maps.layers()`, also by its name, or "majority", the class that most nuclei of each cell have.

    `title` stands above it (default: the layer's); `limits` are the values at which colors begin and end, for maps of
    several slides that are to be compared. Raises ValueError for a name that the maps do not have.
    """
    factor = math.ceil(max(maps.shape) / MOST)
    shown = maps.coarser(factor)
    if layer == "majority":
        return _draw(
            shown, _class_pixels(shown), title or "Majority class", map_notes(shown, layer), _class_legend(shown)
        )
    wanted = layer if isinstance(layer, str) else layer.name
    chosen = next((one for one in shown.layers() if one.name == wanted), None)
    if chosen is None:
        raise ValueError(f"no map '{wanted}'")
    values = chosen.values
    if not maps.tissue_known:  # glass and tissue without nuclei look the same
        values = np.where(shown.counts > 0, values, np.nan).astype(np.float32)
    colors = color_range(chosen, values, limits)
    cells = color_values(values, colors)
    cells[np.isfinite(values) & (shown.counts == 0)] = NO_NUCLEI
    return _draw(shown, cells, title or chosen.title, map_notes(shown, wanted), colors, chosen)


def color_range(layer: Layer, values: NDArray[np.float32], limits: tuple[float, float] | None = None) -> ColorRange:
    """Where the colors of a map begin and end: round numbers around all but the last percent on each side."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if limits is not None:
        low, high = limits
    elif layer.fraction or not len(finite):
        low, high = 0.0, 1.0
    else:
        low, high = np.percentile(finite, EXTREMES).tolist()
        low = 0.0 if layer.from_zero else low
        low, high = _round_outward(low, high)
    if not len(finite):
        return ColorRange(low, high)
    return ColorRange(low, high, bool(finite.min() < low - 1e-6), bool(finite.max() > high + 1e-6))


def _round_outward(low: float, high: float) -> tuple[float, float]:
    """Multiples of 1, 2 or 5 times a power of ten around [low, high], some four steps apart."""
    span = high - low if high > low else max(abs(low), 1.0)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / 4 * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, max(last, first + 1) * step


def color_values(values: NDArray[np.float32], colors: ColorRange) -> NDArray[np.uint8]:
    """RGB (h, w, 3) of values (h, w); nan is white."""
    share = np.clip((values - colors.low) / (colors.high - colors.low), 0, 1) * (len(SCALE) - 1)
    known = np.isfinite(share)
    position = np.where(known, share, 0)
    channels = [np.interp(position, np.arange(len(SCALE)), SCALE[:, channel]) for channel in range(3)]
    return np.where(known[..., None], np.rint(np.stack(channels, axis=-1)), 255).astype(np.uint8)


def scale_bar(length_um: float) -> float:
    """A round length in µm for a picture `length_um` wide."""
    fitting = [length for length in BAR_LENGTHS if length <= BAR_SHARE * length_um]
    return float(fitting[-1] if fitting else BAR_LENGTHS[0])


def length_text(um: float) -> str:
    """A length in µm, or mm from 1 mm on."""
    return f"{um / 1000:g} mm" if um >= 1000 else f"{um:g} µm"


def _class_pixels(maps: SlideMaps) -> NDArray[np.uint8]:
    colors = np.array([NO_CLASS, *(class_color(n) for n in range(1, len(maps.class_names) + 1))], np.uint8)
    pixels: NDArray[np.uint8] = colors[maps.majority]
    return pixels


def _class_legend(maps: SlideMaps) -> list[tuple[tuple[int, int, int], str]]:
    named = [(class_color(number), name) for number, name in enumerate(maps.class_names, start=1)]
    return [*named, (NO_CLASS, "no nuclei")]


def map_notes(maps: SlideMaps, name: str) -> str:
    """What stands under the map `name`: its cells, what is white, and what its border means."""
    height, width = maps.side
    size = f"{width:.3g}" if f"{width:.3g}" == f"{height:.3g}" else f"{width:.3g} × {height:.3g}"
    text = f"Cells of {size} µm, not smoothed; a nucleus counts where its centroid lies."
    if name == "majority":
        return text
    if name != "density":
        return f"{text} White: no nuclei."
    if maps.tissue_known:
        text += " White: glass, or where none were looked for; gray: tissue without nuclei."
        return text + " Density is per area of the whole cell, so it is too low where tissue ends within one."
    text += " White: no nuclei (without the slide, glass is not told from tissue)."
    return text + " Density is per area of the whole cell, so it is too low where tissue ends within one."


def _draw(
    maps: SlideMaps, cells: NDArray[np.uint8], title: str, note: str, key: Any, layer: Layer | None = None
) -> Image.Image:
    """A map with its title, the color bar of `layer` or the legend `key`, a scale bar and notes."""
    rows, columns = maps.shape
    zoom = max(1, MOST // max(maps.shape))
    height, width = rows * zoom, columns * zoom
    pen = SheetPen()
    if layer is not None:
        side = BAR_SIDE
    else:
        side = max(BAR_SIDE, round(max(pen.length(name, SMALL) for _, name in key)) + 46)
    total = max(LEAST_WIDTH, 2 * MARGIN + width + side)
    notes = pen.wrap(note, total - 2 * MARGIN, SMALL)
    top = MARGIN + LARGE + 16
    foot = top + max(height, 120) + 12
    picture = Image.new("RGB", (total, foot + 34 + len(notes) * (SMALL + 6) + MARGIN // 2), GROUND)
    pen.draw = ImageDraw.Draw(picture)
    pen.text(MARGIN, MARGIN - 6, pen.fit(title, total - 2 * MARGIN, LARGE), LARGE, INK)
    picture.paste(Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST), (MARGIN, top))
    pen.draw.rectangle((MARGIN - 1, top - 1, MARGIN + width, top + height), outline=FRAME)
    left = MARGIN + width + 22
    if layer is not None:
        _draw_color_bar(picture, pen, (left, top, min(max(height, 120), 300)), key, layer)
    else:
        for number, (color, name) in enumerate(key):
            y = top + number * (SMALL + 12)
            pen.draw.rectangle((left, y, left + 15, y + 15), fill=color, outline=FAINT)
            pen.text(left + 24, y, name, SMALL, INK)
    length = scale_bar(columns * maps.side[1])
    pixels = length / maps.side[1] * zoom
    pen.draw.rectangle((MARGIN, foot + 6, MARGIN + pixels, foot + 9), fill=INK)
    pen.text(MARGIN + pixels + 10, foot, length_text(length), SMALL, INK)
    for number, line in enumerate(notes):
        pen.text(MARGIN, foot + 30 + number * (SMALL + 6), line, SMALL, FAINT)
    return picture


def _draw_color_bar(
    picture: Image.Image, pen: SheetPen, where: tuple[int, int, int], colors: ColorRange, layer: Layer
) -> None:
    """A color bar at left, top with a length, its unit above it and round numbers beside it."""
    left, top, length = where
    lines = pen.wrap(layer.unit, BAR_SIDE - 22, SMALL)
    for number, line in enumerate(lines):
        pen.text(left, top + number * (SMALL + 4), line, SMALL, INK)
    top, length = top + len(lines) * (SMALL + 4) + 8, length - len(lines) * (SMALL + 4) - 8
    ramp = np.linspace(colors.high, colors.low, length, dtype=np.float32)[:, None].repeat(BAR, axis=1)
    picture.paste(Image.fromarray(color_values(ramp, colors)), (left, top))
    for value in ticks(colors.low, colors.high, 4):
        y = top + round((length - 1) * (1 - (value - colors.low) / (colors.high - colors.low)))
        beyond = "≥ " if colors.above and value >= colors.high - 1e-9 else ""
        beyond = "≤ " if colors.below and value <= colors.low + 1e-9 else beyond
        pen.draw.line((left + BAR, y, left + BAR + 5, y), fill=INK)
        text = f"{100 * value:.0f} %" if layer.fraction else f"{value:,.10g}"
        pen.text(left + BAR + 9, y - SMALL // 2 - 2, beyond + text, SMALL, INK)
