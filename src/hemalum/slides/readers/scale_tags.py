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

# µm per px that a microscope may have. 72, 96 or 300 dots per inch are what programs and printers write that know
# nothing, and mean 353, 265 and 85
PLAUSIBLE = (0.02, 10.0)
PLACEHOLDER = 1.0  # µm per px that programs write when they know nothing
DPI = (72, 90, 96, 100, 120, 144, 150, 180, 200, 220, 240, 250, 254, 300, 350, 360, 400, 600, 720, 1200, 1440, 2400)
# a power of ten by which a number in another unit is off, with the two units
MIXED_UNITS = ((1e-3, "nm for µm"), (1e3, "mm for µm"), (1e4, "cm for µm"), (1e6, "m for µm"))
USUAL = (0.1, 1.1)  # µm per px of nearly all microscopes at which nuclei are looked at

Scale = tuple[float, float]  # µm per px in x and y

_UNITS = {
    1.0: "µm μm um \\u00b5m micron microns micrometer micrometers micrometre micrometres",  # ImageJ writes the escape
    1e-3: "nm nanometer nanometers nanometre nanometres",
    1e-4: "å angstrom",
    1e-6: "pm picometer picometre",
    1e3: "mm millimeter millimeters millimetre millimetres",
    1e4: "cm centimeter centimeters centimetre centimetres",
    1e6: "m meter meters metre metres",
    25400.0: "inch inches in",
}
MICRONS = {name: length for length, names in _UNITS.items() for name in names.split()}  # µm of a unit, by its name


def tiff_scale(tiff: Any) -> Scale | None:
    """Give µm per px in x and y that a `tifffile.TiffFile` states for its first page, or None.

    It is what the file says, whether or not it can be (`doubt_of`).
    """
    page = tiff.pages[0]
    if tiff.is_ome:
        return _both(*_ome_sizes(tiff.ome_metadata or ""))
    if tiff.is_svs:
        stated = re.search(r"\bMPP\s*=\s*([0-9.,eE+-]+)", page.description)
        mpp = _number(stated.group(1).rstrip(",")) if stated else None
        return _both(mpp, mpp)
    unit = page.tags.valueof("ResolutionUnit", 2)
    per_x, per_y = (_ratio(page.tags.valueof(name)) for name in ("XResolution", "YResolution"))
    if per_x is None or per_y is None:
        return None
    if tiff.is_imagej:
        named = str((tiff.imagej_metadata or {}).get("unit", "")).strip().lower()
        return (MICRONS[named] / per_x, MICRONS[named] / per_y) if named in MICRONS else None
    microns = {2: 25400.0, 3: 1e4}.get(int(unit))
    return (microns / per_x, microns / per_y) if microns else None


def file_scale(path: Path) -> Scale | None:
    """Give µm per px in x and y that an image file states, or None."""
    if is_tiff(path):
        import tifffile  # kept out of the import of the package: it costs 0.1 s

        with tifffile.TiffFile(path) as tiff:
            return tiff_scale(tiff)
    dpi = stated_dpi(path)
    return (25400 / dpi[0], 25400 / dpi[1]) if dpi else None


def file_mpp(path: Path) -> float | None:
    """Give the mpp that an image file states; None for none, and for one that is not believed (`believed`)."""
    scale = believed(file_scale(path), path)[0]
    if scale is None:
        return None
    x, y = scale
    if max(x, y) > 1.05 * min(x, y):
        log.warning("%s: pixels are not square (%.4g x %.4g µm); their mean is taken", path, x, y)
    return math.sqrt(x * y)


def believed(scale: Scale | None, name: Path | str) -> tuple[Scale | None, str]:
    """A scale as a file states it, or None where no microscope has it; and why, which the log says, too.

    One rule for every place of a file: resolution tags, OME-XML, ImageJ's and scanners' text, Zarr, DICOM.
    """
    doubt = "" if scale is None else doubt_of(scale)
    if doubt:
        log.info("%s: the file %s; it is not taken for its scale", name, doubt)
        return None, doubt
    return scale, ""


def doubt_of(scale: Scale) -> str:
    """Why µm per px in x and y are no scale, as "states …"; "" for those that a microscope may have."""
    low, high = min(scale), max(scale)
    if scale == (PLACEHOLDER, PLACEHOLDER):
        return "states exactly 1 µm per px, which programs write that know no scale"
    if PLAUSIBLE[0] < low and high < PLAUSIBLE[1]:
        return ""
    shown = f"states {scale[0]:.4g} µm per px"
    if low <= 0:
        return f"{shown}, which is no scale"
    dpi = next((dpi for dpi in DPI if abs(25400 / high / dpi - 1) < 1e-3), None)
    if dpi is not None:
        return f"{shown}, {dpi} dots per inch, a printer's or a screen's"
    mixed = next((text for power, text in MIXED_UNITS if USUAL[0] <= scale[0] * power <= USUAL[1]), None)
    return f"{shown}, which no microscope has" + (f" ({mixed}?)" if mixed else "")


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
        value = _number(pixels.get(f"PhysicalSize{axis}", ""))
        sizes.append(value * MICRONS[unit] if value is not None and unit in MICRONS else None)
    return sizes[0], sizes[1]


def _both(x: float | None, y: float | None) -> Scale | None:
    """Both, where one alone is stated it for both."""
    x, y = (y if x is None else x), (x if y is None else y)
    return None if x is None or y is None else (x, y)


def _number(text: str) -> float | None:
    """A finite number, with a decimal point or a comma."""
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _ratio(value: Any) -> float | None:
    if not isinstance(value, tuple) or len(value) != 2 or not value[0] or not value[1]:
        return None
    return float(value[0]) / float(value[1])
