"""Stats: percentiles."""

import math

import pytest

from isaac_infer.core.stats import Window, percentile


def test_no_values_have_no_percentile():
    assert math.isnan(percentile([], 50))
    assert all(math.isnan(value) for value in Window().percentiles())


@pytest.mark.parametrize(('percent', 'expected'), [(0, 1), (50, 50), (90, 90), (99, 99), (100, 100)])
def test_percentiles_follow_the_rule_of_trtexec(percent, expected):
    assert percentile(range(100, 0, -1), percent) == expected


def test_a_window_forgets_what_lies_behind_its_length():
    window = Window(length=3)
    for value in (1000, 1, 2, 3):
        window.add(value)
    assert window.percentiles() == (2, 3, 3)
