"""`njit` of numba, with what it compiles kept in the cache folder, the one for all that is kept.

numba's own rule takes a folder beside the source or one in the user's home when a module is imported, and ends the
program where neither can be written. Here nothing is looked for before a function is first called, and a function
that cannot be kept is compiled in memory.
"""

import functools
import hashlib
import logging
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numba
from numba.core import caching

from hemalum.cache import cache_folders, reason_of, temporary_folder, writable_folder
from hemalum.errors import HemalumError, one_line

log = logging.getLogger(__name__)

# by version, as a function may call one of a file that has changed; the package imports all others, this one too
KIND = f"compiled/{import_module('hemalum').__version__}"


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit(cache=True, **options)`, with the functions kept in the cache folder."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        if hasattr(dispatcher, "_cache"):  # not with NUMBA_DISABLE_JIT
            dispatcher._cache = _KeptFunction(function)
        return dispatcher

    return decorate


class _Locator(caching._CacheLocator):
    """Where a function's compiled forms lie: in a folder that is made only when one is written."""

    folder: Path

    def __init__(self, function: Any, source: str) -> None:
        self.source, self.line = source, function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_Locator":
        return cls(py_func, py_file)

    def get_cache_path(self) -> str:
        parent = Path(self.source).absolute().parent
        return str(self.folder / f"{parent.name}_{hashlib.sha256(str(parent).encode()).hexdigest()[:16]}")

    def get_source_stamp(self) -> str:
        return _source_stamp(self.source)

    def get_disambiguator(self) -> str:
        return str(self.line)


class _KeptFunction(caching._Cache):
    """The kept forms of one function: looked for in every cache folder, written to the one that can be written."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._files: dict[Path, Any] = {}

    @property
    def cache_path(self) -> str:
        return str(self._at(cache_folders()[0]).cache_path)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        for root in cache_folders():
            try:
                kept = self._at(root).load_overload(sig, target_context)
            except Exception:  # what is damaged raises whatever pickle does
                log.debug("%s: %s cannot be read", root, self._function.__qualname__, exc_info=True)
                continue
            if kept is not None:
                return kept
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            root = writable_folder()
            try:
                self._save(root, sig, data)
            except OSError as error:  # the disk is full, or the folder of this kind is another user's
                self._save(temporary_folder(root, reason_of(error)), sig, data)
        except (OSError, HemalumError) as error:
            _say_once(f"compiled functions cannot be kept: {one_line(error, 300)}")

    def _save(self, root: Path, sig: Any, data: Any) -> None:
        kept = self._at(root)
        try:
            kept.save_overload(sig, data)
        except OSError:
            raise
        except Exception:  # a damaged index, which is read before it is written
            kept.flush()
            kept.save_overload(sig, data)

    def enable(self) -> None:
        """Nothing to do: it is always."""

    def disable(self) -> None:
        """Nothing to do: it is always enabled."""

    def flush(self) -> None:
        """Forget the kept forms."""
        self._at(writable_folder()).flush()

    def _at(self, root: Path) -> Any:
        if root not in self._files:
            locator = type("_LocatorAt", (_Locator,), {"folder": root / KIND})
            forms = type("_FormsAt", (caching.CompileResultCacheImpl,), {"_locator_classes": [locator]})
            self._files[root] = type("_FilesAt", (caching.FunctionCache,), {"_impl_class": forms})(self._function)
        return self._files[root]


@functools.cache
def _source_stamp(source: str) -> str:
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()


@functools.cache
def _say_once(line: str) -> None:
    log.warning(line)
