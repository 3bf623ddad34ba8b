"""Schedule: due times on a grid, with times of our own."""

import tracemalloc
from math import isnan

import pytest

from isaac_infer.core.control.schedule import Schedule


def test_nothing_done_is_no_rate_and_no_jitter():
    pace = Schedule(10, 5.0).pace(5.0)
    assert isnan(pace.rate_hz)
    assert isnan(pace.jitter_ms_p99)
    assert (pace.overruns, pace.total_overruns) == (0, 0)


def test_small_delays_do_not_add_up():
    schedule = Schedule(10, 100.0)
    for step in range(50):
        assert schedule.due_s == pytest.approx(100.0 + step * 0.1)
        assert schedule.done(schedule.due_s + 0.03) == 0


@pytest.mark.parametrize(
    ('late_s', 'passed', 'next_due_s'),
    [(0.0, 0, 0.1), (0.099, 0, 0.1), (0.101, 1, 0.2), (0.35, 3, 0.4), (60.05, 600, 60.1)],
)
def test_due_times_that_pass_are_counted_and_not_made_up_for(late_s, passed, next_due_s):
    schedule = Schedule(10, 0.0)
    assert schedule.done(late_s) == passed
    assert schedule.due_s == pytest.approx(next_due_s)
    assert schedule.pace(late_s).overruns == schedule.pace(late_s).total_overruns == passed


def test_what_is_done_before_it_is_due_counts_for_its_due_time():
    schedule = Schedule(10, 1.0)
    assert schedule.done(0.95) == 0
    assert schedule.due_s == pytest.approx(1.1)


def test_rate_and_jitter_are_those_of_the_window():
    schedule = Schedule(10, 0.0, window_s=2.0)
    for step in range(100):
        schedule.done(schedule.due_s + (0.02 if step % 2 else 0.0))
    pace = schedule.pace(9.95)
    assert pace.rate_hz == pytest.approx(10)
    assert pace.jitter_ms_p50 == pytest.approx(20)
    assert pace.jitter_ms_p99 == pytest.approx(20)


def test_overruns_leave_the_window_and_stay_in_the_total():
    schedule = Schedule(10, 0.0, window_s=1.0)
    schedule.done(0.25)
    for _ in range(20):
        schedule.done(schedule.due_s)
    pace = schedule.pace(schedule.due_s)
    assert (pace.overruns, pace.total_overruns) == (0, 2)


def test_a_process_that_was_frozen_for_a_day_remembers_no_more_than_before():
    schedule = Schedule(1000, 0.0)
    tracemalloc.start()
    passed = schedule.done(86_400.0)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert passed == schedule.pace(86_400.0).overruns == pytest.approx(86_400_000, abs=1)
    assert most_bytes < 10_000


def test_the_rate_falls_while_nothing_is_done():
    schedule = Schedule(10, 0.0, window_s=2.0)
    for _ in range(20):
        schedule.done(schedule.due_s)
    assert schedule.pace(3.0).rate_hz == pytest.approx(4.5, abs=0.5)
    assert schedule.pace(10.0).rate_hz == 0
