"""Stats: percentiles over a sliding window of measurements."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


def percentile(values: Iterable[float], percent: float) -> float:
    """Give the value that `percent` of the values do not exceed, by trtexec's rule; NaN for no values."""
    ordered = sorted(values)
    if not ordered:
        return float('nan')
    excluded = int((100 - percent) * len(ordered) / 100)
    return ordered[max(len(ordered) - 1 - excluded, 0)]


class Window:
    """The last `length` measurements of one quantity."""

    def __init__(self, length: int = 300) -> None:
        self._values: deque[float] = deque(maxlen=length)

    def add(self, value: float) -> None:
        self._values.append(value)

    def percentiles(self) -> tuple[float, float, float]:
        """The 50th, 95th and 99th percentile; NaN while nothing was measured."""
        values = sorted(self._values)
        return percentile(values, 50), percentile(values, 95), percentile(values, 99)

    def __len__(self) -> int:
        return len(self._values)
