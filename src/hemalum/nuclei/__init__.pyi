from .ihc_score import Positive as Positive
from .ihc_score import check_positive as check_positive
from .morphology import describe as describe
from .morphology import hematoxylin as hematoxylin
from .morphology import moments as moments
from .nuclei import Nuclei as Nuclei
from .nuclei import Part as Part
from .nuclei import measure as measure
from .peaks import measure_depth as measure_depth
from .peaks import smooth as smooth
from .polygons import Polygons as Polygons
from .polygons import fill as fill
from .polygons import split_pieces as split_pieces
from .polygons import trace as trace
from .refining import refine as refine
from .separation import TAKEN as TAKEN
from .separation import flood as flood
from .settings import SeparationSettings as SeparationSettings

__all__ = [
    "TAKEN",
    "Nuclei",
    "Part",
    "Polygons",
    "Positive",
    "SeparationSettings",
    "check_positive",
    "describe",
    "fill",
    "flood",
    "hematoxylin",
    "measure",
    "measure_depth",
    "moments",
    "refine",
    "smooth",
    "split_pieces",
    "trace",
]
