"""Faults of a whole robot that drives: what stops it, within what time, and what does not.

Sensors of the simulated robot fail, nodes are killed. `pytest -s` prints the table that README.md has. How
fast the executor is by itself is tested, with its bound, in test_jetson_executor.py.
"""

import signal
import time

import numpy as np
import pytest
from geometry_msgs.msg import Twist
from processes import Peer, parameters, wait_until
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, Imu, LaserScan
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

NAMESPACE = '/faults'
MAX_AGE_S = {'image': 0.5, 'scan': 0.3, 'imu': 0.3}
TIMEOUT_S, BRAKES_MPS2 = 0.17, 2.0  # of the base
LATE_S = 0.5  # that a machine may be busy with other things; a period and 20 ms where it is not
BEAMS = 360
CRUISE_MPS = 0.2
BRAKING_MPS2 = -1.0  # less than any start or turn of the executor


class Watch:
    """What goes over the wires, with the times of its arrival."""

    def __init__(self, peer):
        self.peer = peer
        self.commands = []  # when it came, whether it moves the robot
        # By topic: when the last good message came, and the first bad one since the last fault.
        self.good_s, self.bad_s = {}, {}
        self.felt = []  # when it came, the acceleration forward
        node = peer.node
        node.create_subscription(Twist, 'control_output', self._on_command, 10)
        for kind, topic, name in (
            (Image, 'camera/image_raw', 'image'),
            (LaserScan, 'scan', 'scan'),
            (Imu, 'imu', 'imu'),
        ):
            hear = self._hear(name)
            node.create_subscription(kind, topic, hear, qos_profile_sensor_data)
        peer.listen(String, 'model_execution_status')

    def _on_command(self, twist):
        self.commands.append((time.monotonic(), any((twist.linear.x, twist.linear.y, twist.angular.z))))

    def _hear(self, name):
        def take(message):
            at_s = time.monotonic()
            is_good = abs(message.header.stamp.sec - time.time()) < 10
            if name == 'scan':
                is_good = is_good and len(message.ranges) == BEAMS and not np.isnan(message.ranges).all()
            elif name == 'imu':
                self.felt.append((at_s, message.linear_acceleration.x))
            if is_good:
                self.good_s[name] = at_s
            else:
                self.bad_s.setdefault(name, at_s)

        return take

    def is_moving(self):
        return bool(self.commands) and self.commands[-1][1] and time.monotonic() - self.commands[-1][0] < 0.5

    def drives(self):
        """Wait until it has driven for a while, fast enough to brake."""

        def is_steady():
            recent = [moves for at_s, moves in list(self.commands) if at_s > time.monotonic() - 1]
            return len(recent) > 10 and all(recent)

        assert wait_until(is_steady, 30), self.said()

    def zero_after(self, since_s):
        """Give when the first command came that does not move it."""

        def found():
            return [at_s for at_s, moves in list(self.commands) if at_s > since_s and not moves]

        assert wait_until(found), self.said()
        return found()[0]

    def said(self):
        texts = self.peer.got['model_execution_status']
        return texts[-1].data if texts else ''


@pytest.fixture(scope='module')
def robot(start_once, ros, tmp_path_factory):
    """A robot that cruises over a wide empty floor, and what watches it."""

    def run(module, **values):
        return start_once(module, *parameters(**values), '-r', f'__ns:={NAMESPACE}')

    peer = Peer('watch', NAMESPACE)
    watch = Watch(peer)
    run(
        'robot_simulator', obstacles=0, arena_length_m=90.0, arena_width_m=90.0, width=160, height=120,
        command_timeout_s=TIMEOUT_S, max_linear_mps2=BRAKES_MPS2,
    )  # fmt: skip
    watch.run_executor = lambda: run(
        'jetson_executor',
        enabled_at_start='true',
        cruise_speed_mps=CRUISE_MPS,
        required_inputs='[image, scan, imu]',
        **{f'max_age_s.{name}': seconds for name, seconds in MAX_AGE_S.items()},
    )
    watch.executor = watch.run_executor()
    manifest = tmp_path_factory.mktemp('faults') / 'robot.yaml'
    manifest.write_text('topics: [{name: scan, type: sensor_msgs/msg/LaserScan}]')
    validator = run('deployment_validator', manifest=manifest, period=1.0)
    watch.others = {'power_manager': run('power_manager'), 'deployment_validator': validator}
    yield watch
    peer.close()


def row(fault, what, ms):
    """Print a line of the table in README.md."""
    print(f'| {fault} | {what} | {ms} |')


@pytest.fixture
def driving(robot):
    robot.drives()
    robot.bad_s.clear()
    return robot


@pytest.mark.parametrize(
    ('fault', 'name', 'says'),
    [
        ('camera_stops', 'image', 'image: '),
        ('scan_stops', 'scan', 'scan: '),
        ('imu_stops', 'imu', 'imu: '),
        ('scan_nan', 'scan', 'no scan that can be read'),
        ('scan_size', 'scan', 'no scan that can be read'),
        ('future_stamps', 'scan', 'from the future'),
    ],
)
def test_a_sensor_that_fails_stops_the_robot_and_it_drives_on_after(driving, fault, name, says):
    count_s = time.monotonic()
    assert driving.peer.set('robot_simulator', fault=fault)[0].successful
    zero_s = driving.zero_after(count_s)
    is_silence = fault.endswith('stops')
    since_s = driving.good_s[name] + MAX_AGE_S[name] if is_silence else min(driving.bad_s.values())
    what = (
        f'zero command, {MAX_AGE_S[name] * 1e3:.0f} ms of silence are allowed'
        if is_silence
        else 'zero command'
    )
    row(fault, what, f'{(zero_s - since_s) * 1e3:.0f}')
    assert zero_s - since_s < LATE_S
    assert wait_until(lambda: says in driving.said(), 20), driving.said()
    assert driving.peer.set('robot_simulator', fault='')[0].successful
    driving.drives()


def test_a_flood_of_imu_messages_stops_nothing(driving):
    assert driving.peer.set('robot_simulator', fault='imu_flood')[0].successful
    time.sleep(0.5)
    begin_s = time.monotonic()
    time.sleep(3)
    assert driving.peer.set('robot_simulator', fault='')[0].successful
    commands = [moves for at_s, moves in driving.commands if at_s > begin_s]
    row('imu_flood', f'drives on: {sum(commands)} of {len(commands)} commands move it', '')
    assert len(commands) > 30 and sum(commands) > 0.9 * len(commands)


def test_another_publisher_stops_the_robot_until_it_is_gone(driving, make_peer):
    peer = make_peer('intruder', NAMESPACE)
    since_s = time.monotonic()
    publisher = peer.node.create_publisher(Twist, 'control_output', 1)
    zero_s = driving.zero_after(since_s)  # once DDS has made them known to one another
    row(
        'another publisher of control_output',
        'zero command, since it was created',
        f'{(zero_s - since_s) * 1e3:.0f}',
    )
    peer.node.destroy_publisher(publisher)
    driving.drives()


@pytest.mark.parametrize(
    ('service', 'stop', 'go_on'),
    [
        ('stop', (Trigger, 'stop', Trigger.Request()), (Trigger, 'reset', Trigger.Request())),
        (
            'enable',
            (SetBool, 'enable', SetBool.Request(data=False)),
            (SetBool, 'enable', SetBool.Request(data=True)),
        ),
    ],
)
def test_a_service_stops_the_robot(driving, service, stop, go_on):
    def call(kind, name, request):
        assert driving.peer.call(kind, f'jetson_executor/{name}', request).success

    for _ in range(2):  # the first time, the services are looked for
        driving.drives()
        since_s = time.monotonic()
        call(*stop)
        zero_s = driving.zero_after(since_s)
        call(*go_on)
    row(f'~/{service}', 'zero command, since it was asked', f'{(zero_s - since_s) * 1e3:.0f}')
    assert zero_s - since_s < LATE_S
    driving.drives()


@pytest.mark.parametrize('name', ['power_manager', 'deployment_validator'])
def test_what_only_watches_may_be_killed(driving, name):
    since_s = time.monotonic()
    driving.others[name].kill()
    time.sleep(2)
    commands = [moves for at_s, moves in driving.commands if at_s > since_s]
    row(f'kill -9 {name}', f'drives on: {sum(commands)} of {len(commands)} commands move it', '')
    assert len(commands) > 20 and sum(commands) > 0.9 * len(commands)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_executor_that_is_asked_to_end_stops_the_robot_first(driving, number):
    since_s = time.monotonic()
    assert driving.executor.stop(number) == 0
    zero_s = driving.zero_after(since_s)
    assert not driving.commands[-1][1]
    row(f'{number.name} to jetson_executor', 'zero command, its last', f'{(zero_s - since_s) * 1e3:.0f}')
    assert zero_s - since_s < LATE_S
    driving.executor = driving.run_executor()
    driving.drives()


def test_an_executor_that_is_killed_leaves_the_base_to_stop_by_itself(driving):
    since_s = time.monotonic()
    driving.executor.kill()

    def brakes():
        return [at_s for at_s, felt in list(driving.felt) if at_s > since_s and felt < BRAKING_MPS2]

    assert wait_until(brakes)
    brake_s = brakes()[0]
    assert all(at_s < since_s + LATE_S for at_s, _ in driving.commands)
    row(
        'kill -9 jetson_executor',
        f'the base brakes, {TIMEOUT_S * 1e3:.0f} ms without a command',
        f'{(brake_s - since_s) * 1e3:.0f}',
    )
    assert brake_s - since_s < TIMEOUT_S + LATE_S
    driving.executor = driving.run_executor()  # its successor drives on, as enabled_at_start says here
    driving.drives()
