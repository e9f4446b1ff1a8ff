"""hemalum: nucleus segmentation for histopathology.

The public API is what `__init__.pyi` lists. Each name is imported when it is first used, so that `import hemalum` and
`hemalum --help` load neither torch nor NumPy.
"""

import lazy_loader as _lazy

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
