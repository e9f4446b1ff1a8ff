from .check import Problem as Problem
from .check import check_dataset as check_dataset
from .dataset import INDEX_FILE as INDEX_FILE
from .dataset import Dataset as Dataset
from .dataset import Row as Row
from .dataset import SplitInfo as SplitInfo
from .dataset import classes_by_instance as classes_by_instance
from .dataset import pixel_hash as pixel_hash
from .dataset import write_index as write_index
from .image import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from .image import MAX_PIXELS as MAX_PIXELS
from .image import check_size as check_size
from .image import is_tiff as is_tiff
from .image import over_white as over_white
from .image import read_image as read_image
from .image import read_label_map as read_label_map
from .image import stated_dpi as stated_dpi
from .image import stretch as stretch
from .image import to_label_map as to_label_map
from .image import to_rgb as to_rgb
from .importing import import_dataset as import_dataset
from .label_maps import SMOOTHING_UM as SMOOTHING_UM
from .label_maps import components as components
from .label_maps import is_binary as is_binary
from .label_maps import read_instances as read_instances
from .label_maps import same_size as same_size
from .label_maps import split_touching as split_touching
from .label_maps import to_integers as to_integers
from .labeled_fraction import LabeledFraction as LabeledFraction
from .labeled_fraction import divide as divide
from .labeled_fraction import present_classes as present_classes
from .nucleus_size import equivalent_diameters as equivalent_diameters
from .sample import Sample as Sample
from .sampling import CategoryAdaptive as CategoryAdaptive
from .sampling import image_weights as image_weights
from .sampling import strength as strength
from .splits import PARTS as PARTS
from .splits import Member as Member
from .splits import Part as Part
from .splits import one_fold_tests as one_fold_tests
from .splits import split_by_counts as split_by_counts
from .splits import split_by_group as split_by_group
from .splits import split_hash as split_hash

__all__ = [
    "IMAGE_SUFFIXES",
    "INDEX_FILE",
    "MAX_PIXELS",
    "PARTS",
    "SMOOTHING_UM",
    "CategoryAdaptive",
    "Dataset",
    "LabeledFraction",
    "Member",
    "Part",
    "Problem",
    "Row",
    "Sample",
    "SplitInfo",
    "check_dataset",
    "check_size",
    "classes_by_instance",
    "components",
    "divide",
    "equivalent_diameters",
    "image_weights",
    "import_dataset",
    "is_binary",
    "is_tiff",
    "one_fold_tests",
    "over_white",
    "pixel_hash",
    "present_classes",
    "read_image",
    "read_instances",
    "read_label_map",
    "same_size",
    "split_by_counts",
    "split_by_group",
    "split_hash",
    "split_touching",
    "stated_dpi",
    "strength",
    "stretch",
    "to_integers",
    "to_label_map",
    "to_rgb",
    "write_index",
]
