"""Pilot: a policy that is waited for no longer than there is time."""

import threading
import time

import pytest
from processes import wait_until

from isaac_infer.core.control.command import Command
from isaac_infer.core.errors import SessionError
from isaac_infer.ros.pilot import Pilot


class SlowPolicy:
    """A policy that answers when it is let."""

    backend, needs = 'by hand', frozenset({'scan'})

    def __init__(self):
        self.go, self.is_closed, self.asked = threading.Event(), False, []
        self.error = None

    def decide(self, *, is_anew):
        self.asked.append(is_anew)
        assert self.go.wait(10)
        if self.error:
            raise self.error
        return Command(float(len(self.asked)))

    def close(self):
        self.is_closed = True


@pytest.fixture
def policy():
    return SlowPolicy()


@pytest.fixture
def errors():
    return []


@pytest.fixture
def pilot(policy, errors):
    pilot = Pilot(lambda: policy, errors.append)
    assert wait_until(lambda: pilot.policy is policy)
    yield pilot
    policy.go.set()
    pilot.close(5)


def soon(seconds=5.0):
    return time.monotonic() + seconds


def test_an_answer_in_time_is_given(pilot, policy):
    policy.go.set()
    assert pilot.answer(pilot.ask(is_anew=True), soon()).wanted == Command(1.0)
    assert pilot.answer(pilot.ask(is_anew=False), soon()).wanted == Command(2.0)
    assert policy.asked == [True, False]
    assert pilot.backend == 'by hand'


def test_a_policy_that_hangs_is_waited_for_until_the_deadline_and_its_late_answer_is_not_taken(pilot, policy):
    begun_s = time.monotonic()
    assert not pilot.is_busy
    first = pilot.ask(is_anew=False)
    assert pilot.answer(first, soon(0.05)) is None
    assert pilot.is_busy
    assert 0.05 <= time.monotonic() - begun_s < 2
    second = pilot.ask(is_anew=False)
    assert pilot.answer(second, soon(0.0)) is None
    third = pilot.ask(is_anew=False)
    policy.go.set()
    assert pilot.answer(third, soon()).number == third
    assert not pilot.is_busy
    assert len(policy.asked) == 2  # the second question was forgotten


@pytest.mark.parametrize(
    ('error', 'text'), [(SessionError('no output'), 'no output'), (KeyError('action'), "KeyError: 'action'")]
)
def test_an_error_is_the_answer_and_the_next_question_counts_again(pilot, policy, errors, error, text):
    policy.go.set()
    policy.error = error
    decision = pilot.answer(pilot.ask(is_anew=False), soon())
    assert (decision.error, decision.wanted) == (text, Command())
    assert text in errors[0]
    policy.error = None
    assert pilot.answer(pilot.ask(is_anew=False), soon()).error == ''


def test_a_policy_that_cannot_be_opened_is_a_problem_that_stays(errors):
    def load():
        raise SessionError('no such file')

    pilot = Pilot(load, errors.append)
    assert wait_until(lambda: pilot.problem == 'no such file')
    assert pilot.policy is None
    assert errors == ['no such file']
    pilot.close(5)


def test_before_it_is_open_that_is_the_problem(errors):
    go = threading.Event()
    pilot = Pilot(lambda: go.wait(10) and SlowPolicy(), errors.append)
    assert pilot.problem == 'the control model is being opened'
    go.set()
    assert wait_until(lambda: not pilot.problem)
    pilot.close(5)


def test_closing_closes_the_policy_and_says_where_it_is_busy(policy, errors):
    pilot = Pilot(lambda: policy, errors.append)
    assert wait_until(lambda: pilot.policy is policy)
    pilot.ask(is_anew=False)
    assert wait_until(lambda: policy.asked)
    with pytest.raises(TimeoutError):
        pilot.close(0.05)
    policy.go.set()
    pilot.close(5)
    assert policy.is_closed
