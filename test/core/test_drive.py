"""The obstacle rule and the safety layer drive the simulated robot: far, and into nothing."""

from math import hypot, pi

import numpy as np
import pytest

from isaac_infer.core.control.command import Command
from isaac_infer.core.control.obstacle import avoid
from isaac_infer.core.control.safety import Readings, State, govern
from isaac_infer.core.control.scan import nearest_in_path, read_scan
from isaac_infer.core.world import Base, Robot, Wanted, cast_rays, draw_goal, make_arena, move, towards
from isaac_infer.params import ExecutorParams

PERIOD_S, STEPS = 1 / 30, 3  # of the commands; of the simulation in each
SCAN_EVERY = 2  # periods
BEAMS = 360
ANGLES = -pi + 2 * pi / BEAMS * np.arange(BEAMS)


def drive(arena, *, seconds, speed_mps, is_commanded):
    """Drive a robot as jetson_executor does; return it at the end of every period."""
    params = ExecutorParams(cruise_speed_mps=0.0 if is_commanded else speed_mps)
    limits, rule = params.safety_limits(()), params.avoidance_rule()
    robot, state, side, scan = Robot(), State(), '', None
    base = Base()
    rng, goal = np.random.default_rng(0), (0.0, 0.0)
    for period in range(round(seconds / PERIOD_S)):
        if period % SCAN_EVERY == 0:
            ranges = cast_rays(arena, robot.x, robot.y, robot.yaw + ANGLES) + rng.normal(0, 0.005, BEAMS)
            scan = read_scan(
                ranges, angle_min=-pi, angle_increment=2 * pi / BEAMS, range_min=0.05, range_max=12.0
            )
        if is_commanded and (period % 240 == 0 or hypot(robot.x - goal[0], robot.y - goal[1]) < 0.5):
            goal = draw_goal(arena, rng, clearance=0.36)
        wish = towards(robot, goal, speed_mps=speed_mps, turn_radps=0.8)
        wanted, side = avoid(scan, Command(wish[0], 0.0, wish[1]) if is_commanded else None, rule, side)
        readings = Readings(
            is_enabled=True,
            age_s=dict.fromkeys(limits.max_age_s, 0.0),
            wanted=wanted,
            elapsed_s=PERIOD_S,
            nearest_m=lambda command, scan=scan: nearest_in_path(
                scan, command, half_width_m=params.half_width_m
            ),
        )
        verdict = govern(readings, limits, state)
        state = verdict.state
        sent = Wanted(verdict.command.linear_x, verdict.command.angular_z)
        for _ in range(STEPS):
            robot = move(robot, arena, base, sent, age_s=0.0, dt=PERIOD_S / STEPS)
        yield robot


@pytest.mark.parametrize('speed_mps', [0.3, 0.5])
@pytest.mark.parametrize('seed', range(12))
def test_cruising_it_drives_far_and_into_nothing(seed, speed_mps):
    *_, robot = drive(make_arena(seed), seconds=60, speed_mps=speed_mps, is_commanded=False)
    assert robot.collisions == 0
    assert robot.nearest_m > 0.03
    assert robot.distance_m > 0.5 * 60 * speed_mps


@pytest.mark.parametrize('seed', range(12))
def test_commanded_straight_at_obstacles_it_goes_around_them(seed):
    *_, robot = drive(make_arena(seed), seconds=60, speed_mps=0.4, is_commanded=True)
    assert robot.collisions == 0
    assert robot.nearest_m > 0.03
    assert robot.distance_m > 0.2 * 60 * 0.4
