"""World: a robot with a differential drive among obstacles in a walled arena, to try control without a robot.

Metres, radians and seconds; x forward, y left, angles to the left, as in ROS. The arena lies around the
origin. An obstacle is an object of the drawn table (`shapes`), several times as large; seen from above it is
a disc or a box.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import atan2, cos, hypot, isfinite, pi, sin
from typing import NamedTuple

import numpy as np

from isaac_infer.core.shapes import BUILDERS

METRES_PER_UNIT = 0.3  # of the meshes in `shapes`, whose unit is 10 cm: a mug is as high as a bucket
GRAVITY_MPS2 = 9.81
STANDING_MPS = 0.01  # what moves more slowly stands
TOUCHING_M = 0.02  # what has come nearer by a collision still touches
ROUND, ANGULAR = ('mug', 'bottle', 'bowl', 'ball', 'figurine'), ('block',)
_SEGMENTS = 24  # corners of what is round, to measure it
_TRIES, _ATTEMPTS = 500, 10  # places for one obstacle, and beginnings


@dataclass(frozen=True)
class Obstacle:
    """An object that stands in the arena; what is round has two half sides that are the same."""

    name: str  # of its class in `shapes`
    seed: int  # which one of its class
    x: float  # m
    y: float  # m
    yaw: float  # rad
    half_length_m: float
    half_width_m: float
    is_round: bool

    @property
    def reach_m(self) -> float:
        """From its middle to what is farthest from there."""
        return self.half_length_m if self.is_round else hypot(self.half_length_m, self.half_width_m)


@dataclass(frozen=True)
class Arena:
    """What stands around the robot: four walls, and obstacles."""

    length_m: float  # along x
    width_m: float  # along y
    obstacles: tuple[Obstacle, ...] = ()

    @cached_property
    def discs(self) -> np.ndarray:  # (D, 3) float64: x, y, radius
        return np.array([(o.x, o.y, o.half_length_m) for o in self.obstacles if o.is_round]).reshape(-1, 3)

    @cached_property
    def boxes(self) -> np.ndarray:  # (B, 5) float64: x, y, yaw, half length, half width
        return np.array(
            [(o.x, o.y, o.yaw, o.half_length_m, o.half_width_m) for o in self.obstacles if not o.is_round]
        ).reshape(-1, 5)

    @cached_property
    def sides(self) -> np.ndarray:  # (S, 4) float64: x, y of one end, then of the other
        boxes = np.concatenate([self.boxes, [(0.0, 0.0, 0.0, self.length_m / 2, self.width_m / 2)]])
        x, y, yaw, half_length, half_width = boxes.T[:, :, None]
        along = half_length * np.array([1, -1, -1, 1])
        across = half_width * np.array([1, 1, -1, -1])
        corners = np.stack(
            [x + along * np.cos(yaw) - across * np.sin(yaw), y + along * np.sin(yaw) + across * np.cos(yaw)],
            -1,
        )
        return np.concatenate([corners, np.roll(corners, -1, axis=1)], -1).reshape(-1, 4)


def make_arena(
    seed: int, *, obstacles: int = 8, length_m: float = 8.0, width_m: float = 8.0, passage_m: float = 0.9
) -> Arena:
    """Draw the arena that belongs to a seed: its middle is free, and a robot fits between any two obstacles.

    Args:
        passage_m: free between obstacles, between them and the walls, and around the middle.

    Raises:
        ValueError: so many obstacles do not find room.
    """
    rng = np.random.default_rng(seed)
    size = np.array([length_m, width_m])
    for _ in range(_ATTEMPTS):
        placed: list[Obstacle] = []
        while len(placed) < obstacles and (one := _placed_one(rng, size, placed, passage_m)):
            placed.append(one)
        if len(placed) == obstacles:
            return Arena(length_m, width_m, tuple(placed))
    raise ValueError(
        f'{obstacles} obstacles: expected fewer, they do not fit into {length_m:g} x {width_m:g} m'
    )


def _placed_one(
    rng: np.random.Generator, size_m: np.ndarray, placed: list[Obstacle], passage_m: float
) -> Obstacle | None:
    """Draw an obstacle and find a place for it; None where it finds none."""
    name, seed = str(rng.choice(ROUND + ANGULAR)), int(rng.integers(1 << 31))
    body = BUILDERS[name](np.random.default_rng(seed), _SEGMENTS)
    points = body.quads.reshape(-1, 3)[:, :2] * METRES_PER_UNIT
    half_length, half_width = np.abs(points).max(axis=0).tolist()
    if name in ROUND:
        half_length = half_width = float(np.linalg.norm(points, axis=1).max())
    one = Obstacle(name, seed, 0.0, 0.0, 0.0, half_length, half_width, name in ROUND)
    free = size_m / 2 - one.reach_m - passage_m
    for x, y, yaw in rng.uniform((-1, -1, -pi), (1, 1, pi), (_TRIES, 3)).tolist():
        one = replace(one, x=x * free[0], y=y * free[1], yaw=yaw)
        gaps = [hypot(one.x - other.x, one.y - other.y) - one.reach_m - other.reach_m for other in placed]
        if min([*gaps, hypot(one.x, one.y) - one.reach_m]) > passage_m:
            return one
    return None


def cast_rays(arena: Arena, x: float, y: float, angles: np.ndarray) -> np.ndarray:
    """Return how far it is to what is first hit, (N,) metres, from a point in directions (N,), in radians."""
    direction = np.stack([np.cos(angles), np.sin(angles)])  # (2, N)
    nearest = np.full(len(angles), np.inf)
    if len(arena.discs):
        centre = arena.discs[:, :2] - (x, y)
        along = centre @ direction  # (D, N)
        square = along**2 - (centre**2).sum(axis=1)[:, None] + arena.discs[:, 2:] ** 2
        hit = along - np.sqrt(np.maximum(square, 0))
        nearest = np.where((square >= 0) & (hit >= 0), hit, np.inf).min(axis=0)
    start, edge = arena.sides[:, :2] - (x, y), arena.sides[:, 2:] - arena.sides[:, :2]
    with np.errstate(divide='ignore', invalid='ignore'):  # of what is parallel to a side
        turn = edge[:, 1:] * direction[0] - edge[:, :1] * direction[1]  # (S, N)
        hit = (start[:, 0] * edge[:, 1] - start[:, 1] * edge[:, 0])[:, None] / turn
        share = (start[:, :1] * direction[1] - start[:, 1:] * direction[0]) / turn
        # A ray through a corner must not slip between two sides.
        is_hit = (hit >= 0) & (share >= -1e-9) & (share <= 1 + 1e-9)
    result: np.ndarray = np.minimum(nearest, np.where(is_hit, hit, np.inf).min(axis=0))
    return result


def clearance_m(arena: Arena, x: float, y: float) -> float:
    """Return how far a point is from the nearest surface; negative inside an obstacle or beyond a wall."""
    nearest = min(arena.length_m / 2 - abs(x), arena.width_m / 2 - abs(y))
    if len(arena.discs):
        to_centre = np.hypot(arena.discs[:, 0] - x, arena.discs[:, 1] - y)
        nearest = min(nearest, float((to_centre - arena.discs[:, 2]).min()))
    for centre_x, centre_y, yaw, half_length, half_width in arena.boxes.tolist():
        dx, dy = x - centre_x, y - centre_y
        along = abs(dx * cos(yaw) + dy * sin(yaw)) - half_length
        across = abs(dy * cos(yaw) - dx * sin(yaw)) - half_width
        nearest = min(nearest, hypot(max(along, 0), max(across, 0)) + min(max(along, across), 0))
    return nearest


# --- the robot ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """What the base of the robot can do, whatever it is told."""

    radius_m: float = 0.18
    max_linear_mps: float = 1.0
    max_angular_radps: float = 2.5
    max_linear_mps2: float = 2.0
    max_angular_radps2: float = 8.0
    command_timeout_s: float = 0.5  # without a command for this long it stops by itself


@dataclass(frozen=True)
class Robot:
    """Where the robot is and how it moves, and what its drive came to so far."""

    x: float = 0.0  # m
    y: float = 0.0  # m
    yaw: float = 0.0  # rad
    linear_mps: float = 0.0
    angular_radps: float = 0.0
    linear_mps2: float = 0.0  # forward, of the last step
    distance_m: float = 0.0
    collisions: int = 0  # times that it began to touch something
    stops: int = 0  # times that it came to stand
    nearest_m: float = float('inf')  # between its hull and what was nearest ever
    is_touching: bool = False

    @property
    def is_standing(self) -> bool:
        return abs(self.linear_mps) < STANDING_MPS


class Wanted(NamedTuple):
    """What the base was told last."""

    linear_mps: float = 0.0
    angular_radps: float = 0.0


def move(robot: Robot, arena: Arena, base: Base, wanted: Wanted, *, age_s: float, dt: float) -> Robot:
    """Return the robot `dt` later.

    Args:
        wanted: the last command; what is not finite counts as none.
        age_s: how old it is.
    """
    if age_s > base.command_timeout_s or not all(map(isfinite, wanted)):
        wanted = Wanted()
    linear = _nearer(robot.linear_mps, wanted.linear_mps, base.max_linear_mps, base.max_linear_mps2 * dt)
    angular = _nearer(
        robot.angular_radps, wanted.angular_radps, base.max_angular_radps, base.max_angular_radps2 * dt
    )
    turned = angular * dt
    # Along the chord of the arc, which is exact: it points halfway between the two headings.
    chord = linear * dt * (sin(turned / 2) / (turned / 2) if turned else 1.0)
    heading = robot.yaw + turned / 2
    x, y = robot.x + chord * cos(heading), robot.y + chord * sin(heading)
    before, after = clearance_m(arena, robot.x, robot.y), clearance_m(arena, x, y)
    is_blocked = after < base.radius_m and after < before  # it may leave what it touches
    if is_blocked:
        x, y, linear, after = robot.x, robot.y, 0.0, before
    moved = Robot(
        x=x,
        y=y,
        yaw=(robot.yaw + turned + pi) % (2 * pi) - pi,
        linear_mps=linear,
        angular_radps=angular,
        linear_mps2=(linear - robot.linear_mps) / dt,
        distance_m=robot.distance_m + hypot(x - robot.x, y - robot.y),
        collisions=robot.collisions + (is_blocked and not robot.is_touching),
        stops=robot.stops,
        nearest_m=min(robot.nearest_m, after - base.radius_m),
        is_touching=is_blocked or (robot.is_touching and after < base.radius_m + TOUCHING_M),
    )
    return replace(moved, stops=robot.stops + (moved.is_standing and not robot.is_standing))


def _nearer(now: float, wanted: float, limit: float, step: float) -> float:
    wanted = max(-limit, min(limit, wanted))
    return max(now - step, min(now + step, wanted))


def felt_mps2(robot: Robot) -> tuple[float, float, float]:
    """Return what an accelerometer of the robot feels: forward, left, up; standing, it feels gravity."""
    return robot.linear_mps2, robot.linear_mps * robot.angular_radps, GRAVITY_MPS2


def draw_goal(arena: Arena, rng: np.random.Generator, *, clearance: float) -> tuple[float, float]:
    """Return a random place that has so much room around it; the middle where none is found."""
    for x, y in (rng.uniform(-0.5, 0.5, (_TRIES, 2)) * (arena.length_m, arena.width_m)).tolist():
        if clearance_m(arena, x, y) > clearance:
            return x, y
    return 0.0, 0.0


def towards(robot: Robot, goal: tuple[float, float], *, speed_mps: float, turn_radps: float) -> Wanted:
    """Return the command that leads to a place where nothing is in the way: it turns first, then drives."""
    bearing = atan2(goal[1] - robot.y, goal[0] - robot.x)
    error = (bearing - robot.yaw + pi) % (2 * pi) - pi
    return Wanted(speed_mps * max(cos(error), 0.0), max(-turn_radps, min(turn_radps, 2 * error)))
