"""Many runs under one protocol: compare, reproduce, refine; and what they rest on, evaluate.

`compare`, `evaluate`, `reproduce` and `refine` are modules here; the functions are `hemalum.compare` and so on.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
