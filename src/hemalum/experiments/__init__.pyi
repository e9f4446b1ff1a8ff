from .compare import Progress as Progress
from .label_maps import evaluation_inputs as evaluation_inputs
from .papers import Paper as Paper
from .papers import PublishedTable as PublishedTable
from .papers import load_paper as load_paper
from .records import Comparison as Comparison
from .records import Method as Method
from .records import Run as Run
from .records import load_comparison as load_comparison
from .reproduce import NOT_YET as NOT_YET
from .reproduce import Difference as Difference
from .reproduce import Line as Line
from .reproduce import Reproduction as Reproduction
from .reproduce import TablePart as TablePart
from .reproduced_values import ReproducedValue as ReproducedValue
from .resources import Resources as Resources
from .scores import row_of as row_of
from .scores import score_image as score_image
from .scores import without_nan as without_nan
from .segmentation import CLASSICAL as CLASSICAL
from .segmentation import check_scales as check_scales
from .segmenters import model_for_organ as model_for_organ

__all__ = [
    "CLASSICAL",
    "NOT_YET",
    "Comparison",
    "Difference",
    "Line",
    "Method",
    "Paper",
    "Progress",
    "PublishedTable",
    "ReproducedValue",
    "Reproduction",
    "Resources",
    "Run",
    "TablePart",
    "check_scales",
    "evaluation_inputs",
    "load_comparison",
    "load_paper",
    "model_for_organ",
    "row_of",
    "score_image",
    "without_nan",
]
