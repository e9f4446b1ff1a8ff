"""Images and whole slides as they lie on disk: their pixels at any scale, and the scale that they state."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
