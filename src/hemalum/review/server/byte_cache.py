"""Bytes that were made once and are kept while there is room for them."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class ByteCache:
    """Bytes by key, at most `limit` in all: the ones not asked for longest go first. Several threads may ask.

    What several ask for at once is made by one of them, while the others wait.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """The bytes of a key, made where they are not there; what `make` raises is raised, and nothing is kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._kept:  # by the one that this one waited for
                    return self._kept[key]
            try:
                content = make()
            finally:
                with self._lock:
                    self._making.pop(key, None)
            with self._lock:
                self._keep(key, content)
        return content

    def _keep(self, key: Hashable, content: bytes) -> None:
        self.size += len(content) - len(self._kept.pop(key, b""))
        self._kept[key] = content
        while self.size > self.limit and self._kept:
            self.size -= len(self._kept.popitem(last=False)[1])
