"""What goes on is said at growing distances, what is new at once."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from isaac_infer.ros.reminders import LONGEST_S, MOST_KEPT, MOST_LINES, Reminders


@pytest.fixture
def said(clock):
    """Ask a second after the other, and give the seconds at which something is due."""
    reminders = Reminders(clock)

    def said(seconds, text='no picture'):
        begin, due = clock.now_s, []
        while clock.now_s < begin + seconds:
            if reminders.is_due(text):
                due.append(clock.now_s - begin)
            clock.now_s += 1
        return due

    said.clock, said.reminders = clock, reminders
    return said


def test_what_does_not_change_is_said_at_growing_distances(said):
    assert said(160) == [0, 10, 30, 70, 150]


def test_the_distance_has_an_end(said):
    due = said(5 * LONGEST_S)
    assert due[-1] - due[-2] == LONGEST_S


def test_numbers_in_it_are_no_change(said):
    due = []
    for second in range(160):
        due += [
            second for _ in said(1, f'no picture for {second} s, the newest is {-second / 7:.3f} s older')
        ]
    assert due == [0, 10, 30, 70, 150]


def test_something_else_is_said_at_once_and_neither_disturbs_the_other(said):
    assert said(5) == [0]
    due = []
    for second in range(5, 75):
        for text in ('no picture', 'bad step'):
            due += [(second, text) for _ in said(0.5, text)]
            said.clock.now_s -= 0.5
    assert [second for second, text in due if text == 'no picture'] == [10, 30, 70]
    assert [second for second, text in due if text == 'bad step'] == [5, 15, 35]


def test_what_comes_back_is_news(said):
    said(75)  # next in a minute
    said.clock.now_s += 11
    assert said(12) == [0, 10]


def test_reminders_of_many_kinds_together_are_no_more_lines_than_news(said):
    letters, begin = [chr(97 + at) for at in range(26)], said.clock.now_s
    due = []
    for _ in range(3000):
        said.clock.now_s += 0.1
        due += [(said.clock.now_s - begin, letter) for letter in letters if said.reminders.is_due(letter)]
    times = [at_s for at_s, _ in due]
    assert max(sum(at_s <= other < at_s + 9.9 for other in times) for at_s in times) == MOST_LINES
    assert {letter for _, letter in due} == set(letters)


def test_rubbish_of_many_kinds_does_not_fill_the_log_and_is_not_kept(said):
    letters = [f'{chr(97 + at // 26)}{chr(97 + at % 26)}' for at in range(500)]
    said_now = [text for text in letters if said.reminders.is_due(text)]
    assert said_now == letters[:MOST_LINES]
    for text in letters:
        said.clock.now_s += 10
        assert said.reminders.is_due(text)
    assert len(said.reminders._said) == MOST_KEPT


def test_the_bound_holds_whoever_asks_at_the_same_time():
    def ask(number):
        start.wait()
        return sum(reminders.is_due(f'{chr(97 + number)}{chr(97 + kind)}') for kind in range(26))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(50):
                reminders, start = Reminders(), Barrier(4)
                assert sum(pool.map(ask, range(4))) == MOST_LINES
    finally:
        sys.setswitchinterval(interval)
