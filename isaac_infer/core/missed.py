"""Missed: how many deadlines the nodes around missed lately, from the counters in their statuses."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from threading import Lock

COUNTERS = ('deadline_missed', 'dropped_busy')  # of the executor, of nodes that answer pictures
WINDOW_S = 3.0  # statuses come once a second
MOST = 1000  # counters that are followed, those heard last; anybody may publish statuses


class MissedDeadlines:
    """Follows counters that only grow, for any thread; where one falls its node was started anew."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last: dict[tuple[str, str], int] = {}
        self._missed: deque[tuple[float, int]] = deque()  # when, how many

    def add(self, name: str, values: Mapping[str, str], now_s: float) -> None:
        """Take the values of a status, by the name of the status."""
        for counter in COUNTERS:
            text = values.get(counter, '')
            if not (text.isascii() and text.isdecimal() and len(text) <= 18):
                continue
            key, count = (name, counter), int(text)
            with self._lock:
                grown = count - self._last.pop(key, count)
                self._last[key] = count  # at the end: the first is the one of which nobody spoke for longest
                if len(self._last) > MOST:
                    del self._last[next(iter(self._last))]
                if grown > 0:
                    self._missed.append((now_s, grown))

    def count(self, now_s: float) -> int:
        """Tell how many were missed in the last WINDOW_S."""
        with self._lock:
            while self._missed and now_s - self._missed[0][0] > WINDOW_S:
                self._missed.popleft()
            return sum(count for _, count in self._missed)
