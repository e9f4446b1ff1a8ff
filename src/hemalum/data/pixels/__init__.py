"""What stored samples mean: colors, channels, transparency, range and orientation, one rule for all readers."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
