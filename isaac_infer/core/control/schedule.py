"""Schedule: due times on a grid, and how well they are kept."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from math import nan

from isaac_infer.core.stats import percentile


@dataclass(frozen=True)
class Pace:
    """How well due times were kept over a window; NaN where nothing tells."""

    rate_hz: float
    jitter_ms_p50: float  # of the time between two, against the period, without its sign
    jitter_ms_p99: float
    overruns: int  # due times that passed while the work of an earlier one went on, in the window
    total_overruns: int


class Schedule:
    """Due times at a fixed rate; all times are seconds of one steady clock, given by the caller.

    They lie on a grid, so that delays do not add up. Work that takes longer than a period costs the due times
    that pass meanwhile: they are counted and never made up for.
    """

    def __init__(self, rate_hz: float, start_s: float, *, window_s: float = 10.0) -> None:
        """Begin; the first due time is `start_s`."""
        self.period_s = 1.0 / rate_hz
        self._start_s, self._window_s = start_s, window_s
        self._step = 0
        self._done: deque[tuple[float, int]] = deque()  # when, and how many due times passed meanwhile
        self._total_overruns = 0

    @property
    def due_s(self) -> float:
        """When the next one is due."""
        return self._start_s + self._step * self.period_s

    def done(self, at_s: float) -> int:
        """Note that what was due is done; give how many due times passed meanwhile."""
        passed = max(int((at_s - self.due_s) / self.period_s), 0)
        self._step += 1 + passed
        self._done.append((at_s, passed))
        self._total_overruns += passed
        self._forget(at_s)
        return passed

    def pace(self, now_s: float) -> Pace:
        """Sum up the last `window_s`."""
        self._forget(now_s)
        done_s = [at_s for at_s, _ in self._done]
        jitter_ms = [abs(b - a - self.period_s) * 1e3 for a, b in pairwise(done_s)]
        span_s = min(now_s - self._start_s, self._window_s)
        return Pace(
            rate_hz=len(done_s) / span_s if span_s > 0 else nan,
            jitter_ms_p50=percentile(jitter_ms, 50),
            jitter_ms_p99=percentile(jitter_ms, 99),
            overruns=sum(passed for _, passed in self._done),
            total_overruns=self._total_overruns,
        )

    def _forget(self, now_s: float) -> None:
        while self._done and self._done[0][0] <= now_s - self._window_s:
            self._done.popleft()
