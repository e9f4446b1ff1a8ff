from .files import columns_of as columns_of
from .files import defined as defined
from .files import write_csv as write_csv
from .grid import Grid as Grid
from .grid import Row as Row
from .grid import console_table as console_table
from .html import render as render
from .markdown import escaped as escaped
from .markdown import markdown_code as markdown_code
from .markdown import markdown_list as markdown_list
from .markdown import markdown_page as markdown_page
from .markdown import markdown_table as markdown_table
from .style import INK as INK
from .style import LINE as LINE
from .style import SOFT as SOFT
from .style import Drawn as Drawn
from .style import color_of as color_of
from .style import dash_of as dash_of
from .style import draw as draw
from .style import has_matplotlib as has_matplotlib
from .style import inline as inline
from .style import marker_of as marker_of
from .style import require_report as require_report
from .style import short as short
from .style import spread as spread
from .tables import Table as Table
from .tables import card_pairs as card_pairs
from .tables import dataset_pairs as dataset_pairs
from .tables import demo_pairs as demo_pairs
from .tables import evaluation_tables as evaluation_tables
from .tables import formats_table as formats_table
from .tables import metrics_table as metrics_table
from .tables import problems_table as problems_table

__all__ = [
    "INK",
    "LINE",
    "SOFT",
    "Drawn",
    "Grid",
    "Row",
    "Table",
    "card_pairs",
    "color_of",
    "columns_of",
    "console_table",
    "dash_of",
    "dataset_pairs",
    "defined",
    "demo_pairs",
    "draw",
    "escaped",
    "evaluation_tables",
    "formats_table",
    "has_matplotlib",
    "inline",
    "markdown_code",
    "markdown_list",
    "markdown_page",
    "markdown_table",
    "marker_of",
    "metrics_table",
    "problems_table",
    "render",
    "require_report",
    "short",
    "spread",
    "write_csv",
]
