from .page import findings as findings
from .page import organ_grid as organ_grid
from .page import scores_grid as scores_grid
from .page import write_refinement as write_refinement

__all__ = [
    "findings",
    "organ_grid",
    "scores_grid",
    "write_refinement",
]
