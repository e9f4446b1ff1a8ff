from .activation import activation_map as activation_map
from .measure import Measured as Measured
from .measure import organ_recall as organ_recall
from .refine import BEFORE as BEFORE
from .refine import MOVED as MOVED
from .refine import REFINED as REFINED
from .refine import Refinement as Refinement
from .selection import mean_entropy as mean_entropy
from .selection import pixel_entropy as pixel_entropy

__all__ = [
    "BEFORE",
    "MOVED",
    "REFINED",
    "Measured",
    "Refinement",
    "activation_map",
    "mean_entropy",
    "organ_recall",
    "pixel_entropy",
]
