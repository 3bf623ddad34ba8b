"""Pairs: pictures, each with what another node has found in it, brought together by their stamp."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

from isaac_infer.core.errors import FrameError
from isaac_infer.ros.recent import Recent

Picture = TypeVar('Picture')
Found = TypeVar('Found')

MOST_PICTURES = 16  # that wait, each may be megabytes; one that comes then is given up
MOST_FOUND = 30  # that wait for their picture: small


@dataclass(frozen=True)
class _Waiting(Generic[Picture]):
    stamp_ns: int
    picture: Picture
    until_s: float


class Pairs(Generic[Picture, Found]):
    """Pictures wait here for what was found in them, and that for its picture; one thread at a time.

    Whichever of the two comes second makes the pair. Pictures that are older than that of a pair are given
    up: no answer is older than the one before it. A clock that jumps back by more than the timeout, as where
    a recording begins again, is taken for a new beginning.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._timeout_s, self._clock = timeout_s, clock
        self._waiting: list[_Waiting[Picture]] = []  # as they came
        self._found: Recent[Found] = Recent(MOST_FOUND)
        self._past: deque[int] = deque(maxlen=MOST_FOUND)  # stamps of pictures that are answered or given up
        self._answered_ns: int | None = None  # the newest of the pairs
        self._latest_ns: int | None = None  # the newest of the pictures
        self._given_up = 0

    def add_picture(self, stamp_ns: int, picture: Picture) -> tuple[Picture, Found] | None:
        """Give the pair that a picture completes; None where it has to wait, or is given up.

        Raises:
            FrameError: another picture had the same stamp, so that nobody knows what was found in which.
        """
        if self._latest_ns is not None and self._latest_ns - stamp_ns > self._timeout_s * 1e9:
            self._given_up += self.clear()
        self._latest_ns = max(stamp_ns, self._latest_ns or stamp_ns)
        if stamp_ns in self._past or any(stamp_ns == waiting.stamp_ns for waiting in self._waiting):
            raise FrameError(
                f'image: expected a stamp of its own for every picture, got {stamp_ns} ns again: what was '
                'found in one may be of the other; have the camera stamp its pictures'
            )
        found = self._found.take(stamp_ns)
        if self._answered_ns is not None and stamp_ns < self._answered_ns:
            self._give_up([stamp_ns])
            return None
        if found is not None:
            return self._pair(stamp_ns, picture, found)
        if len(self._waiting) == MOST_PICTURES:
            self._give_up([stamp_ns])
            return None
        self._waiting.append(_Waiting(stamp_ns, picture, self._clock() + self._timeout_s))
        return None

    def add_found(self, stamp_ns: int, found: Found) -> tuple[Picture, Found] | None:
        """Give the pair that is completed by what was found in a picture; None where that is not there."""
        if stamp_ns in self._past:
            return None
        for at, waiting in enumerate(self._waiting):
            if waiting.stamp_ns == stamp_ns:
                del self._waiting[at]
                return self._pair(stamp_ns, waiting.picture, found)
        self._found.add(stamp_ns, found)
        return None

    def expire(self) -> list[int]:
        """Give up the pictures that have waited for too long; tell their stamps."""
        now_s = self._clock()
        late = [waiting.stamp_ns for waiting in self._waiting if waiting.until_s <= now_s]
        del self._waiting[: len(late)]  # they came first
        self._past.extend(late)
        return late

    def take_given_up(self) -> int:
        """How many pictures were given up for another one since this was asked last."""
        given_up, self._given_up = self._given_up, 0
        return given_up

    def clear(self) -> int:
        """Give up the pictures that wait, and forget those before them; tell how many waited."""
        count = len(self._waiting)
        self._waiting.clear()
        self._past.clear()
        self._found = Recent(MOST_FOUND)
        self._answered_ns = self._latest_ns = None
        return count

    def _pair(self, stamp_ns: int, picture: Picture, found: Found) -> tuple[Picture, Found]:
        self._give_up([waiting.stamp_ns for waiting in self._waiting if waiting.stamp_ns < stamp_ns])
        self._waiting = [waiting for waiting in self._waiting if waiting.stamp_ns > stamp_ns]
        self._past.append(stamp_ns)
        self._answered_ns = stamp_ns
        return picture, found

    def _give_up(self, stamps_ns: list[int]) -> None:
        self._past.extend(stamps_ns)
        self._given_up += len(stamps_ns)
