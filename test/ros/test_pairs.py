"""Pictures and what another node has found in them come together by their stamp."""

import pytest

from isaac_infer.core.errors import FrameError
from isaac_infer.ros.pairs import MOST_FOUND, MOST_PICTURES, Pairs


@pytest.fixture
def pairs(clock):
    return Pairs(0.2, clock)


def test_whichever_comes_second_makes_the_pair(pairs):
    assert pairs.add_picture(1, 'one') is None
    assert pairs.add_found(1, 'in one') == ('one', 'in one')
    assert pairs.add_found(2, 'in two') is None
    assert pairs.add_picture(2, 'two') == ('two', 'in two')
    assert (pairs.take_given_up(), pairs.expire(), pairs.clear()) == (0, [], 0)


@pytest.mark.parametrize('is_there_before', [False, True])
def test_a_pair_gives_up_the_pictures_before_it_and_leaves_those_after_it(pairs, is_there_before):
    pairs.add_picture(1, 'one')
    pairs.add_picture(2, 'two')
    if is_there_before:
        pairs.add_found(3, 'in three')
        assert pairs.add_picture(3, 'three') == ('three', 'in three')
        pairs.add_picture(4, 'four')
    else:
        pairs.add_picture(3, 'three')
        pairs.add_picture(4, 'four')
        assert pairs.add_found(3, 'in three') == ('three', 'in three')
    assert (pairs.take_given_up(), pairs.take_given_up()) == (2, 0)
    assert pairs.add_found(2, 'in two') is None
    assert pairs.add_found(4, 'in four') == ('four', 'in four')


@pytest.mark.parametrize('before', ['waits', 'is answered', 'is too late'])
def test_a_stamp_that_comes_again_is_refused(pairs, clock, before):
    pairs.add_picture(0, 'first')
    if before == 'is answered':
        pairs.add_found(0, 'in first')
    if before == 'is too late':
        clock.now_s += 1
        pairs.expire()
        assert pairs.add_found(0, 'in first') is None
    with pytest.raises(FrameError, match='a stamp of its own'):
        pairs.add_picture(0, 'second')


def test_what_comes_twice_makes_one_pair(pairs):
    pairs.add_picture(1, 'one')
    assert pairs.add_found(1, 'in one') == ('one', 'in one')
    assert pairs.add_found(1, 'in one') is None
    assert pairs.add_picture(2, 'two') is None


def test_a_picture_that_comes_after_a_newer_one_was_answered_is_given_up(pairs):
    pairs.add_found(1, 'in one')
    pairs.add_picture(2, 'two')
    assert pairs.add_found(2, 'in two') == ('two', 'in two')
    assert pairs.add_picture(1, 'one') is None
    assert pairs.take_given_up() == 1


def test_a_picture_that_comes_after_newer_ones_that_wait_leaves_these(pairs):
    pairs.add_found(1, 'in one')
    pairs.add_picture(2, 'two')
    assert pairs.add_picture(1, 'one') == ('one', 'in one')
    assert pairs.add_found(2, 'in two') == ('two', 'in two')
    assert pairs.take_given_up() == 0


def test_a_recording_that_begins_again_goes_on(pairs):
    for _ in range(3):
        for second in range(4):
            stamp_ns = second * 10**9
            pairs.add_picture(stamp_ns, second)
            assert pairs.add_found(stamp_ns, 'found') == (second, 'found')
        pairs.add_picture(5 * 10**9, 'not answered any more')
    assert pairs.take_given_up() == 2
    pairs.add_picture(0, 'first')
    assert pairs.add_found(5 * 10**9, 'too late') is None
    assert pairs.add_found(0, 'in first') == ('first', 'in first')


def test_whoever_begins_again_may_see_the_same_pictures(pairs):
    pairs.add_picture(1, 'one')
    assert pairs.add_found(1, 'in one') and pairs.clear() == 0
    pairs.add_picture(1, 'one')
    assert pairs.add_found(1, 'in one') == ('one', 'in one')


def test_a_picture_whose_other_half_is_there_needs_no_room(pairs):
    for stamp in range(MOST_PICTURES):
        pairs.add_picture(stamp, 'waits')
    pairs.add_found(99, 'found')
    assert pairs.add_picture(99, 'picture') == ('picture', 'found')
    assert (pairs.take_given_up(), pairs.clear()) == (MOST_PICTURES, 0)


def test_a_picture_that_waits_for_too_long_expires(pairs, clock):
    pairs.add_picture(1, 'one')
    clock.now_s += 0.1
    pairs.add_picture(2, 'two')
    clock.now_s += 0.15
    assert (pairs.expire(), pairs.expire()) == ([1], [])
    assert pairs.add_found(1, 'in one') is None
    assert pairs.add_found(2, 'in two') == ('two', 'in two')


def test_what_is_kept_is_bounded(pairs):
    for stamp in range(1000):
        pairs.add_found(-1 - stamp, 'nothing of these')
        pairs.add_picture(stamp, 'a picture')
    assert pairs.add_picture(-1000 + MOST_FOUND, 'too late') is None
    assert pairs.add_picture(-1001 + MOST_FOUND, 'kept') == ('kept', 'nothing of these')
    waiting = pairs.clear()
    assert waiting <= MOST_PICTURES and waiting + pairs.take_given_up() == 1001


def test_as_many_pictures_are_answered_as_can_wait_while_more_come(pairs):
    late = 3 * MOST_PICTURES
    made = []
    for stamp in range(10 * late):
        pairs.add_picture(stamp, stamp)
        if stamp >= late and (pair := pairs.add_found(stamp - late, 'found')):
            made.append(pair[0])
    assert len(made) >= 9 * MOST_PICTURES and made == sorted(made)
