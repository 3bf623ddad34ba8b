"""Driving: where the commands of the executor come from, and what is in their way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from geometry_msgs.msg import Twist
from sensor_msgs.msg import Imu as ImuMessage
from sensor_msgs.msg import LaserScan

from isaac_infer.core.control.command import Command
from isaac_infer.core.control.observation import Imu, Sources
from isaac_infer.core.control.obstacle import avoid
from isaac_infer.core.control.policy import Policy as Bindings
from isaac_infer.core.control.policy import read_bindings
from isaac_infer.core.control.scan import Mounting, Scan, nearest_in_path, read_scan
from isaac_infer.core.errors import IsaacInferError
from isaac_infer.core.session import Session
from isaac_infer.engine.load import open_session
from isaac_infer.nodes._perceiving import locate, memory_of
from isaac_infer.nodes._reserve import reserved
from isaac_infer.params import DetectorParams, ExecutorParams
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


def imu_of(message: ImuMessage) -> Imu:
    turning, acceleration, q = message.angular_velocity, message.linear_acceleration, message.orientation
    has_orientation = message.orientation_covariance[0] != -1  # as sensor_msgs/Imu has it
    return Imu(
        (turning.x, turning.y, turning.z),
        (acceleration.x, acceleration.y, acceleration.z),
        (q.x, q.y, q.z, q.w) if has_orientation else None,
    )


def needs_of(params: ExecutorParams, policy: Policy | None) -> frozenset[str]:
    """The inputs without which there is no command."""
    if params.control_model_path:
        return policy.needs if policy else frozenset()
    return frozenset({'scan'} if params.cruise_speed_mps else {'scan', 'command'})


def nearest_in_way(scan: Newest, params: ExecutorParams, command: Command) -> float | None:
    """Metres to what is in the way of a command; None: no scan tells, as far as the robot has to stop."""
    return nearest_in_path(
        _readable(scan), command, half_width_m=params.half_width_m, reach_m=params.stop_distance_m
    )


class RuleDriver:
    """Follows ai_commands around obstacles, or cruises where none come."""

    def __init__(self) -> None:
        self._side = ''  # to which it turns

    def drive(self, params: ExecutorParams, scan: Newest, command: Newest, now_s: float) -> Command:
        """Give the wanted command; raises FrameError."""
        age_s = command.age_s(now_s, 0)
        is_commanded = age_s is not None and age_s <= params.max_age_s__command
        wanted = command.value() if is_commanded else None
        if wanted is not None and not wanted.is_finite:
            return wanted  # the safety layer says what is wrong
        driven, self._side = avoid(_readable(scan), wanted, params.avoidance_rule(), self._side)
        return driven


def _readable(scan: Newest) -> Scan | None:
    try:
        value: Scan | None = scan.value()
    except IsaacInferError:  # diagnostics have it
        return None
    return value


class ModelPolicy:
    """A control model, fed with the newest of what its bindings name."""

    def __init__(self, session: Session, policy: Bindings, newest: Mapping[str, Newest]) -> None:
        self.backend, self.needs = session.backend, policy.needs
        self._session, self._policy = session, policy
        self._newest = {name: newest[name] for name in policy.needs}

    def decide(self, *, is_anew: bool) -> Command:
        """Give the wanted command; raises IsaacInferError."""
        if is_anew:
            self._policy.reset()
        self._policy.fill(Sources(**{name: newest.value() for name, newest in self._newest.items()}))
        return self._policy.command_of(self._session.run())

    def close(self) -> None:
        self._session.close()


def _document(params: ExecutorParams) -> Path:
    """Find control_config: in the model directory, where there is one and it has it, else as it is."""
    path = Path(params.control_config).expanduser()
    beside = Path(params.model_directory).expanduser() / path
    return beside if params.model_directory and beside.is_file() else path


def load_policy(params: ExecutorParams, newest: Mapping[str, Newest]) -> ModelPolicy:
    """Open the control model and bind it; slow.

    Raises:
        IsaacInferError: it is not there, cannot be opened, does not fit its bindings, or too little memory
            would be left.
    """
    bindings = read_bindings(_document(params))
    path = locate(params.control_model_path, params.model_directory)
    model = DetectorParams(
        backend=params.backend, precision=params.precision, num_threads=params.control_num_threads
    )
    session = None
    try:
        with reserved(path, **memory_of(path, params)):
            session = open_session(path, **model.run_options())
        policy = ModelPolicy(session, Bindings(session, bindings), newest)
        session.run()  # the first run takes longer than all others
        return policy
    except BaseException:
        if session is not None:
            session.close()
        raise
