from .bands import run_image as run_image
from .batch import FileResult as FileResult
from .batch import find_images as find_images
from .batch import segment_paths as segment_paths
from .probability import segment_with_maps as segment_with_maps
from .resample import Resampler as Resampler
from .scale import estimate_mpp as estimate_mpp
from .scale import find_scale as find_scale
from .scale import scaled_shape as scaled_shape
from .segment import NO_ORGAN as NO_ORGAN
from .segment import as_engine as as_engine
from .segment import segment_source as segment_source
from .staining import check_stain as check_stain
from .staining import find_staining as find_staining
from .tiles import plan_grid as plan_grid
from .tta import describe_tta as describe_tta
from .tta import without_tta as without_tta

__all__ = [
    "NO_ORGAN",
    "FileResult",
    "Resampler",
    "as_engine",
    "check_stain",
    "describe_tta",
    "estimate_mpp",
    "find_images",
    "find_scale",
    "find_staining",
    "plan_grid",
    "run_image",
    "scaled_shape",
    "segment_paths",
    "segment_source",
    "segment_with_maps",
    "without_tta",
]
