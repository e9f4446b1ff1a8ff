from .he_appearance import DAB as DAB
from .he_appearance import HEMATOXYLIN as HEMATOXYLIN
from .he_appearance import NUCLEAR_SHARE as NUCLEAR_SHARE
from .he_appearance import ColorChange as ColorChange
from .he_appearance import FluorescenceMap as FluorescenceMap
from .he_appearance import HdabMap as HdabMap
from .he_appearance import HdabStains as HdabStains
from .he_appearance import find_hdab as find_hdab
from .jitter import DARKEST as DARKEST
from .jitter import StainProfile as StainProfile
from .jitter import draw_stain_jitter as draw_stain_jitter
from .jitter import jitter_stain as jitter_stain
from .jitter import measure_stains as measure_stains
from .jitter import stain_transfer as stain_transfer
from .normalization import StainMap as StainMap
from .normalization import StainNormalization as StainNormalization
from .normalization import StainNormalizer as StainNormalizer
from .normalization import UnfitImage as UnfitImage
from .normalization import match_stain as match_stain
from .normalization import measure_stain as measure_stain
from .normalization import sample_image as sample_image
from .normalization import sample_pixels as sample_pixels
from .recognition import LEAST_PINK as LEAST_PINK
from .recognition import STAIN_NAMES as STAIN_NAMES
from .recognition import STAIN_TITLES as STAIN_TITLES
from .recognition import Recognition as Recognition
from .recognition import Stain as Stain
from .recognition import known_stains as known_stains
from .recognition import recognize_stain as recognize_stain
from .separation import STAINS as STAINS
from .separation import angle_between as angle_between
from .separation import white_of as white_of
from .simulated_dab import draw_dab as draw_dab
from .statistics import StainTarget as StainTarget
from .target import fit_stain_target as fit_stain_target

__all__ = [
    "DAB",
    "DARKEST",
    "HEMATOXYLIN",
    "LEAST_PINK",
    "NUCLEAR_SHARE",
    "STAINS",
    "STAIN_NAMES",
    "STAIN_TITLES",
    "ColorChange",
    "FluorescenceMap",
    "HdabMap",
    "HdabStains",
    "Recognition",
    "Stain",
    "StainMap",
    "StainNormalization",
    "StainNormalizer",
    "StainProfile",
    "StainTarget",
    "UnfitImage",
    "angle_between",
    "draw_dab",
    "draw_stain_jitter",
    "find_hdab",
    "fit_stain_target",
    "jitter_stain",
    "known_stains",
    "match_stain",
    "measure_stain",
    "measure_stains",
    "recognize_stain",
    "sample_image",
    "sample_pixels",
    "stain_transfer",
    "white_of",
]
