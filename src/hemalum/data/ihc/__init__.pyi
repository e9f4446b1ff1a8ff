from .chromogen import AEC as AEC
from .chromogen import CHROMOGENS as CHROMOGENS
from .chromogen import DAB as DAB
from .chromogen import FAST_RED as FAST_RED
from .chromogen import HEMATOXYLIN as HEMATOXYLIN
from .chromogen import Chromogen as Chromogen
from .derive import MIN_AREA_UM2 as MIN_AREA_UM2
from .derive import MIN_QUALITY as MIN_QUALITY
from .derive import Derived as Derived
from .derive import Settings as Settings
from .pairs import IhcPair as IhcPair
from .pairs import find_pairs as find_pairs
from .pairs import read_landmarks as read_landmarks
from .picture import draw_pair as draw_pair
from .picture import write_picture as write_picture
from .registration import LEVELS as LEVELS
from .registration import Level as Level
from .registration import load_simpleitk as load_simpleitk
from .tissue import MIN_DENSITY as MIN_DENSITY
from .tissue import optical_density as optical_density
from .tissue import tissue_mask as tissue_mask

__all__ = [
    "AEC",
    "CHROMOGENS",
    "DAB",
    "FAST_RED",
    "HEMATOXYLIN",
    "LEVELS",
    "MIN_AREA_UM2",
    "MIN_DENSITY",
    "MIN_QUALITY",
    "Chromogen",
    "Derived",
    "IhcPair",
    "Level",
    "Settings",
    "draw_pair",
    "find_pairs",
    "load_simpleitk",
    "optical_density",
    "read_landmarks",
    "tissue_mask",
    "write_picture",
]
