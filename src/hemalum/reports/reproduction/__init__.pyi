from .page import data_pairs as data_pairs
from .page import paper_grids as paper_grids
from .page import papers_table as papers_table
from .page import reproduction_grids as reproduction_grids
from .page import write_reproduction as write_reproduction

__all__ = [
    "data_pairs",
    "paper_grids",
    "papers_table",
    "reproduction_grids",
    "write_reproduction",
]
