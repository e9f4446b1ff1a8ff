"""The page of `hemalum review`: its HTTP interface, and the server on this computer that gives it."""

from importlib.util import find_spec as _find_spec

import lazy_loader as _lazy

from hemalum.errors import HemalumError as _HemalumError

for _package in ("fastapi", "uvicorn"):
    if _find_spec(_package) is None:
        raise _HemalumError(f"the review page needs {_package}: pip install 'hemalum[review]'")

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
