"""Robot: the parameters of the simulated robot."""

from __future__ import annotations

from dataclasses import dataclass

from isaac_infer.core.world import Base
from isaac_infer.params.declare import Params, param

FAULTS = (
    '',
    'camera_stops',
    'scan_stops',
    'imu_stops',
    'scan_nan',
    'scan_size',
    'future_stamps',
    'imu_flood',
)


@dataclass(frozen=True)
class RobotSimulatorParams(Params):
    """Parameters of robot_simulator."""

    seed: int = param(3, 'Which arena, obstacles, light and floor.', low=0)
    obstacles: int = param(8, 'How many obstacles stand in the arena.', low=0, high=100)
    arena_length_m: float = param(8.0, 'Length of the arena, along x.', low=2.0, high=100.0)
    arena_width_m: float = param(8.0, 'Width of the arena, along y.', low=2.0, high=100.0)
    passage_m: float = param(
        0.9,
        'How far obstacles stand from one another, from the walls and from the robot at the start, at least.',
        low=0.0,
        high=10.0,
    )
    wander_mps: float = param(
        0.0,
        'Command the robot on ai_commands to one place after the other, straight ahead and at this speed, '
        'whatever is in the way; 0: nobody commands.',
        low=0.0,
        high=100.0,
    )
    duration_s: float = param(
        0.0, 'End after so many seconds, counted from the first command to move; 0: never.', low=0.0
    )
    map: str = param('', 'Picture file for a map of the drive, written at the end; empty: none.')

    camera_rate: float = param(30.0, 'Pictures per second.', low=0.1, high=1000.0)
    width: int = param(640, 'Width of the pictures.', low=32, high=8192)
    height: int = param(480, 'Height of the pictures.', low=32, high=8192)
    camera_frame_id: str = param('camera', 'Coordinate frame of the pictures.')
    scan_rate: float = param(15.0, 'Scans per second.', low=0.1, high=1000.0)
    scan_beams: int = param(360, 'Distances in a scan, all around.', low=8, high=100000)
    scan_range_m: float = param(12.0, 'What is farther away is not seen by the scan.', low=0.1, high=1000.0)
    scan_noise_m: float = param(0.005, 'Standard deviation of its distances.', low=0.0, high=1.0)
    scan_frame_id: str = param('laser', 'Coordinate frame of the scans.')
    imu_rate: float = param(
        100.0, 'IMU messages, and steps of the simulation, per second.', low=10.0, high=1000.0
    )
    imu_frame_id: str = param('imu', 'Coordinate frame of the IMU.')

    radius_m: float = param(0.18, 'Radius of the robot.', low=0.01, high=10.0)
    max_linear_mps: float = param(1.0, 'How fast the base can drive.', low=0.0, high=100.0)
    max_angular_radps: float = param(2.5, 'How fast it can turn.', low=0.0, high=100.0)
    max_linear_mps2: float = param(2.0, 'How fast it can gain or lose speed.', low=0.01, high=1000.0)
    max_angular_radps2: float = param(8.0, 'How fast its turn can change.', low=0.01, high=1000.0)
    command_timeout_s: float = param(
        0.17,
        'Without a command for this long the base stops by itself: 5 periods at 30 Hz.',
        low=0.01,
        high=60.0,
    )

    fault: str = param(
        '',
        'What goes wrong, to see what others make of it: sensors that fall silent, scans that are all NaN or '
        'of another size every time, stamps of a minute from now, 10,000 IMU messages per second. Empty: '
        'nothing.',
        choices=FAULTS,
        live=True,
    )

    def base(self) -> Base:
        """What the base can do."""
        return Base(
            radius_m=self.radius_m,
            max_linear_mps=self.max_linear_mps,
            max_angular_radps=self.max_angular_radps,
            max_linear_mps2=self.max_linear_mps2,
            max_angular_radps2=self.max_angular_radps2,
            command_timeout_s=self.command_timeout_s,
        )
