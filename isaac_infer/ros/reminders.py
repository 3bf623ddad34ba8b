"""Reminders: when something that goes on is to be said again."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic

REPEAT_S = 10.0  # until the same is said again at least, and for how long it has to be away to be news
LONGEST_S = 3600.0
MOST_NEWS = 5  # in REPEAT_S: whoever sends rubbish of many kinds does not fill the log
MOST_KEPT = 100
_NUMBER = re.compile(r'-?\d+(\.\d+)?')


@dataclass(frozen=True)
class _Said:
    at_s: float
    pause_s: float  # until it is said again
    seen_s: float  # when it was the case last


class Reminders:
    """What goes on is said again after 10, 20, 40 s, ..., an hour; what is new, or comes back, at once."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._said: dict[str, _Said] = {}  # as they were the case, the last one last
        self._news_s: list[float] = []  # when something new was said

    def is_due(self, text: str) -> bool:
        """Tell whether to say something now; if so, it counts as said.

        Args:
            text: what is the case, asked about whenever it is. Numbers in it do not count: they change all
                the time.
        """
        now_s, key = self._clock(), _NUMBER.sub('', text)
        last = self._said.pop(key, None)
        if last is not None and now_s - last.seen_s <= REPEAT_S:
            if now_s - last.at_s < last.pause_s:
                self._said[key] = replace(last, seen_s=now_s)
                return False
            pause_s = min(2 * last.pause_s, LONGEST_S)
        else:
            self._news_s = [at_s for at_s in self._news_s if now_s - at_s < REPEAT_S]
            if len(self._news_s) == MOST_NEWS:
                return False
            self._news_s.append(now_s)
            pause_s = REPEAT_S
        self._said[key] = _Said(now_s, pause_s, now_s)
        while len(self._said) > MOST_KEPT:
            del self._said[next(iter(self._said))]
        return True
