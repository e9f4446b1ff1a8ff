"""Microns per pixel as image files state them: OME-XML, ImageJ, slide scanners' text, resolution tags."""

import logging
import math
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException, ElementTree

from hemalum.data.image import is_tiff, stated_dpi

log = logging.getLogger(__name__)

# a resolution tag is believed only where a microscope could have written it: 72, 96 or 300 dpi are what
# programs put when they know nothing, and mean 353, 265 and 85 µm per pixel
PLAUSIBLE = (0.05, 5.0)

Scale = tuple[float, float]  # µm per px in x and y

MICRONS = {
    "µm": 1.0,  # micro sign
    "μm": 1.0,  # Greek mu
    "um": 1.0,
    "\\u00b5m": 1.0,  # ImageJ writes the escape
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "nm": 1e-3,
    "pm": 1e-6,
    "å": 1e-4,
    "mm": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "inch": 25400.0,
    "in": 25400.0,
}


def tiff_scale(tiff: Any) -> Scale | None:
    """Give µm per px in x and y that a `tifffile.TiffFile` states for its first page, or None.

    A resolution tag counts only where a microscope could have written it.
    """
    page = tiff.pages[0]
    if tiff.is_ome:
        return _both(*_ome_sizes(tiff.ome_metadata or ""))
    if tiff.is_svs:
        stated = re.search(r"\bMPP\s*=\s*([0-9.]+)", page.description)
        mpp = _positive(stated.group(1)) if stated else None
        return _both(mpp, mpp)
    unit = page.tags.valueof("ResolutionUnit", 2)
    per_x, per_y = (_ratio(page.tags.valueof(name)) for name in ("XResolution", "YResolution"))
    if per_x is None or per_y is None:
        return None
    if tiff.is_imagej:
        named = str((tiff.imagej_metadata or {}).get("unit", "")).strip().lower()
        return (MICRONS[named] / per_x, MICRONS[named] / per_y) if named in MICRONS else None
    microns = {2: 25400.0, 3: 1e4}.get(int(unit))
    return believed((microns / per_x, microns / per_y)) if microns else None


def file_scale(path: Path) -> Scale | None:
    """Give µm per px in x and y that an image file states, or None."""
    if is_tiff(path):
        import tifffile  # kept out of the import of the package: it costs 0.1 s

        with tifffile.TiffFile(path) as tiff:
            return tiff_scale(tiff)
    dpi = stated_dpi(path)
    return believed((25400 / dpi[0], 25400 / dpi[1])) if dpi else None


def tiff_mpp(tiff: Any, path: Path) -> float | None:
    """Give the mpp that a `tifffile.TiffFile` states for its first page, or None."""
    return _mean(tiff_scale(tiff), path)


def file_mpp(path: Path) -> float | None:
    """Give the mpp that an image file states, or None."""
    return _mean(file_scale(path), path)


def believed(scale: Scale) -> Scale | None:
    """The scale of resolution tags, or None when no microscope could have meant it."""
    return scale if PLAUSIBLE[0] <= math.sqrt(scale[0] * scale[1]) <= PLAUSIBLE[1] else None


def _ome_sizes(text: str) -> tuple[float | None, float | None]:
    try:
        root = ElementTree.fromstring(text)
    except (ParseError, DefusedXmlException):
        return None, None
    pixels = next((node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return None, None
    sizes = []
    for axis in "XY":
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm").strip().lower()
        value = _positive(pixels.get(f"PhysicalSize{axis}", ""))
        sizes.append(value * MICRONS[unit] if value and unit in MICRONS else None)
    return sizes[0], sizes[1]


def _both(x: float | None, y: float | None) -> Scale | None:
    one = x or y
    return (x or one, y or one) if one else None


def _mean(scale: Scale | None, path: Path) -> float | None:
    if scale is None:
        return None
    x, y = scale
    if max(x, y) > 1.05 * min(x, y):
        log.warning("%s: pixels are not square (%.4g x %.4g µm); their mean is taken", path, x, y)
    return math.sqrt(x * y)


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _ratio(value: Any) -> float | None:
    if not isinstance(value, tuple) or len(value) != 2 or not value[0] or not value[1]:
        return None
    return float(value[0]) / float(value[1])
