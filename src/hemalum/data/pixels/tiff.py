"""What a TIFF says of its pixels: which pages hold the picture, and what their samples are.

Decided by photometric interpretation, SamplesPerPixel, ExtraSamples and axes, never by the number of planes.
"""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException, ElementTree
from numpy.typing import NDArray

from hemalum.data.pixels.channels import find_channel, refuse_color
from hemalum.data.pixels.orientation import ORIENTATION, known_orientation
from hemalum.data.pixels.samples import CMYK, Stored, channel_words
from hemalum.errors import HemalumError
from hemalum.remarks import remark

JPEG = (6, 7, 34892, 33007)  # their tables are stored once for all tiles; decoded as RGB
APERIO_YCBCR, APERIO_RGB = (33003, 33004), 33005  # these say which it is, whatever the photometric interpretation
JPEG_2000 = (*APERIO_YCBCR, 34712)
# codecs that give RGB, however it was stored
DECODED_TO_RGB = (*JPEG, APERIO_RGB, 22610, 34933, 34934, 50001, 50002, 52546)
ASSOCIATED, UNASSOCIATED = 1, 2  # of ExtraSamples; 0 is "unspecified"
CMYK_INKS = 1
ALL_COLORS = (("red", "green", "blue"), ("r", "g", "b"))
NUCLEAR = re.compile(r"dapi|hoechst|draq|sytox|7-?aad|h(a)?ematoxylin|\bnucle(us|i|ar)\b|propidium", re.IGNORECASE)
# series beside the picture, as scanners and converters name them
BESIDE = re.compile(r"label|macro|thumb|overview|baseline|slide", re.IGNORECASE)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How the picture lies in a TIFF: numbers of the `pages` of a level that hold it, one or one for each color;
    what a pixel of them is; the orientation; whether each page is a channel (`separate`)."""

    pages: tuple[int, ...]
    stored: Stored
    orientation: int
    separate: bool


def tiff_orientation(tiff: Any) -> int:
    """The orientation that the first page of an open TIFF states, 1 to 8."""
    return known_orientation(tiff.pages[0].tags.valueof(ORIENTATION, 1))


def plan_tiff(tiff: Any, path: Path, channel: str | None = None) -> Plan:
    """What the first picture of an open TIFF is made of; of channels it is `channel`. What is left out is said.

    Raises HemalumError for pixels that are not read, and for a channel that is not there.
    """
    series: Any = tiff.series[0]
    page: Any = series.keyframe
    axes, shape = str(series.axes), tuple(series.shape)
    leading = axes[: len(axes) - len(str(page.axes))] if axes.endswith(str(page.axes)) else ""
    sizes = dict(zip(leading, shape, strict=False))
    _say_what_is_left(tiff, path, {axis: size for axis, size in sizes.items() if axis not in "CS" and size > 1})
    across = next((axis for axis in "CS" if sizes.get(axis, 1) > 1), None)
    orientation = tiff_orientation(tiff)
    ome = _ome_channels(tiff)
    first_page = samples_of(page, path, ome if across is None else [], channel if across is None else None)
    if across is None:
        return Plan((0,), first_page, orientation, separate=False)
    step = math.prod([sizes[axis] for axis in leading[leading.index(across) + 1 :]])
    count = sizes[across]
    if first_page.color != "gray" or first_page.alpha is not None or len(first_page.used) != 1:
        refuse_color(channel, path)
        remark(path, channel_words(count, 0, ""))
        return Plan((0,), first_page, orientation, separate=False)
    chosen = choose_channels(
        count, channel_titles(tiff, count), path, first_page, colors=across == "S", fluorescence=is_fluorescence(ome),
        channel=channel,
    )  # fmt: skip
    numbers = tuple(index * step for index in (*chosen.used, *(() if chosen.alpha is None else (chosen.alpha,))))
    # the pages that are taken are the samples from here on
    last = len(chosen.used) if chosen.alpha is not None else None
    return Plan(numbers, replace(chosen, used=tuple(range(len(chosen.used))), alpha=last), orientation, separate=True)


def samples_of(page: Any, path: Path, ome: list[dict[str, str]], channel: str | None = None) -> Stored:
    """What the samples of a page are; `ome` are its channels in OME-XML, of which `channel` is taken.

    Raises HemalumError for pixels that are not read, and for a channel that is not there.
    """
    count = int(page.samplesperpixel)
    ome_colors = count in (3, 4) and len(ome) == 1 and ome[0].get("SamplesPerPixel") == str(count)
    stored = _colors_of(page, path, ome_colors=ome_colors)
    base = len(stored.used)
    if count < base:
        raise HemalumError(f"{path}: colors of {base} samples in pixels of {count}; save the image again")
    extras = [int(value) for value in page.extrasamples or ()][: count - base]
    known = [kind for kind in extras if kind in (ASSOCIATED, UNASSOCIATED)]
    if known:
        alpha = base + extras.index(known[0])
        stored = replace(stored, alpha=alpha, premultiplied=known[0] == ASSOCIATED)
    elif not extras and ome_colors and count == 4 and stored.color == "rgb":
        stored = replace(stored, alpha=3)
    others = count - base - (stored.alpha is not None)
    if others and stored.color == "gray":
        indices = [index for index in range(count) if index != stored.alpha]
        titles = [one.get("Name", "") for one in ome] if len(ome) == len(indices) else []
        chosen = choose_channels(
            len(indices), titles, path, stored, fluorescence=is_fluorescence(ome), channel=channel
        )
        return replace(chosen, used=tuple(indices[index] for index in chosen.used), alpha=stored.alpha)
    if stored.color != "gray":
        refuse_color(channel, path)
    elif channel is not None:
        find_channel(channel, 1, [one.get("Name", "") for one in ome] if len(ome) == 1 else [], path)
    if others:
        are = "is" if others == 1 else "are"
        remark(
            path, f"{others} of {count} samples per pixel {are} neither color nor said to be transparency; left out"
        )
    return stored


def _colors_of(page: Any, path: Path, *, ome_colors: bool) -> Stored:
    """What the first samples of a page are, by its photometric interpretation; `ome_colors`: OME-XML says colors."""
    count, bits = int(page.samplesperpixel), page.bitspersample
    stored = Stored(bits=int(max(bits) if isinstance(bits, tuple) else bits))
    photometric = getattr(page.photometric, "name", str(page.photometric))
    if 262 not in page.tags and int(page.compression) not in JPEG:  # a writer that says nothing
        photometric = "RGB" if count >= 3 else "MINISBLACK"
    if photometric == "RGB" and int(page.compression) in APERIO_YCBCR:
        photometric = "YCBCR"
    rgb = replace(stored, color="rgb", used=(0, 1, 2))
    if photometric in ("MINISBLACK", "MINISWHITE"):
        return rgb if ome_colors else replace(stored, inverted=photometric == "MINISWHITE")
    if photometric == "PALETTE":
        if page.colormap is None:
            raise HemalumError(f"{path}: a palette image without its palette; save the image as 8-bit RGB or gray")
        return replace(stored, color="palette", palette=palette_of(page.colormap))
    if photometric == "RGB" or (photometric == "YCBCR" and _gives_rgb(page)):
        return rgb
    if photometric == "YCBCR":
        return _ycbcr(page, stored, path)
    if photometric == "SEPARATED" and int(page.tags.valueof(332, CMYK_INKS)) == CMYK_INKS and count >= 4:
        remark(path, CMYK)
        return replace(stored, color="cmyk", used=(0, 1, 2, 3))
    raise HemalumError(f"{path}: {photometric} pixels are not supported; save the image as 8-bit RGB or gray")


def palette_of(colormap: NDArray[Any]) -> NDArray[np.uint8]:
    """(3, N) uint16 of the tag ColorMap to (N, 3) uint8; some writers put 8 bits in it."""
    wide = np.asarray(colormap).T
    return (wide if wide.max() < 256 else wide >> 8).astype(np.uint8)


def left_out(page: Any) -> list[tuple[int, int, int, int]]:
    """Where (y, x, height, width) the tiles or strips of a page would lie that the file leaves out."""
    height, width = int(page.imagelength), int(page.imagewidth)
    if page.is_tiled:
        tall, wide = int(page.tilelength), int(page.tilewidth)
    else:
        tall, wide = min(int(page.rowsperstrip or height), height), width
    across = -(-width // wide)
    count = across * -(-height // tall)
    empty = {
        index % count
        for index, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False))
        if not offset and not size
    }
    return [(index // across * tall, index % across * wide, tall, wide) for index in sorted(empty)]


def channel_titles(tiff: Any, count: int) -> list[str]:
    """Names of the channels as OME-XML or ImageJ have them; empty where there are not `count` of them."""
    titles = [one.get("Name", "") for one in _ome_channels(tiff)]
    if tiff.is_imagej:
        labels = (tiff.imagej_metadata or {}).get("Labels") or []
        titles = [str(one) for one in ([labels] if isinstance(labels, str) else labels)]
    if tiff.is_qpi:
        names = [re.search(r"<Name>([^<]*)</Name>", str(page.description)) for page in tiff.pages[:count]]
        titles = [name.group(1) if name else "" for name in names]
    return titles if len(titles) == count else []


def choose_channels(
    count: int,
    titles: list[str],
    name: Path | str,
    stored: Stored,
    *,
    colors: bool = False,
    fluorescence: bool = False,
    channel: str | None = None,
) -> Stored:
    """Which of `count` planes are shown: those that the file calls colors, or the one that shows the nuclei.

    `channel` is the one that a user names.

    Colors are three named red, green and blue, or such as the file says to be samples of a color (`colors`). Else it
    is the plane with the name of a nuclear stain, or the first. Three planes with no such names are `undeclared`,
    unless the file calls them `fluorescence`. Raises HemalumError for a channel that is not there, or of colors.
    """
    low = tuple(title.strip().lower() for title in titles)
    if (colors or low[:3] in ALL_COLORS) and count in (3, 4):
        refuse_color(channel, name)
        if count == 4 and not colors and low[3] not in ("alpha", "a"):
            remark(name, f"4 channels; red, green and blue are taken and {titles[3]!r} is left out")
            return replace(stored, color="rgb", used=(0, 1, 2))
        return replace(stored, color="rgb", used=(0, 1, 2), alpha=3 if count == 4 else stored.alpha)
    if channel is not None:
        return replace(stored, used=(find_channel(channel, count, titles, name),))
    nuclear = next((index for index, title in enumerate(titles) if NUCLEAR.search(title)), None)
    if count == 3 and nuclear is None and not fluorescence:
        return replace(stored, used=(0, 1, 2), undeclared=True)
    taken = nuclear or 0
    remark(name, channel_words(count, taken, titles[taken].strip() if nuclear is not None else ""))
    return replace(stored, used=(taken,))


def is_fluorescence(ome: list[dict[str, str]]) -> bool:
    """Whether the channels of an OME-XML are said to be fluorescence."""
    return any(
        "EmissionWavelength" in one or one.get("Fluor") or one.get("ContrastMethod") == "Fluorescence" for one in ome
    )


def _say_what_is_left(tiff: Any, path: Path, stacks: dict[str, int]) -> None:
    """Warn of pictures of a stack, and of other pictures, that nobody looks at."""
    if stacks:
        count = math.prod(stacks.values())
        remark(path, f"a stack of {count} pictures; the first is taken")
    others = [
        one
        for one in tiff.series[1:]
        if not BESIDE.search(str(one.name or ""))
        and not _is_smaller_copy(one.keyframe, tiff.series[0].keyframe)
        and one.kind not in ("svs", "scn", "ndpi", "bif", "philips", "qpi")
    ]
    if others:
        remark(path, f"{len(others) + 1} pictures in one file; the first is taken")


def _is_smaller_copy(page: Any, first: Any) -> bool:
    """Whether a page is another size of the first, as it says or by its shape."""
    height, width = int(page.imagelength), int(page.imagewidth)
    tall, wide = int(first.imagelength), int(first.imagewidth)
    same = abs(height * wide - width * tall) <= 2 * max(tall, wide)
    return bool(int(page.subfiletype or 0) & 1) or (height < tall and width < wide and same)


def _ycbcr(page: Any, stored: Stored, path: Path) -> Stored:
    if page.is_subsampled:
        raise HemalumError(
            f"{path}: YCbCr with thinned out colors outside JPEG is not read; save the image as 8-bit RGB"
        )
    luma = [float(value) for value in _numbers(page.tags.valueof(529))]
    reference = [float(value) for value in _numbers(page.tags.valueof(532))]
    stored = replace(stored, color="ycbcr", used=(0, 1, 2))
    if len(luma) == 3 and min(luma) > 0:
        stored = replace(stored, luma=tuple(luma))
    if len(reference) == 6 and all(reference[index] < reference[index + 1] for index in (0, 2, 4)):
        stored = replace(stored, reference=tuple(reference))
    return stored


def _numbers(value: Any) -> list[float]:
    """A tag of rationals: numerators and denominators in turn."""
    if not isinstance(value, tuple) or len(value) % 2:
        return []
    return [top / bottom for top, bottom in zip(value[::2], value[1::2], strict=True) if bottom]


def _gives_rgb(page: Any) -> bool:
    """Whether what the codec gives of YCbCr is RGB: JPEG 2000 turns back what its own header says that it turned."""
    compression = int(page.compression)
    if compression not in JPEG_2000:
        return compression in DECODED_TO_RGB
    tiles = [(offset, size) for offset, size in zip(page.dataoffsets, page.databytecounts, strict=False) if size]
    if not tiles:
        return True
    handle = page.parent.filehandle
    handle.seek(tiles[0][0])
    head = handle.read(min(tiles[0][1], 4096))
    marker = head.find(b"\xff\x52")  # COD; its ninth byte is the transform of components
    return bool(marker >= 0 and len(head) > marker + 8 and head[marker + 8] == 1)


def _ome_channels(tiff: Any) -> list[dict[str, str]]:
    """Attributes of the channels of the first image of an OME-TIFF."""
    if not tiff.is_ome:
        return []
    try:
        root = ElementTree.fromstring(tiff.ome_metadata or "")
    except (ParseError, DefusedXmlException):
        return []
    pixels = next((node for node in root.iter() if _tag(node) == "Pixels"), None)
    return [] if pixels is None else [dict(node.attrib) for node in pixels if _tag(node) == "Channel"]


def _tag(node: Element) -> str:
    return node.tag.rpartition("}")[2]
