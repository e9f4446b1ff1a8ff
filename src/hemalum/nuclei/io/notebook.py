"""How a result shows itself in a notebook: a small picture of the outlines, and the figures beside it."""

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemalum.nuclei.polygons import Polygons, fill

if TYPE_CHECKING:
    from hemalum.nuclei.nuclei import Nuclei

SIDE = 320  # px, the longer side of the picture
INK, PAPER = (68, 51, 122), (250, 249, 247)


def show_in_notebook(nuclei: "Nuclei") -> str:
    """A result as HTML: its outlines in the colors of grades or classes, and its figures."""
    classes = nuclei.intensities or nuclei.classes
    colors = None if classes is None else np.array([INK, *classes.colors], np.uint8)[classes.numbers]
    return as_html(outline_picture(nuclei.outlines, nuclei.shape, colors), facts_of(nuclei))


def facts_of(nuclei: "Nuclei") -> dict[str, str]:
    """What a result says of itself beside its picture."""
    facts = {"nuclei": f"{len(nuclei):,}"}
    for classes in (nuclei.classes, nuclei.intensities):
        facts |= {} if classes is None else {name: f"{count:,}" for name, count in classes.counts.items()}
    if nuclei.mpp is not None:
        estimated = " (of an estimated scale)" if nuclei.mpp_source == "estimate" else ""
        facts["scale"] = f"{nuclei.mpp:.4g} µm/px, {nuclei.mpp_source}"
        facts["density"] = f"{nuclei.density_per_mm2:,.0f} per mm²{estimated}"
        if len(nuclei):
            facts["median area"] = f"{np.median(nuclei.table.column('area_um2').to_numpy()):.1f} µm²{estimated}"
    image = None if nuclei.source is None else Path(nuclei.source).name  # its folders are nobody else's business
    known = {"image": image, "model": nuclei.model}
    return facts | {name: value for name, value in known.items() if value is not None}


def outline_picture(outlines: Polygons, shape: tuple[int, int], colors: NDArray[np.uint8] | None = None) -> bytes:
    """A PNG of nuclei filled with `colors` (N, 3) uint8, or one color, at most `SIDE` px a side."""
    height, width = shape
    factor = min(1.0, SIDE / max(height, width, 1))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    labels = fill(outlines.scaled(size[1] / max(width, 1), size[0] / max(height, 1)), size)
    palette = np.empty((len(outlines) + 1, 3), np.uint8)
    palette[1:] = INK if colors is None else colors
    palette[0] = PAPER
    buffer = io.BytesIO()
    Image.fromarray(palette[labels]).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def as_html(picture: bytes, facts: Mapping[str, Any]) -> str:
    """Picture and facts side by side, as a notebook shows them; texts are escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    data = base64.b64encode(picture).decode()
    return (
        "<div style='display:flex;gap:16px;align-items:flex-start'>"
        f"<img alt='outlines of the nuclei' style='border:1px solid #ddd' src='data:image/png;base64,{data}'>"
        f"<table>{rows}</table></div>"
    )
