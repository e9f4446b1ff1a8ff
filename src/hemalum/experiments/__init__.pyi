from .activation import activation_map as activation_map
from .compare import Progress as Progress
from .execute import Resources as Resources
from .label_maps import evaluation_inputs as evaluation_inputs
from .measurement import Measurement as Measurement
from .measurement import measure as measure
from .papers import Paper as Paper
from .papers import PublishedTable as PublishedTable
from .papers import load_paper as load_paper
from .plan import Method as Method
from .plan import check_scales as check_scales
from .provenance import count_seen as count_seen
from .provenance import scales_text as scales_text
from .provenance import seen_text as seen_text
from .records import Comparison as Comparison
from .records import Run as Run
from .records import load_comparison as load_comparison
from .refine import BEFORE as BEFORE
from .refine import MOVED as MOVED
from .refine import REFINED as REFINED
from .refine import Refinement as Refinement
from .refinement_recipe import choose_trainable as choose_trainable
from .refinement_recipe import continued_recipe as continued_recipe
from .refinement_recipe import training_recipe as training_recipe
from .refinement_steps import measure_once as measure_once
from .refinement_steps import train_copy as train_copy
from .reproduce import Reproduction as Reproduction
from .reproduced_tables import NOT_YET as NOT_YET
from .reproduced_tables import ROW_CHOICES as ROW_CHOICES
from .reproduced_tables import Difference as Difference
from .reproduced_tables import Line as Line
from .reproduced_tables import ReproducedValue as ReproducedValue
from .reproduced_tables import TablePart as TablePart
from .reproduced_tables import budget_text as budget_text
from .scores import score_image as score_image
from .scores import without_nan as without_nan
from .segmenters import CLASSICAL as CLASSICAL
from .segmenters import model_for_organ as model_for_organ
from .selection import Top as Top
from .selection import mean_entropy as mean_entropy
from .selection import pixel_entropy as pixel_entropy
from .stages import StageComparison as StageComparison
from .stages import Stages as Stages
from .stages import compare_nuclei as compare_nuclei
from .stages import compare_stages as compare_stages
from .stages import open_part as open_part
from .stages import open_stages as open_stages
from .stages import stages_table as stages_table

__all__ = [
    "BEFORE",
    "CLASSICAL",
    "MOVED",
    "NOT_YET",
    "REFINED",
    "Comparison",
    "Difference",
    "Line",
    "Measurement",
    "Method",
    "Paper",
    "Progress",
    "PublishedTable",
    "Refinement",
    "ReproducedValue",
    "Reproduction",
    "Resources",
    "Run",
    "StageComparison",
    "Stages",
    "TablePart",
    "Top",
    "activation_map",
    "budget_text",
    "check_scales",
    "choose_trainable",
    "compare_nuclei",
    "compare_stages",
    "continued_recipe",
    "count_seen",
    "evaluation_inputs",
    "load_comparison",
    "load_paper",
    "mean_entropy",
    "measure",
    "measure_once",
    "model_for_organ",
    "open_part",
    "open_stages",
    "pixel_entropy",
    "scales_text",
    "score_image",
    "seen_text",
    "stages_table",
    "train_copy",
    "training_recipe",
    "without_nan",
]
