"""What goes on is said at growing distances, what changes at once."""

import pytest

from isaac_infer.ros.reminders import LONGEST_S, REPEAT_S, Reminders


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def said():
    """Ask a second after the other, and give the seconds at which something is due."""
    clock = Clock()
    reminders = Reminders(clock)

    def said(seconds, what='', subject='camera'):
        begin, due = clock.now_s, []
        while clock.now_s < begin + seconds:
            if reminders.is_due(subject, what):
                due.append(clock.now_s - begin)
            clock.now_s += 1
        return due

    said.clock = clock
    return said


def test_what_does_not_change_is_said_at_growing_distances(said):
    assert said(160) == [0, 10, 30, 70, 150]


def test_the_distance_has_an_end(said):
    due = said(5 * LONGEST_S)
    assert due[-1] - due[-2] == LONGEST_S


def test_what_changes_is_said_soon(said):
    said(100)
    assert said(12, 'another') == [0, 10]
    assert said(REPEAT_S + 1, 'a third') == [8]


def test_what_comes_back_is_news(said):
    said(75)  # next in a minute
    said.clock.now_s += 11
    assert said(12) == [0, 10]


def test_subjects_do_not_know_one_another(said):
    said(5)
    assert said(5, subject='clock') == [0]
