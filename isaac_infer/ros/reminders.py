"""Reminders: when something that goes on is to be said again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic

REPEAT_S = 10.0  # between two messages about one subject, at least
LONGEST_S = 3600.0


@dataclass(frozen=True)
class _Said:
    what: str
    at_s: float
    pause_s: float  # until it is said again
    seen_s: float  # when the subject came up last


class Reminders:
    """What goes on is said again after 10, 20, 40 s, ..., an hour; what changed or came back after 10 s."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._said: dict[str, _Said] = {}

    def is_due(self, subject: str, what: str = '') -> bool:
        """Tell whether to say something about a subject now; if so, it counts as said.

        Args:
            subject: one of a few, asked about whenever it comes up: after 10 s without it is news.
            what: is the case, without the numbers that change all the time.
        """
        now_s, last = self._clock(), self._said.get(subject)
        is_known = last is not None and last.what == what and now_s - last.seen_s <= REPEAT_S
        pause_s = last.pause_s if last is not None and is_known else REPEAT_S
        if last is not None and now_s - last.at_s < pause_s:
            self._said[subject] = replace(last, seen_s=now_s)
            return False
        self._said[subject] = _Said(what, now_s, min(2 * pause_s, LONGEST_S) if is_known else REPEAT_S, now_s)
        return True
