"""robot_simulator, as a process of its own, over DDS."""

import itertools
import signal
import time
from math import atan2, inf, isnan, nan, pi

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist
from processes import parameters, wait_until
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, Imu, LaserScan

EMPTY = {'obstacles': 0, 'arena_length_m': 6.0, 'arena_width_m': 6.0, 'scan_noise_m': 0.0}
SMALL = {'width': 64, 'height': 48}


@pytest.fixture
def peer(make_peer):
    peer = make_peer()
    peer.listen(Image, 'camera/image_raw', qos_profile_sensor_data)
    peer.listen(LaserScan, 'scan', qos_profile_sensor_data)
    peer.listen(Imu, 'imu', qos_profile_sensor_data)
    peer.listen(DiagnosticArray, '/diagnostics')
    return peer


@pytest.fixture
def drive(peer):
    """Publish commands for so many seconds."""
    publisher = peer.node.create_publisher(Twist, 'control_output', 1)

    def command(seconds, linear=0.0, angular=0.0):
        wait_until(publisher.get_subscription_count)
        twist = Twist()
        twist.linear.x, twist.angular.z = linear, angular
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            publisher.publish(twist)
            time.sleep(0.02)

    return command


def stamp_s(message):
    return message.header.stamp.sec + message.header.stamp.nanosec / 1e9


def said(peer, key):
    """Wait for the next report, and give a number of it."""
    count = len(peer.got['/diagnostics'])
    peer.wait_for('/diagnostics', count + 2)
    return float(peer.diagnostics()[key])


def test_a_robot_that_stands_sees_the_arena(start, peer):
    start('robot_simulator', *parameters(**EMPTY))
    image = peer.wait_for('camera/image_raw', 3)[-1]
    assert (image.width, image.height, image.encoding, image.header.frame_id) == (640, 480, 'bgr8', 'camera')
    assert np.frombuffer(image.data, np.uint8).std() > 5
    scan = peer.wait_for('scan', 3)[-1]
    assert len(scan.ranges) == 360 == round(2 * pi / scan.angle_increment)
    assert scan.header.frame_id == 'laser'
    by_angle = {
        round(np.degrees(scan.angle_min + scan.angle_increment * i)): scan.ranges[i] for i in range(360)
    }
    assert [by_angle[degrees] for degrees in (-180, -90, 0, 90)] == pytest.approx([3.0] * 4)
    assert by_angle[45] == pytest.approx(3 * 2**0.5)
    imu = peer.wait_for('imu', 3)[-1]
    acceleration = imu.linear_acceleration
    assert (acceleration.x, acceleration.y, acceleration.z) == pytest.approx((0, 0, 9.81))
    assert imu.angular_velocity.z == 0
    assert abs(stamp_s(imu) - time.time()) < 5


def test_sensors_come_at_their_rates(start, peer):
    start('robot_simulator', *parameters(**EMPTY, **SMALL, camera_rate=20.0, scan_rate=10.0, imu_rate=50.0))
    for topic, rate in (('camera/image_raw', 20), ('scan', 10), ('imu', 50)):
        stamps = [stamp_s(message) for message in peer.wait_for(topic, 3 * rate)]
        assert (len(stamps) - 1) / (stamps[-1] - stamps[0]) == pytest.approx(rate, rel=0.3)


def test_it_drives_as_it_is_told_and_stops_by_itself_when_nobody_tells_it_any_more(start, peer, drive):
    start('robot_simulator', *parameters(**EMPTY, **SMALL, command_timeout_s=0.8))
    peer.wait_for('scan', 1)
    drive(2.0, linear=0.5)
    assert peer.got['imu'][-1].angular_velocity.z == 0
    drive(0.5, linear=0.5, angular=1.0)
    assert peer.got['imu'][-1].angular_velocity.z == pytest.approx(1.0)
    assert peer.got['imu'][-1].linear_acceleration.y == pytest.approx(0.5, abs=0.01)  # v times the turn
    time.sleep(2.0)  # silence: 0.8 s at 0.5 m/s, and the way that it takes to stop
    # 0.25 s to gain its speed and as much to lose it, both at 2 m/s2; a loaded machine adds
    assert said(peer, 'distance_m') == pytest.approx(0.5 * (2.5 + 0.8), abs=0.3)
    values = peer.diagnostics()
    assert values['speed_mps'] == '0.000' and values['stops'] == '1' and values['timeouts'] == '1'
    status = peer.got['/diagnostics'][-1].status[0]
    assert status.name == 'robot_simulator: robot'
    assert status.level == DiagnosticStatus.WARN and 'stopped by itself' in status.message


def test_a_wall_holds_it_and_is_reported_and_drawn(start, peer, drive, tmp_path):
    place = tmp_path / 'map.png'
    simulator = start('robot_simulator', *parameters(**EMPTY, **SMALL, map=place))
    peer.wait_for('scan', 1)
    drive(5.0, linear=1.0)
    assert said(peer, 'collisions') == 1
    assert peer.got['/diagnostics'][-1].status[0].level == DiagnosticStatus.ERROR
    assert 0 <= float(peer.diagnostics()['nearest_m']) < 0.06
    assert float(peer.diagnostics()['distance_m']) == pytest.approx(3 - 0.18, abs=0.06)
    assert min(peer.got['scan'][-1].ranges) == pytest.approx(0.18, abs=0.06)
    assert simulator.stop() == 0
    assert '1 collision, ' in simulator.log and f'written: {place}' in simulator.log
    image = cv2.imread(str(place))
    assert (image == (0, 0, 220)).all(axis=2).sum() > 20  # the cross


def test_the_imu_tells_the_heading_that_its_turning_leads_to(start, peer, drive):
    start('robot_simulator', *parameters(**EMPTY, **SMALL))
    peer.wait_for('imu', 1)
    drive(1.0, angular=1.0)
    turned = told = 0.0
    for one, after in itertools.pairwise(list(peer.got['imu'])):
        seconds = stamp_s(after) - stamp_s(one)
        if seconds < 0.03:  # a machine that was busy meanwhile makes up for nothing
            turned += one.angular_velocity.z * seconds
            told += heading(after) - heading(one)
    assert told == pytest.approx(turned, abs=0.1) and turned > 0.3


def heading(imu):
    return 2 * atan2(imu.orientation.z, imu.orientation.w)


@pytest.mark.parametrize('word', [nan, inf])
def test_commands_that_are_no_numbers_move_nothing(start, peer, drive, word):
    start('robot_simulator', *parameters(**EMPTY, **SMALL))
    peer.wait_for('scan', 1)
    drive(0.5, linear=word, angular=word)
    assert said(peer, 'bad_commands') > 5
    assert peer.diagnostics()['distance_m'] == '0.000'


def test_it_ends_by_itself_some_seconds_after_the_first_command(start, peer, drive):
    simulator = start('robot_simulator', *parameters(**EMPTY, **SMALL, duration_s=1.5))
    peer.wait_for('scan', 1)
    drive(0.5)
    assert simulator.is_alive  # zero is no command to move
    drive(2.0, angular=1.0)
    assert simulator.wait(10) == 0


@pytest.mark.parametrize(
    ('fault', 'topic'), [('camera_stops', 'camera/image_raw'), ('scan_stops', 'scan'), ('imu_stops', 'imu')]
)
def test_a_sensor_falls_silent_on_request_and_comes_back(start, peer, fault, topic):
    start('robot_simulator', *parameters(**SMALL))
    peer.wait_for(topic, 3)
    assert peer.set('robot_simulator', fault=fault)[0].successful
    time.sleep(0.3)
    before = {name: len(peer.got[name]) for name in ('camera/image_raw', 'scan', 'imu')}
    time.sleep(1.0)
    assert [name for name in before if len(peer.got[name]) == before[name]] == [topic]
    assert peer.set('robot_simulator', fault='')[0].successful
    peer.wait_for(topic, before[topic] + 3)


def test_garbage_comes_on_request(start, peer):
    start('robot_simulator', *parameters(**SMALL))
    peer.wait_for('scan', 3)
    assert not peer.set('robot_simulator', fault='fire')[0].successful
    assert peer.set('robot_simulator', fault='scan_nan')[0].successful
    assert wait_until(lambda: all(map(isnan, peer.got['scan'][-1].ranges)))
    assert peer.set('robot_simulator', fault='scan_size')[0].successful
    assert wait_until(lambda: len({len(scan.ranges) for scan in peer.got['scan'][-5:]}) == 5)
    assert peer.set('robot_simulator', fault='future_stamps')[0].successful
    assert wait_until(lambda: stamp_s(peer.got['scan'][-1]) > time.time() + 50)
    assert peer.set('robot_simulator', fault='imu_flood')[0].successful
    time.sleep(1.0)
    count = len(peer.got['imu'])
    time.sleep(1.0)
    assert len(peer.got['imu']) - count > 200  # of 10,000: this process takes what it can, of a queue of five


@pytest.mark.parametrize(
    ('values', 'says'),
    [
        ({'map': 'drive.txt'}, 'map: expected a file name with .png, .jpg, .jpeg, got'),
        ({'obstacles': 90, 'arena_length_m': 3.0}, '90 obstacles: expected fewer'),
        ({'fault': 'fire'}, "fault: expected one of '', 'camera_stops'"),
    ],
)
def test_wrong_parameters_are_refused_by_name(start, values, says):
    simulator = start('robot_simulator', *parameters(**values))
    assert simulator.wait() == 1
    assert says in simulator.log


def test_another_picture_is_not_overwritten(start, tmp_path):
    cv2.imwrite(str(tmp_path / 'photo.png'), np.zeros((8, 8, 3), np.uint8))
    simulator = start('robot_simulator', *parameters(map=tmp_path / 'photo.png'))
    assert simulator.wait() == 1
    assert 'exists and is no map' in simulator.log


def test_a_signal_ends_it(start, peer):
    simulator = start('robot_simulator', *parameters(**SMALL))
    peer.wait_for('imu', 1)
    assert simulator.stop(signal.SIGTERM) == 0
    assert 'Traceback' not in simulator.log
