"""From an image to its nuclei: windows, maps, scale, stain, separation band by band.

`segment` is a module here; the function is `hemalum.segment`.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
