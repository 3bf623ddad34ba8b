"""Variants: the choice as a table, and its hysteresis over time."""

from itertools import pairwise

import pytest

from isaac_infer.core.control.variants import (
    VariantLimits,
    VariantReadings,
    VariantState,
    choose_variant,
)

LIMITS = VariantLimits(mean_ms=20, least_hz=10, max_celsius=80, hold_s=10, settle_s=2)
GOOD = {
    'answers': 100,
    'mean_ms': 10,
    'rate_hz': 30,
    'input_rate_hz': 30,
    'celsius': 50,
    'load_level': 'normal',
}


def choose(index=0, ready=(0, 1, 2), *, limits=LIMITS, now_s=100.0, since_s=0.0, **readings):
    state = VariantState(index, since_s)
    return choose_variant(state, VariantReadings(now_s, **{**GOOD, **readings}), limits, ready)


@pytest.mark.parametrize(
    ('case', 'index'),
    [
        ({'limits': VariantLimits(), 'mean_ms': 999, 'celsius': 120}, 0),
        ({}, 0),
        ({'mean_ms': 20}, 0),
        ({'mean_ms': 20.1}, 1),
        ({'mean_ms': 99, 'index': 1}, 2),
        ({'mean_ms': 99, 'index': 2}, 2),
        ({'mean_ms': 99, 'answers': 9, 'since_s': 90.5}, 0),
        ({'mean_ms': 99, 'answers': 9, 'since_s': 89.5}, 1),
        ({'mean_ms': 99, 'since_s': 98.5}, 0),
        ({'mean_ms': 99, 'ready': (0,)}, 0),
        ({'mean_ms': 99, 'ready': (0, 2)}, 2),
        ({'rate_hz': 9, 'input_rate_hz': 30}, 1),
        ({'rate_hz': 9, 'input_rate_hz': 9}, 0),
        ({'rate_hz': 9.9, 'input_rate_hz': 10.1}, 0),  # as good as all are answered
        ({'rate_hz': 0, 'answers': 0}, 1),
        ({'rate_hz': 0, 'answers': 9, 'since_s': 90.5}, 0),
        ({'rate_hz': 0, 'answers': 9, 'since_s': 89.5}, 1),
        ({'celsius': 81}, 1),
        ({'celsius': 81, 'answers': 0}, 1),
        ({'celsius': None}, 0),
        ({'load_level': 'reduced'}, 1),
        ({'load_level': 'reduced', 'since_s': 100}, 1),
        ({'load_level': 'minimal'}, 2),
        ({'load_level': 'minimal', 'ready': (0, 1)}, 1),
        ({'load_level': 'minimal', 'ready': (0,)}, 0),
        ({'load_level': 'reduced', 'mean_ms': 99, 'index': 1}, 2),
        ({'held_up_s': 9.9, 'index': 2}, 2),
        ({'held_up_s': 10, 'index': 2}, 1),
        ({'held_up_s': 10, 'index': 2, 'load_level': 'minimal'}, 1),
        ({'held_up_s': 10, 'index': 2, 'ready': (0, 2)}, 0),
        ({'held_up_s': 10, 'index': 2, 'ready': (2,)}, 2),
        ({'held_up_s': 10, 'limits': VariantLimits()}, 1),
        ({'load_level': ''}, 0),
        ({'load_level': 'nonsense'}, 0),
    ],
)
def test_the_next_variant(case, index):
    assert choose(**case).index == index


@pytest.mark.parametrize(
    ('case', 'reason'),
    [
        ({'mean_ms': 20.01}, '20.01 ms per picture, more than 20'),
        ({'rate_hz': 9.99}, '9.99 pictures per second, fewer than 10'),
        ({'celsius': 80.125}, '80.1 °C, more than 80'),
    ],
)
def test_a_reason_tells_a_number_from_its_limit(case, reason):
    assert choose(**case).reason == reason


def test_a_change_says_why_in_numbers():
    assert choose(mean_ms=25).reason == '25.0 ms per picture, more than 20'
    assert choose(celsius=91).reason == '91 °C, more than 80'
    assert choose(load_level='minimal').reason == 'load level minimal'


class Course:
    """A choice every second."""

    def __init__(self, index=0):
        self.state, self.now_s = VariantState(index), 100.0

    def run(self, seconds, **readings):
        """Give the indices over so many seconds."""
        indices = []
        for _ in range(seconds):
            self.now_s += 1
            given = VariantReadings(self.now_s, **{**GOOD, **readings})
            self.state = choose_variant(self.state, given, LIMITS, (0, 1, 2))
            indices.append(self.state.index)
        return indices


def test_a_heavier_one_is_tried_again_after_a_calm_time_and_not_before():
    course = Course(1)
    assert course.run(10) == [1] * 10
    assert course.run(1) == [0]


@pytest.mark.parametrize('only_just', [{'mean_ms': 17}, {'celsius': 76}, {'load_level': 'reduced'}])
def test_only_just_inside_the_limits_is_not_calm(only_just):
    assert set(Course(1).run(100, **only_just)) == {1}


def test_calm_has_to_last():
    course = Course(1)
    for _ in range(5):
        assert set(course.run(9) + course.run(1, mean_ms=18)) == {1}


def test_a_heavier_one_that_cannot_be_kept_is_tried_less_and_less_often():
    course, trials_s = Course(1), []
    for _ in range(2000):
        before = course.state.index
        course.run(1, mean_ms=40 if course.state.index == 0 else 10)
        if course.state.index < before:
            trials_s.append(course.now_s)
    pauses_s = [b - a for a, b in pairwise(trials_s)]
    assert pauses_s[0] > 15
    assert all(b >= a for a, b in pairwise(pauses_s))
    assert pauses_s[-1] <= 16 * LIMITS.hold_s + 5


@pytest.mark.parametrize('hung', [{'mean_ms': 5000}, {'rate_hz': 0}])
def test_one_that_hangs_is_tried_less_and_less_often_too(hung):
    course, trials_s = Course(1), []
    for _ in range(2000):
        before = course.state.index
        course.run(1, **({**hung, 'answers': 0} if course.state.index == 0 else {}))
        if course.state.index < before:
            trials_s.append(course.now_s)
    pauses_s = [b - a for a, b in pairwise(trials_s)]
    assert pauses_s[0] >= 30 and pauses_s[-1] >= 16 * LIMITS.hold_s
    assert all(b >= a for a, b in pairwise(pauses_s))


def test_a_heavier_one_is_never_taken_against_the_load_level():
    course = Course(2)
    assert set(course.run(60, load_level='reduced')[11:]) == {1}


def test_a_variant_without_an_answer_is_not_inside_the_limits():
    state = VariantState(2, 0.0, calm_since_s=80.0)
    readings = VariantReadings(100.0, **{**GOOD, 'answers': 0, 'held_up_s': 9.0})
    found = choose_variant(state, readings, VariantLimits(), (0, 1, 2))
    assert (found.index, found.calm_since_s) == (2, None)
