"""Messages of another topic are found by the stamp of their picture."""

import threading

from isaac_infer.ros.recent import Recent


def test_what_does_not_come_is_not_waited_for_longer_than_wanted():
    assert Recent(3).take(1, 0.01) is None


def test_a_message_that_comes_meanwhile_is_taken_and_only_once():
    recent = Recent(3)
    threading.Timer(0.05, recent.add, (7, 'seven')).start()
    assert recent.take(7, 5) == 'seven'
    assert recent.take(7, 0.01) is None


def test_only_the_last_ones_are_kept():
    recent = Recent(2)
    for stamp in (1, 2, 3):
        recent.add(stamp, str(stamp))
    assert [recent.take(stamp, 0) for stamp in (1, 2, 3)] == [None, '2', '3']


def test_the_nearest_is_given_within_a_tolerance():
    recent = Recent(3)
    assert recent.nearest(10, 100) is None
    recent.add(10, 'ten')
    recent.add(20, 'twenty')
    assert (recent.nearest(14, 5), recent.nearest(16, 5), recent.nearest(40, 5)) == ('ten', 'twenty', None)
