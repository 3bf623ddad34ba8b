"""Messages of another topic are found by the stamp of their picture."""

from isaac_infer.ros.recent import Recent


def test_a_message_is_taken_only_once():
    recent = Recent(3)
    assert recent.take(7) is None
    recent.add(7, 'seven')
    assert (recent.take(7), recent.take(7)) == ('seven', None)


def test_only_the_last_ones_are_kept():
    recent = Recent(2)
    for stamp in (1, 2, 3):
        recent.add(stamp, str(stamp))
    assert [recent.take(stamp) for stamp in (1, 2, 3)] == [None, '2', '3']


def test_the_nearest_is_given_within_a_tolerance():
    recent = Recent(3)
    assert recent.nearest(10, 100) is None
    recent.add(10, 'ten')
    recent.add(20, 'twenty')
    assert (recent.nearest(14, 5), recent.nearest(16, 5), recent.nearest(40, 5)) == ('ten', 'twenty', None)
