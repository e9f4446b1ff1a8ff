"""How often a wrong scale, and labels turned against their images, are named; and how often right ones are doubted.

    python benchmarks/plausibility.py MODEL DATASET… [--split test] [--images 20] [--json FILE]

DATASET is a dataset folder as `hemalum import` writes it; images whose mpp came from nuclei are left out of the first
part. Each image is segmented at its scale and as if it were 2, 2.54, 1/2 and 1/2.54 times that: a warning at its own
is a false alarm, and one that points the right way at another is a hit; how many name the very factor is counted,
too. The comparison's share of the time of segmenting is that at the right scale, images one after the other as in a
folder. Of each set, labels are laid on their images as they are and in the seven other turns and mirrorings (of images
that are not square, in three).
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from hemalum.data.dataset import Dataset
from hemalum.data.label_fit import TURNS, find_fit, fit_of
from hemalum.inference.plausibility import ScaleCheck, SeenNuclei
from hemalum.inference.scale import Scale
from hemalum.inference.segment import as_engine, segment_source
from hemalum.inference.staining import find_staining
from hemalum.models.model import load_model
from hemalum.slides.slide import Slide
from inputs import choose_evenly
from record import argument_parser, write_record

FACTORS = (1.0, 2.0, 2.54, 1 / 2, 1 / 2.54)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("model", help="model file or name of a shipped model")
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--split", default="test", help="part of each set, or 'all'")
    parser.add_argument("--images", type=int, default=20, help="at most so many of each set, evenly spread")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
