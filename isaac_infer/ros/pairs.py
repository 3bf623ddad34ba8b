"""Pairs: pictures, each with what another node has found in it, brought together by their stamp."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

from isaac_infer.ros.recent import Recent

Picture = TypeVar('Picture')
Found = TypeVar('Found')

MOST_PICTURES = 16  # that wait: each may be megabytes
MOST_FOUND = 30  # that wait for their picture: small


@dataclass(frozen=True)
class _Waiting(Generic[Picture]):
    stamp_ns: int
    picture: Picture
    until_s: float


class Pairs(Generic[Picture, Found]):
    """Pictures wait here for what was found in them, and that for its picture; one thread at a time.

    Whichever of the two comes second makes the pair. Pictures that came before that of a pair are given up:
    no answer is older than the one before it.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._timeout_s, self._clock = timeout_s, clock
        self._waiting: list[_Waiting[Picture]] = []  # as they came
        self._found: Recent[Found] = Recent(MOST_FOUND)
        self._given_up = 0

    def add_picture(self, stamp_ns: int, picture: Picture) -> tuple[Picture, Found] | None:
        """Give the pair that a picture completes; None where it has to wait."""
        found = self._found.take(stamp_ns)
        if found is not None:
            self._given_up += self.clear()
            return picture, found
        if len(self._waiting) == MOST_PICTURES:
            # Every other one: were it always the oldest, none would live until what is found in it comes.
            self._given_up += len(self._waiting[1::2])
            del self._waiting[1::2]
        self._waiting.append(_Waiting(stamp_ns, picture, self._clock() + self._timeout_s))
        return None

    def add_found(self, stamp_ns: int, found: Found) -> tuple[Picture, Found] | None:
        """Give the pair that is completed by what was found in a picture; None where that is not there."""
        for at, waiting in enumerate(self._waiting):
            if waiting.stamp_ns == stamp_ns:
                self._given_up += at
                del self._waiting[: at + 1]
                return waiting.picture, found
        self._found.add(stamp_ns, found)
        return None

    def expire(self) -> list[int]:
        """Give up the pictures that have waited for too long; tell their stamps."""
        now_s = self._clock()
        late = [waiting.stamp_ns for waiting in self._waiting if waiting.until_s <= now_s]
        del self._waiting[: len(late)]  # they came first
        return late

    def take_given_up(self) -> int:
        """How many pictures were given up for a newer one since this was asked last."""
        given_up, self._given_up = self._given_up, 0
        return given_up

    def clear(self) -> int:
        """Give up the pictures that wait; tell how many."""
        count = len(self._waiting)
        self._waiting.clear()
        return count
