"""Health counts, and reports numbers."""

import math

import pytest
from builtin_interfaces.msg import Time
from rclpy.clock import ClockType, ROSClock
from rclpy.node import Node
from rclpy.time import Time as RosTime

from isaac_infer.ros import diagnostics as module
from isaac_infer.ros.diagnostics import (
    BUSY,
    LOST,
    MOST_ERRORS,
    OTHERS,
    WARN,
    Health,
    clock_problem,
    diagnostics_msg,
    report_values,
)


def test_a_node_that_did_nothing_reports_zeros():
    values = report_values(Health().report())
    assert values['rate_hz'] == '0.00'
    assert values['received'] == values['answered'] == values['dropped_busy'] == '0'
    assert values['last_error'] == ''


def test_counts_go_on_and_differences_begin_anew_with_every_report():
    health = Health()
    health.received()
    health.received()
    health.answered({'run': 5.0})
    health.dropped(BUSY)
    health.dropped(LOST, count=3)
    first, second = health.report(), health.report()
    assert (first.total.received, first.recent.received) == (2, 2)
    assert (second.total.received, second.recent.received) == (2, 0)
    assert first.recent.dropped[LOST] == second.total.dropped[LOST] == 3
    assert second.recent.dropped == dict.fromkeys(second.recent.dropped, 0)
    assert first.rate_hz > 0 and second.rate_hz == 0


def test_rates_of_the_whole_run_are_those_from_the_first_to_the_last_picture(monkeypatch):
    health = Health()
    assert health.rates_hz() == (0, 0)
    for number in range(11):
        monkeypatch.setattr(module, 'monotonic', lambda number=number: 100 + number / 5)
        health.received()
        if number % 2 == 0:
            health.answered({})
        health.report()
    monkeypatch.setattr(module, 'monotonic', lambda: 200.0)  # nothing came for long
    assert health.rates_hz() == pytest.approx((2.5, 5.0))


def test_stages_are_reported_by_percentile():
    health = Health()
    for time_ms in range(1, 101):
        health.answered({'run': float(time_ms)})
    values = report_values(health.report())
    assert float(values['run_ms_p50']) == pytest.approx(50, abs=1)
    assert float(values['run_ms_p99']) == pytest.approx(99, abs=1)


def test_every_kind_of_error_is_in_one_report_with_how_many_there_were():
    health = Health()
    for step in (10, 20, 30):
        health.error(f'expected a step of 192, got {step}')
        health.error('unknown encoding')
    values = report_values(health.report())
    assert values['errors'] == '3 x expected a step of 192, got 10 | 3 x unknown encoding'
    assert values['last_error'] == 'unknown encoding'
    values = report_values(health.report())
    assert (values['errors'], values['last_error']) == ('', 'unknown encoding')


def test_kinds_of_errors_without_end_are_counted_and_not_kept():
    health = Health()
    for letter in range(MOST_ERRORS + 50):
        health.error(chr(0x3B1 + letter))
    report = health.report()
    assert len(report.errors) == MOST_ERRORS + 1 and report.errors[OTHERS] == 50


def test_another_model_begins_with_new_times_and_no_error():
    health = Health()
    health.answered({'run': 1.0})
    health.error('the old model failed')
    health.restart()
    report = health.report()
    assert not report.percentiles_ms and not report.last_error and report.total.answered == 1


def test_no_number_in_the_values_is_nan():
    health = Health()
    health.answered({'run': 0.0})
    numbers = [value for key, value in report_values(health.report()).items() if 'error' not in key]
    assert not any(math.isnan(float(number)) for number in numbers)


def test_a_status_carries_level_name_and_values():
    message = diagnostics_msg('n: detections', WARN, 'slow', {'a': 'b'}, stamp=Time(sec=2), hardware_id='cpu')
    (status,) = message.status
    assert (status.name, status.level, status.message, status.hardware_id) == (
        'n: detections',
        WARN,
        'slow',
        'cpu',
    )
    assert [(pair.key, pair.value) for pair in status.values] == [('a', 'b')]
    assert message.header.stamp.sec == 2


def test_simulated_time_that_nobody_tells_is_a_problem(ros):
    node = Node('example', cli_args=['--ros-args', '-p', 'use_sim_time:=true'])
    clock = node.get_clock()
    assert 'no /clock came' in clock_problem(clock)
    clock.set_ros_time_override(RosTime(nanoseconds=1, clock_type=ClockType.ROS_TIME))
    assert clock_problem(clock) == ''
    node.destroy_node()
    assert clock_problem(ROSClock()) == ''  # of a node without it
