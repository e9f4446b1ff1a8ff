"""IHC → H&E: masks for an H&E section derived from a section stained by immunohistochemistry.

chromogen.py     where there is tissue, color deconvolution, and the mask of what the chromogen stained
search.py        the rough position: all rotations and shifts at once
registration.py  rigid, affine, B-spline, from that position on
quality.py       how far the result can be trusted
derive.py        one pair, from two images to instances
picture.py       what to look at
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
