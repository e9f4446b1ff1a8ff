"""Review: experts correct the nuclei of a model; a journal keeps every change, and labels are made of it."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
