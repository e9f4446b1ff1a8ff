"""Aperio ImageScope annotations (XML): outlines of nuclei, as MoNuSeg and Kumar publish them.

    <Annotations MicronsPerPixel="0.252000">
      <Annotation Id="1"> <Regions> <Region Id="1" NegativeROA="0"> <Vertices> <Vertex X="316" Y="503"/> …

X and Y are px of the full resolution. A layer (Annotation) may name the class of its regions: by its Name, or by an
attribute, as MoNuSAC does (<Attribute Name="Epithelial"/>). Source: the published files themselves.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree.ElementTree import Element, ParseError

import numpy as np

from hemalum.data.annotations.outlines import Outline
from hemalum.errors import HemalumError, counted
from hemalum.remarks import remark

MAX_BYTES = 64 * 1024 * 1024  # a tile of 1000 x 1000 px with 359 nuclei takes 1.1 MB
# A line drawn by hand ends near its start: the largest gap of 359 nuclei of MoNuSeg is a tenth of the line.
# A quarter leaves about a fifth of a circle open. Few vertices are clicked corners, whose last side is any length.
OPEN_SHARE = 0.25
DRAWN_BY_HAND = 8
NO_NAME = re.compile(r"(layer|annotation|description|value)?[\s_-]*\d*", re.IGNORECASE)  # names no class
ELLIPSE = "2"  # Type of a region whose vertices are the corners of the box around it


class AperioAnnotations(NamedTuple):
    """Outlines in the order of the file, and the scale in µm per px where the file says one."""

    outlines: tuple[Outline, ...]
    mpp: float | None


def read_aperio_xml(path: Path | str, *, open_lines: Literal["refuse", "close"] = "refuse") -> AperioAnnotations:
    """Read the regions of an Aperio XML file.

    A line that ends far from its start (more than a quarter of its length, with at least 8 vertices) is
    refused, or closed straight with `open_lines="close"`, which the log says. Regions marked as negative are left
    out, which the log says. Entities and document types are refused, never expanded.

    Raises HemalumError for a file that is missing, larger than 64 MiB, not XML, not of this kind, with
    declarations, with a vertex that is no number, or with an open line.
    """
    path = Path(path)
    if open_lines not in ("refuse", "close"):
        raise HemalumError(f"open_lines {open_lines!r}: choices are refuse, close")
    if not path.is_file():
        raise HemalumError(f"{path}: no such file")
    if path.stat().st_size > MAX_BYTES:
        raise HemalumError(
            f"{path}: {path.stat().st_size:,} bytes is over the limit of {MAX_BYTES:,} for the annotations of a tile"
        )
    outlines: list[Outline] = []
    negative = 0
    layer = _Layer()
    root: Element | None = None
    for event, element in _events(path):
        if root is None:
            root = element
            if element.tag != "Annotations":
                raise HemalumError(f"{path}: <{element.tag}> instead of <Annotations>; not annotations by ImageScope")
        if event == "start":
            layer.enter(element)
        elif element.tag == "Region":
            layer.in_region = False
            if element.get("NegativeROA") == "1":
                negative += 1
            else:
                outlines.append(_outline(path, element, len(outlines) + negative + 1, layer.class_name))
            element.clear()  # the vertices of a whole file as elements take ten times its size
    _meet_open(path, outlines, open_lines)
    if negative:
        text = f"{counted(negative, 'region')} marked as negative left out"
        remark(path, text, "negative regions")
    return AperioAnnotations(tuple(outlines), None if root is None else _mpp(root))


def _events(path: Path) -> Iterator[tuple[str, Any]]:
    """(event, element) of the file, with every kind of its failure as one line."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    try:
        # forbid_dtd: nothing of ImageScope has one, and what could hurt is declared there
        yield from iterparse(str(path), events=("start", "end"), forbid_dtd=True)
    except DefusedXmlException as error:
        raise HemalumError(
            f"{path}: declares a document type or entities, which are never expanded; remove the declaration"
        ) from error
    except ParseError as error:
        raise HemalumError(f"{path}: not well-formed XML ({error})") from error
    except (OSError, ValueError, LookupError) as error:  # unreadable, or an encoding that is none
        raise HemalumError(f"{path}: cannot be read as XML ({error})") from error


class _Layer:
    """The class that the layer being read gives its regions, None where it names none."""

    def __init__(self) -> None:
        self.class_name: str | None = None
        self.in_region = False

    def enter(self, element: Element) -> None:
        """Look at an element as it begins."""
        if element.tag == "Annotation":
            self.class_name = _class_name(element.get("Name"))
        elif element.tag == "Region":
            self.in_region = True
        elif element.tag == "Attribute" and not self.in_region:
            named = _class_name(element.get("Name")) or _class_name(element.get("Value"))
            self.class_name = self.class_name or named


def _class_name(text: str | None) -> str | None:
    text = (text or "").strip()
    return None if NO_NAME.fullmatch(text) else text


def _outline(path: Path, region: Element, number: int, class_name: str | None) -> Outline:
    name = f"Region {region.get('Id') or number}"
    vertices = [
        (_number(path, name, index, vertex, "X"), _number(path, name, index, vertex, "Y"))
        for index, vertex in enumerate(region.iter("Vertex"), start=1)
    ]
    line = np.array(vertices, np.float64).reshape(-1, 2)
    if region.get("Type") == ELLIPSE and len(line) in (2, 4):
        low, high = line.min(axis=0), line.max(axis=0)
        turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)[:, None]
        line = (low + high) / 2 + (high - low) / 2 * np.hstack([np.cos(turn), np.sin(turn)])
    return Outline(name, (line,), class_name)


def _number(path: Path, name: str, index: int, vertex: Element, axis: str) -> float:
    text = vertex.get(axis)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise HemalumError(f"{path}: {name}, vertex {index}: {axis} is {text!r}, not a number")
    return value


def _meet_open(path: Path, outlines: list[Outline], open_lines: str) -> None:
    """Refuse lines whose ends are far apart, or say that they are closed."""
    closed = []
    for outline in outlines:
        (line,) = outline.rings
        if len(line) < DRAWN_BY_HAND:
            continue
        drawn = float(np.hypot(*np.diff(line, axis=0).T).sum())
        gap = float(np.hypot(*(line[0] - line[-1])))
        if gap <= OPEN_SHARE * drawn:
            continue
        if open_lines == "refuse":
            raise HemalumError(
                f"{path}: {outline.name} is open: its ends are {gap:.1f} px apart, its line is {drawn:.1f} px long; "
                "close it in ImageScope, or set the option open_lines=close"
            )
        closed.append(outline.name)
    if closed:
        shown = f"{closed[0]}{', …' if len(closed) > 1 else ''}"
        remark(path, f"{counted(len(closed), 'open line')} closed straight ({shown})", "open lines")


def _mpp(root: Element) -> float | None:
    try:
        value = float(root.get("MicronsPerPixel", ""))
    except ValueError:
        return None
    return value if 0.01 < value < 100 else None
