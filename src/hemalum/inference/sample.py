"""A part of a slide that stands for all of it: by it stain and marker are told, and whatever else holds for all."""

import math

import numpy as np

from hemalum.slides.slide import Slide
from hemalum.slides.tissue import Tissue

WHOLE = 1 << 26  # px: a smaller slide stands for itself
SIDE = 1024  # px of level 0: side of a field
ACROSS = 4  # fields in each direction of the sample


def sample_tissue(slide: Slide, tissue: Tissue, mpp: float | None) -> Slide:
    """Fields spread evenly over the tissue of a slide, side by side in one picture of the slide's own scale.

    A slide of up to 64 megapixels stands for itself. Which fields are taken follows from the tissue alone.
    """
    if math.prod(slide.shape) <= WHOLE:
        return slide
    high, wide = (min(SIDE, length) for length in slide.shape)
    rows, columns = slide.shape[0] // high, slide.shape[1] // wide
    share = np.array(
        [[tissue.share_in(x * wide, y * high, wide, high) for x in range(columns)] for y in range(rows)]
    ).ravel()
    # the fullest fields, in the order in which they lie
    full = np.flatnonzero(share >= min(0.5, share.max()))
    chosen = full[np.linspace(0, len(full) - 1, ACROSS * ACROSS).round().astype(int)]
    fields = [slide.read(int(k % columns) * wide, int(k // columns) * high, wide, high) for k in chosen]
    lines = [np.concatenate(fields[first : first + ACROSS], axis=1) for first in range(0, len(fields), ACROSS)]
    return Slide.of(np.concatenate(lines), name=slide.name, mpp=mpp)
