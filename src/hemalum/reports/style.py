"""Matplotlib held to what the report needs: SVG with real text, the same bytes for the same results."""

import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hemalum.errors import HemalumError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette in an order in which neighbors also differ in lightness; told apart by color-blind
# readers, on white and on dark paper
COLORS = ("#0072b2", "#e07b00", "#00936a", "#c25b9c", "#6a51a3", "#2a9fd6", "#8c6d1f", "#6f6f6f")
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, SOFT, LINE = "#221b2e", "#5f5770", "#ddd6e6"
# matplotlib writes plain colors; the page replaces these by its own, light or dark
VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", **{c: f"method-{n}" for n, c in enumerate(COLORS)}}
FONT = "'DejaVu Sans', Verdana, 'Segoe UI', system-ui, sans-serif"
SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text: searchable, and sharp at every size
    "svg.hashsalt": "hemalum",  # ids from content, not from chance
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that layouts do not depend on the machine
    "font.size": 9,
    "text.parse_math": False,  # a $ in a name is a $
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True, slots=True)
class SvgFigure:
    """A finished figure: `svg` is a whole file; `caption` stands under it, `alt_text` is read aloud instead of it."""

    name: str
    caption: str
    alt_text: str
    svg: str


def has_matplotlib() -> bool:
    """Whether figures can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def require_report() -> None:
    """Raises HemalumError when the figures cannot be drawn because matplotlib is not installed."""
    if not has_matplotlib():
        raise HemalumError("a report needs matplotlib: pip install 'hemalum[report]'")


def draw(size: tuple[float, float], paint: Callable[["Figure"], None]) -> str:
    """The SVG file of a figure of `size` inches that `paint` has drawn on, whatever the user's matplotlibrc says."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        # a name in a script that the font lacks is drawn by the reader's browser, which has it
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _tidy(stream.getvalue())


def _tidy(svg: str) -> str:
    """One svg element without prolog, metadata and style sheet, which would reach out into a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*</defs>", "", svg)
    svg = svg.replace("'DejaVu Sans'", FONT).replace("xlink:href", "href")
    svg = svg.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    return svg.replace("<svg ", '<svg stroke-linejoin="round" stroke-linecap="butt" ', 1)


def inline(figure: SvgFigure, prefix: str) -> str:
    """The svg element for a page: ids made the figure's own, colors the page's, with a title to be read aloud."""
    from markupsafe import escape

    def localize(tag: re.Match[str]) -> str:
        text = tag.group()
        for before in ('id="', 'href="#', "url(#"):
            text = text.replace(before, f"{before}{prefix}-")
        for color, name in VARIABLES.items():
            text = text.replace(color, f"var(--{name})")
        return text

    # only tags: what stands between them is text, and some of it the user's
    svg = re.sub(r"<[^>]+>", localize, figure.svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1)
    svg = svg.replace("<svg ", f'<svg role="img" aria-labelledby="{prefix}-said" ', 1)
    end = svg.index(">") + 1
    return f'{svg[:end]}<title id="{prefix}-said">{escape(figure.alt_text)}</title>{svg[end:].strip()}'


def color_of(position: int) -> str:
    """The color of the method at `position`, the same in every figure."""
    return COLORS[position % len(COLORS)]


def dash_of(position: int) -> Any:
    """A dash pattern, so that the methods can be told apart without color."""
    # shifted by one with each round of the colors, so that none comes back with the same dash
    return DASHES[(position + position // len(COLORS)) % len(DASHES)]


def marker_of(position: int) -> str:
    """A marker, likewise."""
    return MARKERS[(position + position // len(COLORS)) % len(MARKERS)]


def short(title: str, most: int = 30) -> str:
    """A title that fits a figure; a leading underscore would hide it from a legend."""
    title = " ".join(title.split()) or "–"
    title = title if len(title) <= most else title[: most - 1].rstrip() + "…"
    return f" {title}" if title.startswith("_") else title


def spread(count: int, width: float) -> Sequence[float]:
    """Offsets that keep points of a strip apart: the golden ratio's sequence, even and the same every time."""
    golden = (5**0.5 - 1) / 2
    return [width * ((k * golden) % 1 - 0.5) for k in range(count)]
