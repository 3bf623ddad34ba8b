"""An object keeps its number from picture to picture."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isaac_infer.core.track import MOST_UNSEEN, Tracker

FRAME_NS = 33_000_000


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_nobody_has_no_number():
    assert Tracker()(boxes(), 0).tolist() == []


def test_objects_that_move_a_little_keep_their_numbers_in_whatever_order_they_come():
    tracker = Tracker()
    assert tracker(boxes((0, 0, 10, 10), (50, 0, 60, 10)), 0).tolist() == [1, 2]
    assert tracker(boxes((51, 1, 61, 11), (1, 0, 11, 10)), FRAME_NS).tolist() == [2, 1]


def test_the_pair_that_overlaps_most_is_matched_first():
    tracker = Tracker()
    tracker(boxes((0, 0, 10, 10)), 0)
    assert tracker(boxes((4, 0, 14, 10), (1, 0, 11, 10)), FRAME_NS).tolist() == [2, 1]


def test_one_that_is_hidden_for_a_moment_is_known_again_and_after_a_while_is_new():
    tracker = Tracker()
    tracker(boxes((0, 0, 10, 10)), 0)
    tracker(boxes(), FRAME_NS)
    assert tracker(boxes((0, 0, 10, 10)), 2 * FRAME_NS).tolist() == [1]
    for at in range(3, 40):
        tracker(boxes(), at * FRAME_NS)
    assert tracker(boxes((0, 0, 10, 10)), 40 * FRAME_NS).tolist() == [2]


def test_an_object_keeps_its_number_however_slow_the_pictures_come():
    tracker = Tracker()
    found, nobody = boxes((0, 0, 10, 10)), boxes()
    stream = [found, found, nobody, nobody, found, nobody, nobody, nobody, nobody, found]
    numbers = [tracker(rows, at * 1_100_000_000).tolist() for at, rows in enumerate(stream)]
    assert numbers == [[1], [1], [], [], [1], [], [], [], [], [2]]


def test_what_is_remembered_is_bounded_where_no_time_passes():
    tracker = Tracker()
    for at in range(1000):
        tracker(boxes((20 * at, 0, 20 * at + 10, 10)), 0)
    assert len(tracker.numbers) == 1 + MOST_UNSEEN


def test_everything_is_new_where_time_goes_back():
    tracker = Tracker()
    tracker(boxes((0, 0, 10, 10)), 10 * FRAME_NS)
    assert tracker(boxes((0, 0, 10, 10)), 0).tolist() == [2]


sides = st.integers(0, 30)
pictures = st.lists(st.lists(st.tuples(sides, sides, sides, sides), max_size=6), max_size=8)


@given(pictures)
def test_no_two_objects_of_a_picture_share_a_number(stream):
    tracker = Tracker()
    for at, rows in enumerate(stream):
        corners = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in rows]
        numbers = tracker(boxes(*corners), at * FRAME_NS).tolist()
        assert len(set(numbers)) == len(rows) and all(number > 0 for number in numbers)
