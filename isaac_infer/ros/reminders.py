"""Reminders: when something that goes on is to be said again."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock
from time import monotonic

REPEAT_S = 10.0  # until the same is said again at least, and for how long it has to be away to be news
LONGEST_S = 3600.0
MOST_LINES = 5  # in REPEAT_S, of all kinds: whoever sends rubbish of many does not fill the log
MOST_KEPT = 100
_NUMBER = re.compile(r'-?\d+(\.\d+)?')


@dataclass(frozen=True)
class _Said:
    at_s: float
    pause_s: float  # until it is said again
    seen_s: float  # when it was the case last


def kind_of(text: str) -> str:
    """What stays the same of something that goes on: numbers in it change all the time."""
    return _NUMBER.sub('', text)


class Reminders:
    """What goes on is said again after 10, 20, 40 s, ..., an hour; what is new, or comes back, at once.

    More than MOST_LINES in REPEAT_S have to wait until there is room, whatever they say.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._said: dict[str, _Said] = {}  # as they were the case, the last one last
        self._lines_s: list[float] = []  # when the last ones were said
        self._lock = Lock()  # the model's thread asks, and the executor's

    def is_due(self, text: str) -> bool:
        """Tell whether to say something now; if so, it counts as said.

        Args:
            text: what is the case, asked about whenever it is; see `kind_of`.
        """
        with self._lock:
            return self._is_due(kind_of(text), self._clock())

    def _is_due(self, key: str, now_s: float) -> bool:
        last = self._said.pop(key, None)
        self._lines_s = [at_s for at_s in self._lines_s if now_s - at_s < REPEAT_S]
        is_full, pause_s = len(self._lines_s) >= MOST_LINES, REPEAT_S
        if last is not None and now_s - last.seen_s <= REPEAT_S:
            if is_full or now_s - last.at_s < last.pause_s:
                self._said[key] = replace(last, seen_s=now_s)
                return False
            pause_s = min(2 * last.pause_s, LONGEST_S)
        elif is_full:
            return False
        self._lines_s.append(now_s)
        self._said[key] = _Said(now_s, pause_s, now_s)
        while len(self._said) > MOST_KEPT:
            del self._said[next(iter(self._said))]
        return True
