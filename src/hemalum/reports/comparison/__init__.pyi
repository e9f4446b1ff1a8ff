from .metrics import number as number
from .page import headline as headline
from .page import write_comparison as write_comparison
from .sheet import BLUE as BLUE
from .sheet import GRAY as GRAY
from .sheet import GREEN as GREEN
from .sheet import ORANGE as ORANGE
from .sheet import PALE as PALE
from .sheet import RED as RED
from .sheet import Labels as Labels
from .sheet import difference_map as difference_map
from .sheet import error_map as error_map
from .sheet import kept_prediction as kept_prediction

__all__ = [
    "BLUE",
    "GRAY",
    "GREEN",
    "ORANGE",
    "PALE",
    "RED",
    "Labels",
    "difference_map",
    "error_map",
    "headline",
    "kept_prediction",
    "number",
    "write_comparison",
]
