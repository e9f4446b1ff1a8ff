"""Text for pictures, in a type that has the letters, or in letters that the type has."""

import importlib.util
import unicodedata
from pathlib import Path

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


SPELLED = str.maketrans({"µ": "u", "·": "-", "…": "..", "×": "x", "–": "-", "−": "-", "→": "->"})


class TextDrawing:
    """Measures and writes text; `draw` is what it writes on. Heights of type are in px."""

    draw: ImageDraw.ImageDraw

    def __init__(self) -> None:
        spec = importlib.util.find_spec("matplotlib")  # located, not imported: a type with µ and é comes with it
        path = Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if spec and spec.origin else None
        self.path = path if path is not None and path.is_file() else None
        self.fonts: dict[int, Font] = {}

    def font(self, size: int) -> Font:
        """The type at a height."""
        if size not in self.fonts:
            self.fonts[size] = (
                ImageFont.load_default(size) if self.path is None else ImageFont.truetype(self.path, size)
            )
        return self.fonts[size]

    def spell(self, text: str) -> str:
        """Pillow's own type knows few letters beyond ASCII: µm becomes um, é becomes e."""
        if self.path is not None:
            return text
        spelled = unicodedata.normalize("NFKD", text.translate(SPELLED))
        return spelled.encode("ascii", "ignore").decode()

    def text(self, x: float, y: float, text: str, size: int, color: tuple[int, int, int]) -> None:
        """Write text with its upper left corner at (x, y)."""
        self.draw.text((x, y), self.spell(text), font=self.font(size), fill=color)

    def length(self, text: str, size: int) -> float:
        """Width of a text in px."""
        return self.font(size).getlength(self.spell(text))

    def fit(self, text: str, width: float, size: int) -> str:
        """The text, its middle left out where it is too long: ids differ at their ends."""
        if self.length(text, size) <= width:
            return text
        keep = len(text) - 1
        while keep > 2 and self.length(f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}", size) > width:
            keep -= 1
        return f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}"
