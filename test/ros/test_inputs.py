"""Inputs: the newest message and its age; subscriptions that the executor never sees."""

import time

import pytest
from processes import Peer, wait_until
from rclpy.serialization import serialize_message
from sensor_msgs.msg import LaserScan
from std_msgs.msg import Header

from isaac_infer.core.errors import FrameError
from isaac_infer.ros.inputs import Newest, TakenInput

SECOND = 10**9


def stamped(stamp_s):
    header = Header()
    header.stamp.sec, header.stamp.nanosec = divmod(round(stamp_s * SECOND), SECOND)
    return serialize_message(header)


def test_an_input_without_a_message_has_no_age_and_says_nothing():
    newest = Newest('scan', bytes, is_stamped=True)
    assert newest.age_s(100.0, 100 * SECOND) is None
    assert newest.value() is None


@pytest.mark.parametrize(
    ('stamp_s', 'arrived_s', 'age_s'),
    [
        (100, 9.5, 0.5),  # by its arrival: the clock of the sensor is ahead, or ROS time stands still
        (97, 9.5, 3.0),  # by its stamp: it was under way for long
        (102, 9.5, -2.0),  # from the future
        (100.05, 5.0, 5.0),  # a little from there, by a clock that stands still
        (0, 9.5, 100.0),
    ],
)
def test_the_older_of_stamp_and_arrival_counts(stamp_s, arrived_s, age_s):
    newest = Newest('scan', bytes, is_stamped=True)
    newest.arrived(stamped(stamp_s), arrived_s)
    assert newest.age_s(10.0, 100 * SECOND) == pytest.approx(age_s)


def test_what_has_no_stamp_is_as_old_as_its_arrival():
    newest = Newest('command', bytes, is_stamped=False)
    newest.arrived(b'\0\1\0\0', 9.0)
    assert newest.age_s(10.0, 0) == pytest.approx(1.0)


@pytest.mark.parametrize('cdr', [b'', b'\0', b'garbage that is no message'])
def test_what_cannot_be_a_message_counts_as_none(cdr):
    newest = Newest('scan', bytes, is_stamped=True)
    newest.arrived(stamped(1), 9.0)
    newest.arrived(cdr, 9.1)
    assert newest.age_s(10.0, SECOND) is None
    assert newest.problem.startswith('scan: ')
    newest.arrived(stamped(1), 9.2)
    assert newest.problem == ''


def test_a_message_is_read_once_whether_it_can_be_or_not():
    reads = []

    def read(cdr):
        reads.append(cdr)
        if len(reads) == 1:
            raise FrameError('a bad one')
        return 7

    newest = Newest('scan', read, is_stamped=True)
    newest.arrived(stamped(1), 9.0)
    for _ in range(2):
        with pytest.raises(FrameError):
            newest.value()
    assert newest.problem == 'a bad one'
    newest.arrived(stamped(2), 9.1)
    assert [newest.value(), newest.value()] == [7, 7]
    assert len(reads) == 2


@pytest.fixture
def peer(ros):
    peer = Peer('inputs')
    yield peer
    peer.close()


def test_the_newest_message_is_taken_when_it_is_asked_for_and_never_by_the_executor(peer):
    taken = TakenInput(
        peer.node, 'scan', LaserScan, lambda message: message.range_max, name='scan', is_stamped=False
    )
    publisher = peer.node.create_publisher(LaserScan, 'scan', 10)
    assert wait_until(lambda: publisher.get_subscription_count() == 1)
    taken.take(time.monotonic())
    for number in range(50):
        publisher.publish(LaserScan(range_max=float(number)))
    time.sleep(0.3)
    assert taken.newest.count == 0
    now_s = time.monotonic()
    taken.take(now_s)
    assert taken.newest.value() == 49.0
    assert taken.newest.count <= 4
    # It arrived before it was taken, and that counts.
    assert 0.2 < taken.newest.age_s(now_s, 0) < 2
