"""Recent: the last messages of a topic, found by the stamp of the picture that they belong to."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar('T')


class Recent(Generic[T]):
    """Keeps the last values by stamp; one thread adds, another one asks."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._values: OrderedDict[int, T] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, stamp_ns: int, value: T) -> None:
        """Keep a value; the oldest one goes."""
        with self._lock:
            self._values[stamp_ns] = value
            self._values.move_to_end(stamp_ns)
            if len(self._values) > self._length:
                self._values.popitem(last=False)

    def take(self, stamp_ns: int) -> T | None:
        """Give the value of a stamp, once, as another picture may have the same; None where none came."""
        with self._lock:
            return self._values.pop(stamp_ns, None)

    def nearest(self, stamp_ns: int, tolerance_ns: int) -> T | None:
        """Give the value whose stamp differs least, or None where it differs more than that."""
        with self._lock:
            stamp = min(self._values, key=lambda stamp: abs(stamp - stamp_ns), default=None)
            return None if stamp is None or abs(stamp - stamp_ns) > tolerance_ns else self._values[stamp]
