from .building import build_for as build_for
from .checkpoint import Progress as Progress
from .context import ProgressCallback as ProgressCallback
from .context import TrainContext as TrainContext
from .data_spec import DataSpec as DataSpec
from .data_spec import gather_data_spec as gather_data_spec
from .distributed import is_first as is_first
from .distributed import report_once as report_once
from .embeddings import embed as embed
from .embeddings import embed_all as embed_all
from .encoding import encode_extra as encode_extra
from .fit import open_phase as open_phase
from .head import keep_head as keep_head
from .loader import Batch as Batch
from .loader import TrainLoader as TrainLoader
from .loader import Views as Views
from .recipe import Budget as Budget
from .recipe import Recipe as Recipe
from .recipe import Sam as Sam
from .recipe import Source as Source
from .recipe import describe_recipes as describe_recipes
from .recipe import find_recipe as find_recipe
from .recipe import load_recipe as load_recipe
from .recipe import open_recipe as open_recipe
from .recipe import open_recipes as open_recipes
from .train import MODEL_FILE as MODEL_FILE
from .train import keep_freed_memory as keep_freed_memory
from .unlabeled_images import UnlabeledImages as UnlabeledImages
from .unlabeled_images import as_entries as as_entries
from .unlabeled_images import find_unlabeled as find_unlabeled
from .validation import Validation as Validation

__all__ = [
    "MODEL_FILE",
    "Batch",
    "Budget",
    "DataSpec",
    "Progress",
    "ProgressCallback",
    "Recipe",
    "Sam",
    "Source",
    "TrainContext",
    "TrainLoader",
    "UnlabeledImages",
    "Validation",
    "Views",
    "build_for",
    "describe_recipes",
    "embed",
    "embed_all",
    "encode_extra",
    "find_recipe",
    "gather_data_spec",
    "is_first",
    "keep_freed_memory",
    "keep_head",
    "load_recipe",
    "open_phase",
    "open_recipe",
    "open_recipes",
    "report_once",
]
