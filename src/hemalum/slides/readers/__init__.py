"""Readers of slides and images: one file for each way to read, all behind one protocol."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
