"""A sheet of pictures in rows and columns with headings, drawn with Pillow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hemalum.errors import HemalumError
from hemalum.nuclei.io.colors import Color
from hemalum.nuclei.io.text_drawing import TextDrawing

Pixels = NDArray[np.uint8]

INK, FAINT, GROUND, FRAME = (30, 30, 34), (105, 105, 112), (255, 255, 255), (228, 228, 232)
MARGIN, GAP, SIDE = 28, 8, 190  # px: border of the sheet, between pictures, column of the rows' names
SMALL, NORMAL, LARGE = 14, 16, 24  # px: heights of type


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """A picture, a note on it, and a scale bar as (length in px, what it says)."""

    picture: Pixels
    note: str = ""
    bar: tuple[float, str] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Cells of one sample; `lines` say which, the first of them in full ink."""

    lines: Sequence[str]
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Sheet:
    """What is on a sheet: `columns` are headings with a second, fainter line; `legend` is color and name.

    The legend's marks are outlines, or `filled` where the colors in the pictures are areas; `striped` are those that
    are striped there, with the color of every other stripe.
    """

    title: str
    subtitle: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[Row]
    legend: Sequence[tuple[Color, str]]
    footnotes: Sequence[str]
    filled: bool = False
    striped: Mapping[Color, Color] = field(default_factory=dict)


def picture_path(path: Path | str, name: str = "picture") -> Path:
    """The path of a sheet. Raises HemalumError, which calls it `name`, for another ending than .png and .jpg."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise HemalumError(f"{name} '{path}': the picture is a .png or a .jpg")
    return path


def draw_sheet(sheet: Sheet) -> Image.Image:
    """Draw a sheet; all its pictures have one size."""
    pen = SheetPen()
    size = sheet.rows[0].panels[0].picture.shape[0]
    width = 2 * MARGIN + SIDE + len(sheet.columns) * (size + GAP) - GAP
    notes = [line for note in sheet.footnotes for line in pen.wrap(note, width - 2 * MARGIN, SMALL)]
    legend_rows = pen.flow([name for _, name in sheet.legend], width - 2 * MARGIN)
    top = MARGIN + LARGE + 12 + NORMAL + 20
    heading = NORMAL + SMALL + 18
    height = top + heading + len(sheet.rows) * (size + GAP) + 12
    height += len(legend_rows) * (NORMAL + 10) + 6 + len(notes) * (SMALL + 6) + MARGIN
    picture = Image.new("RGB", (width, height), GROUND)
    pen.draw = ImageDraw.Draw(picture)
    pen.text(MARGIN, MARGIN, pen.fit(sheet.title, width - 2 * MARGIN, LARGE), LARGE, INK)
    pen.text(MARGIN, MARGIN + LARGE + 12, pen.fit(sheet.subtitle, width - 2 * MARGIN, NORMAL), NORMAL, FAINT)
    for number, (name, more) in enumerate(sheet.columns):
        left = MARGIN + SIDE + number * (size + GAP)
        pen.text(left, top, pen.fit(name, size, NORMAL), NORMAL, INK)
        pen.text(left, top + NORMAL + 5, pen.fit(more, size, SMALL), SMALL, FAINT)
    y = top + heading
    for row in sheet.rows:
        _draw_row(picture, pen, row, y, size)
        y += size + GAP
    y += 12
    entries = iter(sheet.legend)
    for lefts in legend_rows:
        for left in lefts:
            color, name = next(entries)
            box = (MARGIN + left, y + 2, MARGIN + left + 14, y + 16)
            pen.draw.rectangle(box, fill=color if sheet.filled else None, outline=color, width=3)
            if color in sheet.striped:
                for x in range(box[0] + 3, box[2] - 2, 6):
                    pen.draw.rectangle((x, box[1], x + 2, box[3]), fill=sheet.striped[color])
            pen.text(MARGIN + left + 22, y, pen.fit(name, width - 2 * MARGIN - 22, NORMAL), NORMAL, INK)
        y += NORMAL + 10
    y += 6
    for line in notes:
        pen.text(MARGIN, y, line, SMALL, FAINT)
        y += SMALL + 6
    return picture


def _draw_row(picture: Image.Image, pen: "SheetPen", row: Row, top: int, size: int) -> None:
    y = top
    for number, line in enumerate(row.lines):
        pen.text(MARGIN, y, pen.fit(line, SIDE - 14, SMALL), SMALL, FAINT if number else INK)
        y += SMALL + 6
    for number, panel in enumerate(row.panels):
        left = MARGIN + SIDE + number * (size + GAP)
        picture.paste(Image.fromarray(panel.picture), (left, top))
        pen.draw.rectangle((left, top, left + size - 1, top + size - 1), outline=FRAME)
        if panel.note:
            pen.label(left + 6, top + size - 6, pen.fit(panel.note, size - 24, SMALL))
        if panel.bar is not None:
            length, caption = panel.bar
            pen.bar(left + 10, top + size - 10, length, caption)


class SheetPen(TextDrawing):
    """Writes what a sheet has besides pictures."""

    def wrap(self, text: str, width: float, size: int) -> list[str]:
        lines: list[str] = []
        for word in text.split():
            if lines and self.length(f"{lines[-1]} {word}", size) <= width:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        return lines

    def flow(self, names: Sequence[str], width: float) -> list[list[int]]:
        """Where the entries of a legend stand: the left edges in each of its lines."""
        rows: list[list[int]] = []
        x = 0
        for name in names:
            wide = 22 + round(self.length(name, NORMAL)) + 26
            if not rows or x + wide > width:
                rows.append([])
                x = 0
            rows[-1].append(x)
            x += wide
        return rows

    def label(self, left: float, bottom: float, text: str) -> None:
        """Text on a picture, on a ground of its own."""
        wide = self.length(text, SMALL)
        self.draw.rectangle((left, bottom - SMALL - 7, left + wide + 11, bottom), fill=(255, 255, 255))
        self.text(left + 5, bottom - SMALL - 5, text, SMALL, INK)

    def bar(self, left: float, bottom: float, length: float, caption: str) -> None:
        wide = max(length, self.length(caption, SMALL))
        self.draw.rectangle((left - 4, bottom - SMALL - 16, left + wide + 5, bottom + 4), fill=(255, 255, 255))
        self.draw.rectangle((left, bottom - 3, left + length, bottom), fill=INK)
        self.text(left, bottom - SMALL - 12, caption, SMALL, INK)
