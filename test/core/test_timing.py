"""Timings: trtexec's statistics."""

import math

import pytest

from isaac_infer.core.timing import Timings, coefficient_of_variation, summarise


def test_nothing_measured_is_no_number():
    timings = summarise([])
    assert timings.count == 0
    assert math.isnan(timings.median) and math.isnan(timings.p99)


def test_one_measurement_is_everything():
    assert summarise([3.0]) == Timings(3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, count=1)


def test_a_hundred_measurements_in_any_order_are_summed_up():
    timings = summarise(range(100, 0, -1))
    assert timings == Timings(min=1, max=100, mean=50.5, median=50.5, p90=90, p95=95, p99=99, count=100)


@pytest.mark.parametrize(
    ('count', 'p90', 'p99'),
    [(1, 1, 1), (2, 2, 2), (9, 9, 9), (10, 9, 10), (19, 18, 19), (20, 18, 20), (199, 180, 198)],
)
def test_the_share_that_a_percentile_leaves_out_is_rounded_down(count, p90, p99):
    timings = summarise(range(1, count + 1))
    assert (timings.p90, timings.p99) == (p90, p99)


@pytest.mark.parametrize(
    ('times_ms', 'expected'), [([], 0), ([0, 0], 0), ([5], 0), ([4, 4, 4], 0), ([1, 3], 0.5)]
)
def test_variation_is_a_share_of_the_mean(times_ms, expected):
    assert coefficient_of_variation(times_ms) == pytest.approx(expected)
