"""Timings: many measurements of one duration, summed up as trtexec does."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from isaac_infer.core.stats import percentile


@dataclass(frozen=True)
class Timings:
    """How long something took, in milliseconds, over `count` runs; NaN where nothing was measured."""

    min: float
    max: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    count: int


def summarise(times_ms: Iterable[float]) -> Timings:
    """Sum up measurements; the percentiles follow trtexec's rule (see `percentile`), so that both compare."""
    ordered = sorted(times_ms)
    if not ordered:
        nothing = math.nan
        return Timings(nothing, nothing, nothing, nothing, nothing, nothing, nothing, count=0)
    return Timings(
        min=ordered[0],
        max=ordered[-1],
        mean=statistics.fmean(ordered),
        median=statistics.median(ordered),
        p90=percentile(ordered, 90),
        p95=percentile(ordered, 95),
        p99=percentile(ordered, 99),
        count=len(ordered),
    )


def coefficient_of_variation(times_ms: Iterable[float]) -> float:
    """Give the standard deviation as a share of the mean; 0 where there is nothing that could vary."""
    times = list(times_ms)
    mean = statistics.fmean(times) if times else 0.0
    return statistics.pstdev(times, mean) / mean if mean > 0 else 0.0
