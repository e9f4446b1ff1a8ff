from .colors import INTENSITIES as INTENSITIES
from .colors import Classes as Classes
from .colors import Color as Color
from .colors import class_color as class_color
from .colors import combine_classes as combine_classes
from .overlay import COLOR as COLOR
from .overlay import draw_legend as draw_legend
from .overlay import draw_outlines as draw_outlines
from .text_drawing import TextDrawing as TextDrawing

__all__ = [
    "COLOR",
    "INTENSITIES",
    "Classes",
    "Color",
    "TextDrawing",
    "class_color",
    "combine_classes",
    "draw_legend",
    "draw_outlines",
]
