"""Images of any size, read by rows when these are needed, with the scale that a file states."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
