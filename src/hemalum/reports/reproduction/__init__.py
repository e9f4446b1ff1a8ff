"""The page of a reproduction: a paper's tables beside those of runs here."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
