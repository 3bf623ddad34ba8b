"""robot_simulator: a robot in a drawn arena that obeys Twist commands and has a camera, a scan and an IMU."""

from __future__ import annotations

import sys
import threading
from array import array
from collections.abc import Callable
from functools import partial
from math import cos, hypot, isfinite, nan, pi, sin
from pathlib import Path
from time import monotonic

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy, qos_profile_sensor_data
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image, Imu, LaserScan

from isaac_infer.core.errors import ParameterError, describe
from isaac_infer.core.signed import SUFFIXES, is_signed, signed
from isaac_infer.core.text import counted, loggable
from isaac_infer.core.world import Robot, Wanted, cast_rays, draw_goal, felt_mps2, make_arena, move, towards
from isaac_infer.core.world_map import draw_map
from isaac_infer.core.world_view import WorldView
from isaac_infer.engine.files import check_place, write_whole
from isaac_infer.params import RobotSimulatorParams
from isaac_infer.ros.diagnostics import ERROR, OK, WARN, clock_problem, diagnostics_msg, wait_until_heard
from isaac_infer.ros.images import image_to_cdr, publish_cdr
from isaac_infer.ros.parameters import NodeParameters
from isaac_infer.ros.process import run_node

NAME = 'robot_simulator'
LONGEST_STEP_S = 0.05  # of the simulation, after the machine was busy elsewhere
CLOSE_TIMEOUT_S = 5.0
TRACK_PERIOD_S = 0.1
WANDER_PERIOD_S, WANDER_RADPS = 0.05, 0.8
NEAR_GOAL_M, GOAL_PATIENCE_S = 0.5, 8.0
MOST_POINTS = 20_000  # of the track; then every second one goes
FUTURE_S = 60  # what stamps are ahead by the fault future_stamps
FLOOD_HZ = 10_000  # IMU messages by the fault imu_flood
NEWEST_QOS = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)  # heard from whoever publishes


class RobotSimulator(Node):
    """Obeys `control_output`; publishes `camera/image_raw`, `scan`, `imu`, and on request `ai_commands`.

    One thread moves the robot and publishes what it measures, one draws what its camera sees.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        """Draw the arena and begin; `stop` is called when `duration_s` is over.

        Raises:
            ParameterError: a parameter is wrong.
        """
        super().__init__(NAME)
        self.exit_code = 0
        self._stop = stop
        self._closing = threading.Event()
        try:
            self._node_parameters = NodeParameters(
                self, RobotSimulatorParams, refusal=lambda: 'while it runs'
            )
            params = self._params
            _check_writable(params)
            try:
                self._arena = make_arena(
                    params.seed,
                    obstacles=params.obstacles,
                    length_m=params.arena_length_m,
                    width_m=params.arena_width_m,
                    passage_m=params.passage_m,
                )
            except ValueError as error:
                raise ParameterError(str(error)) from error
        except ParameterError:
            self.destroy_node()
            raise
        self._base = params.base()
        self._view = WorldView(self._arena, size_hw=(params.height, params.width), seed=params.seed)
        self._rng, self._goal_rng = np.random.default_rng(params.seed).spawn(2)
        self._robot = Robot()
        self._wanted, self._wanted_s = Wanted(), -np.inf  # the last command, and when it came
        self._began_s: float | None = None  # to drive
        self._commands = self._bad_commands = self._timeouts = self._pictures = self._scans = self._late = 0
        self._track: list[tuple[float, float]] = []
        self._stops: list[tuple[float, float]] = []
        self._collisions: list[tuple[float, float]] = []
        self._camera = self.create_publisher(Image, 'camera/image_raw', NEWEST_QOS)
        self._scanner = self.create_publisher(LaserScan, 'scan', qos_profile_sensor_data)
        self._imu = self.create_publisher(Imu, 'imu', qos_profile_sensor_data)
        self._goal, self._goal_s = (0.0, 0.0), -np.inf  # of who commands, and since when
        if params.wander_mps:
            self._wishes = self.create_publisher(Twist, 'ai_commands', 1)
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self.create_timer(WANDER_PERIOD_S, self._wander, clock=steady)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_subscription(Twist, 'control_output', self._on_command, NEWEST_QOS)
        self.create_timer(1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._threads = [
            threading.Thread(target=partial(self._repeat, *work), daemon=True)
            for work in ((self._step, params.imu_rate), (self._film, params.camera_rate))
        ]
        self._stepped_s = self._scanned_s = self._tracked_s = monotonic()
        for thread in self._threads:
            thread.start()
        topic = self.resolve_topic_name('control_output')
        arena = f'{params.arena_length_m:g} x {params.arena_width_m:g} m'
        self.get_logger().info(
            f'{counted(params.obstacles, "obstacle")} in {arena}; waiting for commands on {topic}'
        )

    @property
    def _params(self) -> RobotSimulatorParams:
        return self._node_parameters.value

    def close(self) -> None:
        """Stop, write the map and say how the drive went; safe to call twice.

        Raises:
            TimeoutError: a thread does not end.
        """
        self._closing.set()
        for thread in self._threads:
            thread.join(CLOSE_TIMEOUT_S)
            if thread.is_alive():
                raise TimeoutError('the simulation does not end; leaving without it')
        self._publish_diagnostics()
        wait_until_heard(self._diagnostics)
        self.get_logger().info(self._summary())
        if path := self._params.map:
            try:
                write_whole(Path(path), self._map(Path(path).suffix))
            except OSError as error:
                self.get_logger().error(loggable(f'{path}: cannot be written: {error.strerror}'))
                self.exit_code = 1
            else:
                self.get_logger().info(loggable(f'written: {path}'))

    # --- threads -------------------------------------------------------------------------------------------

    def _repeat(self, work: Callable[[], None], rate_hz: float) -> None:
        """Do something at a steady rate until the node is closed; its end is the end of the process."""
        due_s = monotonic()
        try:
            while not self._closing.wait(max(due_s - monotonic(), 0)):
                work()
                due_s += 1 / rate_hz
                if monotonic() > due_s + 1 / rate_hz:
                    due_s = monotonic()  # what was missed is not made up for
                    self._late += 1
        except Exception as error:
            if not self._closing.is_set():
                self.get_logger().fatal(describe(error))
                self.exit_code = 1
                self._stop()

    def _step(self) -> None:
        """Move the robot by the time that went by, and publish what it measures."""
        now_s, params = monotonic(), self._params
        dt, self._stepped_s = min(now_s - self._stepped_s, LONGEST_STEP_S), now_s
        before, age_s = self._robot, now_s - self._wanted_s
        if dt > 0:
            self._robot = move(before, self._arena, self._base, self._wanted, age_s=age_s, dt=dt)
        robot = self._robot
        if age_s - dt <= params.command_timeout_s < age_s and (any(self._wanted) or not before.is_standing):
            self._timeouts += 1
        place = (robot.x, robot.y)
        if robot.stops > before.stops:
            self._stops.append(place)
        if robot.collisions > before.collisions:
            self._collisions.append(place)
            self.get_logger().warning(f'collision at ({robot.x:.2f}, {robot.y:.2f}) m')
        if now_s - self._tracked_s >= TRACK_PERIOD_S:
            self._tracked_s = now_s
            self._track.append(place)
            if len(self._track) > MOST_POINTS:
                del self._track[1::2]
        self._publish_imu(robot)
        if now_s - self._scanned_s >= 1 / params.scan_rate:
            self._scanned_s = max(self._scanned_s + 1 / params.scan_rate, now_s - 1 / params.scan_rate)
            self._publish_scan(robot)
        if self._began_s is not None and 0 < params.duration_s <= now_s - self._began_s:
            self._stop()

    def _film(self) -> None:
        params, robot = self._params, self._robot
        if params.fault == 'camera_stops':
            return
        now = self.get_clock().now() + self._ahead()
        image = self._view.draw(robot.x, robot.y, robot.yaw)
        cdr = image_to_cdr(image, stamp_ns=now.nanoseconds, frame_id=params.camera_frame_id)
        publish_cdr(self._camera, cdr)
        self._pictures += 1

    def _wander(self) -> None:
        """Command the robot to its goal, or to another one where it is there or does not get there."""
        robot, now_s = self._robot, monotonic()
        is_there = hypot(robot.x - self._goal[0], robot.y - self._goal[1]) < NEAR_GOAL_M
        if is_there or now_s - self._goal_s > GOAL_PATIENCE_S:
            self._goal_s = now_s
            self._goal = draw_goal(self._arena, self._goal_rng, clearance=2 * self._base.radius_m)
        wish = towards(robot, self._goal, speed_mps=self._params.wander_mps, turn_radps=WANDER_RADPS)
        twist = Twist()
        twist.linear.x, twist.angular.z = wish
        self._wishes.publish(twist)

    # --- messages ------------------------------------------------------------------------------------------

    def _on_command(self, command: Twist) -> None:
        wanted = Wanted(command.linear.x, command.angular.z)
        self._commands += 1
        if not all(map(isfinite, wanted)):
            self._bad_commands += 1
        if self._began_s is None and any(wanted):
            self._began_s = monotonic()
        self._wanted, self._wanted_s = wanted, monotonic()

    def _ahead(self) -> Duration:
        return Duration(seconds=FUTURE_S if self._params.fault == 'future_stamps' else 0)

    def _stamp(self) -> Time:
        return (self.get_clock().now() + self._ahead()).to_msg()

    def _publish_imu(self, robot: Robot) -> None:
        params = self._params
        if params.fault == 'imu_stops':
            return
        message = Imu()
        message.header.stamp, message.header.frame_id = self._stamp(), params.imu_frame_id
        message.orientation.z, message.orientation.w = sin(robot.yaw / 2), cos(robot.yaw / 2)
        message.angular_velocity.z = robot.angular_radps
        acceleration = message.linear_acceleration
        acceleration.x, acceleration.y, acceleration.z = felt_mps2(robot)
        self._imu.publish(message)
        if params.fault == 'imu_flood':
            cdr = bytearray(serialize_message(message))
            for _ in range(round(FLOOD_HZ / params.imu_rate) - 1):
                publish_cdr(self._imu, cdr)

    def _publish_scan(self, robot: Robot) -> None:
        params = self._params
        if params.fault == 'scan_stops':
            return
        step = 2 * pi / params.scan_beams
        angles = -pi + step * np.arange(params.scan_beams)
        ranges = cast_rays(self._arena, robot.x, robot.y, robot.yaw + angles)
        ranges = ranges + self._rng.normal(0, params.scan_noise_m, len(ranges))
        ranges[ranges > params.scan_range_m] = np.inf
        if params.fault == 'scan_nan':
            ranges[:] = nan
        elif params.fault == 'scan_size':
            ranges = np.resize(ranges, self._rng.integers(2 * len(ranges)))
        message = LaserScan(
            angle_min=-pi, angle_max=pi - step, angle_increment=step, scan_time=1 / params.scan_rate,
            range_min=0.05, range_max=params.scan_range_m,
            ranges=array('f', ranges.astype(np.float32).tobytes()),
        )  # fmt: skip
        message.header.stamp, message.header.frame_id = self._stamp(), params.scan_frame_id
        self._scanner.publish(message)
        self._scans += 1

    # --- what came of it -----------------------------------------------------------------------------------

    def _summary(self) -> str:
        robot = self._robot
        return (
            f'{robot.distance_m:.1f} m driven, {counted(robot.collisions, "collision")}, '
            f'{counted(robot.stops, "stop")}, nearest obstacle on any side {robot.nearest_m:.2f} m'
        )

    def _publish_diagnostics(self) -> None:
        robot, now_s = self._robot, monotonic()
        age_s = now_s - self._wanted_s
        values = {
            'distance_m': f'{robot.distance_m:.3f}',
            'collisions': str(robot.collisions),
            'stops': str(robot.stops),
            'nearest_m': f'{robot.nearest_m:.3f}',
            'speed_mps': f'{robot.linear_mps:.3f}',
            'turn_radps': f'{robot.angular_radps:.3f}',
            'driven_s': f'{now_s - self._began_s:.1f}' if self._began_s is not None else '0.0',
            'commands': str(self._commands),
            'bad_commands': str(self._bad_commands),
            'command_age_s': f'{age_s:.3f}' if self._commands else 'none came',
            'timeouts': str(self._timeouts),
            'pictures': str(self._pictures),
            'scans': str(self._scans),
            'late': str(self._late),
            'fault': self._params.fault,
        }
        level, text = OK, self._summary()
        if not self._commands:
            text = f'waiting for commands on {self.resolve_topic_name("control_output")}'
        elif age_s > self._params.command_timeout_s:
            level, text = WARN, f'no command for {age_s:.1f} s: stopped by itself; {text}'
        if problem := clock_problem(self.get_clock()):
            level, text = WARN, problem
        if robot.collisions:
            level, text = ERROR, self._summary()
        name = f'{self.get_fully_qualified_name().lstrip("/")}: robot'
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics_msg(name, level, text, values, stamp=stamp))

    def _map(self, suffix: str) -> bytes:
        image = draw_map(
            self._arena,
            self._track,
            radius_m=self._params.radius_m,
            stops=self._stops,
            collisions=self._collisions,
            caption=self._summary(),
        )
        return signed(bytes(cv2.imencode(suffix, image)[1]), by=NAME)


def _check_writable(params: RobotSimulatorParams) -> None:
    """Find out at the start, not after the drive, that the map cannot or may not be written."""
    if not params.map:
        return
    path = Path(params.map)
    if path.suffix.lower() not in SUFFIXES and not path.is_dir():
        raise ParameterError(f'map: expected a file name with {", ".join(SUFFIXES)}, got {params.map!r}')
    check_place(path, 'map:', partial(is_signed, by=NAME), 'map')


def main(args: list[str] | None = None) -> int:
    """Drive as commands say, until Ctrl-C or the end of duration_s."""
    return run_node(NAME, RobotSimulatorParams, RobotSimulator, args)


if __name__ == '__main__':
    sys.exit(main())
