"""Checks: what comes of them, in which order, and at the end of their time."""

import threading

import pytest

from isaac_infer.core.errors import ModelError, ParameterError
from isaac_infer.deploy.checks import (
    FAILED,
    NOT_RUN,
    PASSED,
    Check,
    CheckError,
    Group,
    NotRunError,
    Result,
    is_busy,
    is_passed,
    line_of,
    report_of,
    results_of,
    run_checks,
    verdict,
    with_optional,
)


def raising(error):
    def function():
        raise error

    return function


def passing():
    return {'size_mb': 1.5}


def run(*checks, timeout_s=20.0, close=lambda: None):
    return list(run_checks([Group(checks, close)], timeout_s=timeout_s))


def outcomes(results):
    return {result.name: result.outcome for result in results}


def test_no_checks_give_no_results_and_nothing_is_passed():
    assert list(run_checks([], timeout_s=5)) == []
    assert not is_passed([])
    assert verdict([]) == 'deployment not passed: 0 passed, 0 failed, 0 not run; no required check'


@pytest.mark.parametrize(
    ('function', 'outcome', 'reason', 'values'),
    [
        (passing, PASSED, '', {'size_mb': 1.5}),
        (raising(CheckError('too slow', {'p95_ms': 9.0})), FAILED, 'too slow', {'p95_ms': 9.0}),
        (raising(NotRunError('nobody tells')), NOT_RUN, 'nobody tells', {}),
        (raising(ModelError('a.onnx: no such file')), FAILED, 'a.onnx: no such file', {}),
        (raising(KeyError('gpu')), FAILED, "KeyError: 'gpu'", {}),
        (raising(MemoryError()), FAILED, 'MemoryError: ', {}),
    ],
)
def test_a_check_that_raises_has_failed_unless_it_says_that_it_was_not_run(function, outcome, reason, values):
    (result,) = run(Check('a', function))
    assert (result.outcome, result.reason, result.values) == (outcome, reason, values)
    assert is_passed([result]) == (outcome == PASSED)


def test_what_a_check_needs_has_to_have_passed():
    results = run(
        Check('file', raising(CheckError('gone'))),
        Check('load', passing, needs=('file',)),
        Check('run', passing, needs=('load',)),
        Check('disk', passing),
    )
    assert outcomes(results) == {'file': FAILED, 'load': NOT_RUN, 'run': NOT_RUN, 'disk': PASSED}
    assert results[2].reason == 'load did not pass'
    assert 'first: file: gone' in verdict(results)


def test_optional_checks_do_not_decide_and_required_ones_that_were_not_run_do():
    failed = Result('a', False, FAILED, 'x')
    assert is_passed([Result('b', True, PASSED), failed])
    assert not is_passed([failed])
    assert not is_passed([Result('b', True, PASSED), Result('c', True, NOT_RUN, 'x')])


def test_checks_are_made_optional_by_their_names():
    groups = [Group((Check('disk', passing), Check('clock', passing)))]
    (group,) = with_optional(groups, ['clock'])
    assert [check.is_required for check in group.checks] == [True, False]
    with pytest.raises(ParameterError, match=r"names of checks \(disk, clock\), got 'clocks'"):
        with_optional(groups, ['clocks'])


def test_at_the_end_of_the_time_the_check_under_way_has_failed_and_the_rest_is_not_run():
    release = threading.Event()
    results = run(
        Check('quick', passing),
        Check('stuck', lambda: release.wait() and {}),
        Check('later', passing),
        timeout_s=0.5,
    )
    assert outcomes(results) == {'quick': PASSED, 'stuck': FAILED, 'later': NOT_RUN}
    assert 'not done when the time for all checks, 0.5 s, was over' in results[1].reason
    assert is_busy(0)
    release.set()
    assert not is_busy(10)


def test_a_group_is_closed_in_the_thread_of_its_checks_after_the_last_of_them():
    calls = []
    note = lambda name: lambda: calls.append((name, threading.get_ident())) or {}  # noqa: E731
    run(Check('a', note('a')), Check('b', raising(CheckError('x'))), close=note('close'))
    assert [name for name, _ in calls] == ['a', 'close']
    assert len({thread for _, thread in calls}) == 1
    assert calls[0][1] != threading.get_ident()


def test_a_group_without_checks_is_closed_too():
    calls = []
    groups = [Group((), lambda: calls.append('close')), Group((Check('a', passing),))]
    assert outcomes(run_checks(groups, timeout_s=20)) == {'a': PASSED}
    assert calls == ['close']


def test_what_cannot_be_closed_is_a_failure():
    results = run(Check('a', passing), close=raising(ModelError('stuck')))
    assert outcomes(results) == {'a': PASSED, 'closing after a': FAILED}
    assert not is_passed(results)


def test_checks_that_somebody_ends_are_not_run():
    cancelled = threading.Event()
    checks = (Check('a', lambda: cancelled.set() or {}), Check('b', passing))
    results = list(run_checks([Group(checks)], timeout_s=20, cancelled=cancelled))
    assert outcomes(results) == {'a': PASSED, 'b': NOT_RUN}


def test_a_report_has_all_and_can_be_read_again():
    results = run(Check('a', passing), Check('b', raising(CheckError('slow')), is_required=False))
    report = report_of('robot.yaml', results)
    assert report['passed'] is True
    assert report['checks'][0]['values'] == {'size_mb': 1.5}
    assert results_of(report) == results


def test_a_line_says_what_was_measured_and_why_it_did_not_pass():
    assert line_of(Result('a', True, PASSED, '', {'p95_ms': 3.14159})) == 'passed: a: p95_ms 3.142'
    assert line_of(Result('b', False, FAILED, 'late', {'runs': 3})) == 'failed: b (optional): late; runs 3'
