"""Driving: where the commands of the executor come from, and what is in their way."""

from __future__ import annotations

from collections.abc import Mapping

from geometry_msgs.msg import Twist
from sensor_msgs.msg import Imu, LaserScan

from isaac_infer.core.control.command import Command
from isaac_infer.core.control.obstacle import avoid
from isaac_infer.core.control.scan import Mounting, Scan, nearest_in_path, read_scan
from isaac_infer.core.errors import IsaacInferError
from isaac_infer.params import ExecutorParams
from isaac_infer.ros.inputs import Newest
from isaac_infer.ros.pilot import Policy


def scan_of(params: ExecutorParams, message: LaserScan) -> Scan:
    """Read a scan by where the scanner sits; raises ScanError."""
    return read_scan(
        message.ranges,
        angle_min=message.angle_min,
        angle_increment=message.angle_increment,
        angle_max=message.angle_max,
        range_min=message.range_min,
        range_max=message.range_max,
        mounting=Mounting(params.scan_x_m, params.scan_y_m, params.scan_yaw_rad, params.scan_is_upside_down),
        zero_is_unknown=params.scan_zero_is_unknown,
    )


def command_of(message: Twist) -> Command:
    return Command(message.linear.x, message.linear.y, message.angular.z)


def needs_of(params: ExecutorParams, policy: Policy | None) -> frozenset[str]:
    """The inputs without which there is no command."""
    if params.control_model_path:
        return policy.needs if policy else frozenset()
    return frozenset({'scan'} if params.cruise_speed_mps else {'scan', 'command'})


def nearest_in_way(scan: Newest, params: ExecutorParams, command: Command) -> float | None:
    """Metres to what is in the way of a command; None: no scan that can be read."""
    return nearest_in_path(_readable(scan), command, half_width_m=params.half_width_m)


class RuleDriver:
    """Follows ai_commands around obstacles, or cruises where none come."""

    def __init__(self) -> None:
        self._side = ''  # to which it turns

    def drive(self, params: ExecutorParams, scan: Newest, command: Newest, now_s: float) -> Command:
        """Give the wanted command."""
        age_s = command.age_s(now_s, 0)
        is_commanded = age_s is not None and age_s <= params.max_age_s__command
        wanted = command.value() if is_commanded else None
        driven, self._side = avoid(_readable(scan), wanted, params.avoidance_rule(), self._side)
        return driven


def _readable(scan: Newest) -> Scan | None:
    try:
        value: Scan | None = scan.value()
    except IsaacInferError:  # diagnostics have it
        return None
    return value


def imu_of(message: Imu) -> Imu:
    return message


def load_policy(params: ExecutorParams, newest: Mapping[str, Newest]) -> Policy:
    raise NotImplementedError('policy')
