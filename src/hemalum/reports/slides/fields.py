"""Fields of a slide chosen by their density, with outlines drawn at full resolution, and where they lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hemalum.nuclei.ihc_score import GRADES
from hemalum.nuclei.io.colors import INTENSITIES, Classes, Color
from hemalum.nuclei.io.overlay import COLOR, draw_outlines
from hemalum.nuclei.polygons import Polygons, fill
from hemalum.nuclei.store import NucleiStore, SlideMaps, block_means, from_wkb, number_names
from hemalum.reports.figures.contact_sheet import INK, SMALL, Panel, Row, Sheet, SheetPen, draw_sheet
from hemalum.reports.slides.map_picture import length_text, scale_bar
from hemalum.slides import Slide, Tissue, draw_tissue

FIELD_UM = 100.0  # side of a field
EACH = 3  # fields of a kind
SIDE = 380  # px of a field's picture, or as many as the largest field has
MARK = 12  # px, least side of a field's mark on the overview
MARK_COLOR = (190, 0, 60)
GLASS_LEAST, GLASS_SHARE = 190, 0.93  # of 255 and of glass, least channel: what is paler is empty
MOST_PALE = 0.1  # of a field
NAMES = ("densest", "median", "sparsest")


@dataclass(frozen=True, slots=True)
class Field:
    """A part of a slide: x, y, width, height in px of level 0, its nuclei and how many that is per mm²."""

    name: str
    rank: str
    x: int
    y: int
    width: int
    height: int
    count: int
    density: float


def choose_fields(
    maps: SlideMaps, shape: tuple[int, int], *, pale: NDArray[np.bool_] | None = None, each: int = EACH
) -> list[Field]:
    """Choose the densest, the median and the sparsest fields of a slide of `shape` (H, W) px, `each` at most.

    Fields are blocks of the grid, some 100 µm wide, side by side from the upper left corner. Those that are tissue
    all over, at most a tenth of it as pale as glass, and have a nucleus are ranked by their number of nuclei, equal
    ones by row and column. The densest are the last, the sparsest the first, the median ones those in the middle; no
    field is two of them. `pale` (h, w) bool of any size is where the slide is as pale as glass (`find_pale`).
    """
    factor = max(1, round(FIELD_UM / maps.side[0]))
    rows, columns = (cells // factor for cells in maps.shape)  # a block at the edge that is not whole is no field
    if not rows or not columns:
        return []
    cut = slice(rows * factor), slice(columns * factor)
    inside = maps.tissue[cut].reshape(rows, factor, columns, factor).min(axis=(1, 3)) >= 1
    if pale is not None:
        glass = block_means(pale, maps.shape)[cut].reshape(rows, factor, columns, factor).mean(axis=(1, 3))
        inside &= glass <= MOST_PALE
    counts = maps.coarser(factor).counts[:rows, :columns].ravel()
    fitting = np.flatnonzero(inside.ravel() & (counts > 0))
    order = fitting[np.argsort(counts[fitting], kind="stable")]
    number = min(each, max(1, len(order) // len(NAMES)))
    dense, sparse = order[::-1][:number], order[:-number][:number]
    between = order[number:-number]
    middle = between[max(0, (len(between) - number) // 2) :][:number]
    per_px = (shape[0] / maps.shape[0] * factor, shape[1] / maps.shape[1] * factor)
    area = maps.side[0] * maps.side[1] * factor**2 / 1e6
    fields = []
    for rank, chosen in zip(NAMES, (dense, middle, sparse), strict=True):
        for position, block in enumerate(chosen.tolist(), start=1):
            row, column = divmod(block, columns)
            y, x = round(row * per_px[0]), round(column * per_px[1])
            bottom, right = round((row + 1) * per_px[0]), round((column + 1) * per_px[1])
            count = int(counts[block])
            fields.append(
                Field(f"{rank[0].upper()}{position}", rank, x, y, right - x, bottom - y, count, count / area)
            )
    return fields


def find_pale(slide: Slide, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where a slide, seen at `shape` (h, w) px, is as pale as its glass: gaps, which a mask of tissue has."""
    height, width = shape
    least = slide.read_scaled((height, width), slice(0, height), slice(0, width)).min(axis=2)
    bright = least[(least >= GLASS_LEAST) & (least < 254)]  # where nothing was scanned, slides are white
    if not len(bright):
        return np.asarray(least >= 254, np.bool_)
    return np.asarray(least >= max(GLASS_LEAST, GLASS_SHARE * float(np.percentile(bright, 95))), np.bool_)


def side_of(fields: Sequence[Field]) -> int:
    """Side of the pictures of fields, px: none of them loses a pixel."""
    return max([SIDE, *(max(field.width, field.height) for field in fields)])


def draw_field(store: NucleiStore, slide: Slide, field: Field, side: int) -> NDArray[np.uint8]:
    """The pixels of a field with the outlines of its nuclei, resized to `side` px, (side, side, 3) uint8."""
    # cells of the grid are not quite square; what is shown is, where the slide has the room
    longer = max(field.width, field.height)
    x, y = max(0, min(field.x, slide.shape[1] - longer)), max(0, min(field.y, slide.shape[0] - longer))
    width, height = min(longer, slide.shape[1] - x), min(longer, slide.shape[0] - y)
    zoom = side / longer
    size = (round(width * zoom), round(height * zoom))
    pixels = Image.fromarray(slide.read(x, y, width, height))
    picture = np.asarray(pixels.resize(size, Image.Resampling.BICUBIC))
    table = store.window(x, y, width, height)
    rings = from_wkb(table.column("geometry"))
    moved = Polygons(rings.coords - np.array([x, y], np.float32), rings.offsets).scaled(zoom, zoom)
    labels = fill(moved, size[::-1])
    drawn = draw_outlines(picture, labels, classes=_classes(store, table))
    square = np.full((side, side, 3), 255, np.uint8)
    square[: size[1], : size[0]] = drawn
    return square


def _classes(store: NucleiStore, table: object) -> Classes | None:
    """Grades where the nuclei have some, or else classes, as overlays color them."""
    column = table.column  # type: ignore[attr-defined]
    if store.thresholds:
        names = GRADES[len(store.thresholds)]
        return Classes(number_names(column("intensity"), names), names, [INTENSITIES[name] for name in names])
    if store.run.class_names:
        return Classes(number_names(column("class"), store.run.class_names), store.run.class_names)
    return None


def draw_contact_sheet(store: NucleiStore, slide: Slide, fields: Sequence[Field], title: str = "") -> Image.Image:
    """Draw fields of `choose_fields` in rows by rank; there must be at least one."""
    classes = _classes(store, store.schema.empty_table())
    legend: list[tuple[Color, str]] = [(COLOR, "nucleus")]
    if classes is not None:
        legend = list(zip(classes.colors, classes.names, strict=True))
    rows, side = [], side_of(fields)
    for rank in NAMES:
        chosen = [field for field in fields if field.rank == rank]
        if not chosen:
            continue
        panels = []
        for field in chosen:
            mpp = store.run.mpp or 1.0
            zoom = side / max(field.width, field.height)
            length = scale_bar(field.width * mpp)
            bar = (length / mpp * zoom, length_text(length))
            panels.append(Panel(draw_field(store, slide, field, side), "", bar))
        lines = [rank, *(f"{field.name}: {field.density:,.0f} per mm²" for field in chosen)]
        lines += [f"{field.name} at {field.x:,}, {field.y:,} px" for field in chosen]
        rows.append(Row(lines, panels))
    widest = max(len(row.panels) for row in rows)
    return draw_sheet(
        Sheet(
            title=title or f"Nuclei of {store.run.source or store.name}",
            subtitle="Fields at full resolution: densest, median, sparsest",
            columns=[(f"{number}", "") for number in range(1, widest + 1)],
            rows=rows,
            legend=legend,
            footnotes=[FIELD_RULE],
        )
    )


FIELD_RULE = (
    "Fields are blocks of the density map, about 100 µm wide, side by side from the upper left corner. Those that "
    "are tissue all over, at most a tenth of it as pale as glass, and hold a nucleus are ranked by how many: the "
    "densest are the last, the sparsest the first, the median ones in the middle."
)


def draw_overview(
    store: NucleiStore, slide: Slide, tissue: Tissue, fields: Sequence[Field] = (), max_side: int = 900
) -> Image.Image:
    """The slide at low power: tissue in color and outlined in green, the region of interest, and fields by name."""
    pixels = draw_tissue(slide, tissue, max_side) if not tissue.reason else slide.thumbnail(max_side)
    picture = Image.fromarray(pixels)
    scale = np.array([picture.width / slide.shape[1], picture.height / slide.shape[0]])
    pen = SheetPen()
    pen.draw = ImageDraw.Draw(picture)
    roi = store.run.settings.get("roi")
    if roi is not None:
        for part in shapely.get_parts(shapely.from_wkt(roi)).tolist():
            points = shapely.get_coordinates(part.exterior) * scale
            pen.draw.line([tuple(point) for point in points.tolist()], fill=(0, 60, 200), width=3)
    for field in fields:
        _mark(pen, field, scale, picture.size)
    return picture


def _mark(pen: SheetPen, field: Field, scale: NDArray[np.float64], size: tuple[int, int]) -> None:
    center = (np.array([field.x, field.y]) + np.array([field.width, field.height]) / 2) * scale
    half = np.maximum(np.array([field.width, field.height]) * scale, MARK) / 2
    left, top = (center - half).tolist()
    right, bottom = (center + half).tolist()
    pen.draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(255, 255, 255), width=4)
    pen.draw.rectangle((left, top, right, bottom), outline=MARK_COLOR, width=2)
    wide = pen.length(field.name, SMALL) + 6
    if 2 * half[0] >= wide + 4 and 2 * half[1] >= SMALL + 8:  # beside it the name might lie in another field
        x, y = left, top
    else:
        x = right + 2 if right + 2 + wide <= size[0] else left - 2 - wide
        y = min(max(top, 0), size[1] - SMALL - 5)
    pen.draw.rectangle((x, y, x + wide, y + SMALL + 4), fill=(255, 255, 255), outline=MARK_COLOR)
    pen.text(x + 3, y, field.name, SMALL, INK)
