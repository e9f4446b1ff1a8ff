"""Many runs under one protocol: compare, reproduce, evaluate.

`compare`, `evaluate` and `reproduce` are modules here; the functions are `hemalum.compare`, `hemalum.evaluate` and
`reproduce.reproduce`.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
