"""Command: how a robot is to move, in its own frame: x forward, y left, turning left."""

from __future__ import annotations

import math
from dataclasses import dataclass

COMPONENTS = {'linear.x': 'linear_x', 'linear.y': 'linear_y', 'angular.z': 'angular_z'}  # of a Twist -> field


@dataclass(frozen=True)
class Command:
    """The components of a Twist that a robot on the ground follows."""

    linear_x: float = 0.0  # m/s, forward
    linear_y: float = 0.0  # m/s, left
    angular_z: float = 0.0  # rad/s, left

    @property
    def is_finite(self) -> bool:
        return all(map(math.isfinite, (self.linear_x, self.linear_y, self.angular_z)))

    @property
    def speed_mps(self) -> float:
        """How fast it drives, in whatever direction; turning does not count."""
        return math.hypot(self.linear_x, self.linear_y)


STOP = Command()
