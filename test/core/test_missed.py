"""Deadlines missed, from counters in statuses."""

import pytest

from isaac_infer.core.missed import MOST, WINDOW_S, MissedDeadlines


def after(*statuses, now_s=2.0):
    """Give what was missed after statuses: when, of whom, their values."""
    missed = MissedDeadlines()
    for at_s, name, values in statuses:
        missed.add(name, values, at_s)
    return missed.count(now_s)


@pytest.mark.parametrize(
    ('statuses', 'count'),
    [
        ([], 0),
        ([(0, 'a', {'dropped_busy': '7'})], 0),  # of the time before
        ([(0, 'a', {'dropped_busy': '7'}), (1, 'a', {'dropped_busy': '9'})], 2),
        ([(0, 'a', {'deadline_missed': '0'}), (1, 'a', {'deadline_missed': '1'})], 1),
        ([(0, 'a', {'dropped_busy': '7'}), (1, 'b', {'dropped_busy': '9'})], 0),
        ([(0, 'a', {'dropped_busy': '7'}), (1, 'a', {'dropped_busy': '2'})], 0),  # it was started anew
        ([(at_s, 'a', {'dropped_busy': str(at_s**2)}) for at_s in (0, 1, 2)], 4),
        ([(0, 'a', {'dropped_busy': '1'}), (1, 'a', {'dropped_busy': 'many'})], 0),
        ([(0, 'a', {'dropped_busy': '1'}), (1, 'a', {'dropped_busy': '9' * 5000})], 0),
        ([(0, 'a', {'received': '1'}), (1, 'a', {'received': '9'})], 0),
    ],
)  # fmt: skip
def test_what_counters_have_grown_by_is_missed(statuses, count):
    assert after(*statuses) == count


def test_what_was_missed_long_ago_does_not_count():
    statuses = [(0, 'a', {'dropped_busy': '0'}), (1, 'a', {'dropped_busy': '5'})]
    assert after(*statuses, now_s=1 + WINDOW_S) == 5
    assert after(*statuses, now_s=1.1 + WINDOW_S) == 0


def test_whoever_sends_statuses_of_many_names_is_not_followed_for_ever():
    names = [f'name {number}' for number in range(2 * MOST)]
    missed = MissedDeadlines()
    for name in names:
        missed.add(name, {'dropped_busy': '0'}, 0.0)
    for name in reversed(names):
        missed.add(name, {'dropped_busy': '1'}, 1.0)
    assert missed.count(2.0) == MOST


def test_after_statuses_of_many_names_a_new_node_is_followed():
    flood = [(0, f'name {number}', {'dropped_busy': '0'}) for number in range(MOST)]
    node = [(1, 'detector', {'dropped_busy': '0'}), (2, 'detector', {'dropped_busy': '3'})]
    assert after(*flood, *node) == 3
