"""Load level: how much work a board can take at the moment, in one word."""

from __future__ import annotations

NORMAL = 'normal'
REDUCED = 'reduced'
MINIMAL = 'minimal'
LEVELS = (NORMAL, REDUCED, MINIMAL)  # from the most work to the least
