"""RateLimit: which of the pictures that come are taken, where that should be so many per second at most."""

from __future__ import annotations

_EARLY = 0.1  # of a period: what comes so little too early is taken, or 10 of 30 Hz would often be 7.5


class RateLimit:
    """Lets through what is due on a grid, so that the rate is kept on average however they come."""

    def __init__(self) -> None:
        self._due_s = self._taken_s = float('-inf')

    def is_due(self, now_s: float, rate_hz: float) -> bool:
        """Tell whether one that comes now is to be taken; the rate may be another one every time."""
        period_s = 1 / rate_hz
        due_s = min(self._due_s, self._taken_s + (1 + _EARLY) * period_s)  # the grid may be of a lower rate
        if now_s < due_s - _EARLY * period_s:
            return False
        # After a pause the grid begins anew: what was not taken then is not made up for.
        self._due_s = (due_s if now_s - due_s < period_s else now_s) + period_s
        self._taken_s = now_s
        return True
