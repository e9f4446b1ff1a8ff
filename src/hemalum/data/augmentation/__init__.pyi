from .appearance import apply_appearance as apply_appearance
from .appearance import normalize as normalize
from .crops import augment as augment
from .crops import cut as cut
from .image_bank import ImageBank as ImageBank
from .settings import AugmentSettings as AugmentSettings
from .strong_views import StrongViews as StrongViews
from .strong_views import draw_box as draw_box
from .strong_views import partners as partners
from .strong_views import strengthen as strengthen
from .warp import Prepared as Prepared
from .warp import crop_of as crop_of
from .warp import inside_of as inside_of

__all__ = [
    "AugmentSettings",
    "ImageBank",
    "Prepared",
    "StrongViews",
    "apply_appearance",
    "augment",
    "crop_of",
    "cut",
    "draw_box",
    "inside_of",
    "normalize",
    "partners",
    "strengthen",
]
