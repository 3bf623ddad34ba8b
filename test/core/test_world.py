"""World: distances against closed forms, and what a robot does in it."""

from math import cos, hypot, inf, nan, pi, radians, sin, sqrt

import numpy as np
import pytest

from isaac_infer.core.world import (
    GRAVITY_MPS2,
    Arena,
    Base,
    Obstacle,
    Robot,
    Wanted,
    cast_rays,
    clearance_m,
    draw_goal,
    felt_mps2,
    make_arena,
    move,
    towards,
)

EMPTY = Arena(6.0, 4.0)
DISC = Obstacle('ball', 0, 2.0, 0.0, 0.0, 0.5, 0.5, True)
BOX = Obstacle('block', 0, 0.0, 1.0, radians(45), 0.5, 0.25, False)
BASE = Base(
    radius_m=0.2, max_linear_mps=1.0, max_angular_radps=2.0, max_linear_mps2=2.0, max_angular_radps2=8.0
)
DT = 0.01


def drive(robot, seconds, *wanted, arena=EMPTY, base=BASE, age_s=0.0):
    for _ in range(round(seconds / DT)):
        robot = move(robot, arena, base, Wanted(*wanted), age_s=age_s, dt=DT)
    return robot


# --- distances ----------------------------------------------------------------------------------------------


def test_the_walls_are_where_the_arena_ends():
    angles = np.array([0, pi / 2, pi, -pi / 2, pi / 4])
    assert cast_rays(EMPTY, 0.0, 0.0, angles) == pytest.approx([3, 2, 3, 2, 2 * sqrt(2)])
    assert cast_rays(EMPTY, 1.0, -1.0, angles) == pytest.approx([2, 3, 4, 1, 2 * sqrt(2)])


def test_no_ray_slips_through_a_corner():
    towards = np.arctan2([2, 2, -2, -2], [3, -3, 3, -3])
    assert cast_rays(EMPTY, 0.0, 0.0, towards) == pytest.approx([hypot(3, 2)] * 4)


@pytest.mark.parametrize(
    ('degrees', 'wanted_m'),
    [
        (0, 1.5),
        (10, 2 * cos(radians(10)) - sqrt(0.25 - (2 * sin(radians(10))) ** 2)),
        (15, 3 / cos(radians(15))),  # asin(0.5 / 2) is 14.5 degrees: past it, onto the wall
        (180, 3),
    ],
)
def test_a_disc_is_met_where_the_circle_says(degrees, wanted_m):
    arena = Arena(6.0, 4.0, (DISC,))
    assert cast_rays(arena, 0.0, 0.0, np.radians([degrees])) == pytest.approx([wanted_m])


def test_a_turned_box_is_met_on_its_long_side():
    # Its long side lies along (1, 1): a ray along y meets it half a width times sqrt 2 before its middle.
    arena = Arena(6.0, 6.0, (BOX,))
    assert cast_rays(arena, 0.0, 0.0, np.array([pi / 2])) == pytest.approx([1 - 0.25 * sqrt(2)])


@pytest.mark.parametrize(
    ('x', 'y', 'wanted_m'),
    [(-2.5, 0, 0.5), (1.0, 0, 0.5), (2.0, 0, -0.5), (0.0, 1.0, -0.25), (0.0, -1.9, 0.1), (3.5, 0, -0.5)],
)
def test_clearance_is_the_way_to_the_nearest_surface(x, y, wanted_m):
    arena = Arena(6.0, 4.0, (DISC, BOX))
    assert clearance_m(arena, x, y) == pytest.approx(wanted_m)


def test_the_shortest_of_many_rays_is_the_clearance():
    arena = make_arena(3)
    rays = cast_rays(arena, 0.3, -0.2, np.linspace(-pi, pi, 20000))
    assert rays.min() == pytest.approx(clearance_m(arena, 0.3, -0.2), abs=1e-3)
    assert np.isfinite(rays).all()


# --- arenas -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('seed', range(5))
def test_a_robot_fits_around_every_obstacle(seed):
    arena = make_arena(seed, obstacles=8, passage_m=0.8)
    assert len(arena.obstacles) == 8
    assert clearance_m(arena, 0.0, 0.0) >= 0.8
    for one in arena.obstacles:
        others = Arena(
            arena.length_m, arena.width_m, tuple(other for other in arena.obstacles if other is not one)
        )
        assert clearance_m(others, one.x, one.y) >= one.reach_m + 0.8 - 1e-9


def test_a_seed_gives_the_same_arena_again():
    assert make_arena(7) == make_arena(7) != make_arena(8)


def test_too_many_obstacles_are_refused():
    with pytest.raises(ValueError, match='500 obstacles: expected fewer, they do not fit into 3 x 3 m'):
        make_arena(0, obstacles=500, length_m=3.0, width_m=3.0)


# --- driving ------------------------------------------------------------------------------------------------


def test_it_drives_a_circle_and_comes_back():
    speed, turn = 0.5, 1.0
    moving = Robot(y=-0.5, linear_mps=speed, angular_radps=turn)
    half = drive(moving, pi / turn, speed, turn)
    assert (half.x, half.y) == pytest.approx((0, 0.5), abs=0.01)  # the diameter is twice 0.5 / 1.0
    whole = drive(half, pi / turn, speed, turn)
    assert (whole.x, whole.y) == pytest.approx((0, -0.5), abs=0.01)
    assert whole.distance_m == pytest.approx(2 * pi * 0.5, abs=0.01)
    assert felt_mps2(whole) == pytest.approx((0, speed * turn, GRAVITY_MPS2))  # towards the middle


def test_it_accelerates_no_faster_than_it_can():
    robot = drive(Robot(), 0.25, 9.0, 0.0)
    assert robot.linear_mps == pytest.approx(0.5)
    assert felt_mps2(robot) == pytest.approx((2.0, 0, GRAVITY_MPS2))
    assert drive(robot, 1.0, 9.0, 0.0).linear_mps == pytest.approx(1.0)  # its limit
    assert drive(robot, 1.0, 0.0, -9.0).angular_radps == pytest.approx(-2.0)


def test_it_stops_by_itself_when_commands_stay_away():
    fast = drive(Robot(), 0.5, 1.0, 0.0)
    young = drive(fast, 0.5, 1.0, 0.0, age_s=BASE.command_timeout_s)
    old = drive(fast, 0.5, 1.0, 0.0, age_s=BASE.command_timeout_s + 0.001)
    assert young.linear_mps == pytest.approx(1.0)
    assert old.is_standing
    # v^2 / 2a, and what a step of 10 ms adds to it.
    assert old.x - fast.x == pytest.approx(1.0 / (2 * 2.0), abs=1.0 * DT)


@pytest.mark.parametrize('word', [nan, inf, -inf])
def test_a_command_that_is_no_number_is_a_stop(word):
    robot = drive(drive(Robot(), 0.5, 1.0, 0.0), 1.0, word, 0.0)
    assert robot.is_standing
    assert isinstance(robot.x, float) and hypot(robot.x, robot.y) < 2


def test_what_it_runs_into_holds_it_and_counts_once():
    arena = Arena(6.0, 4.0, (DISC,))
    robot = drive(Robot(), 3.0, 1.0, 0.0, arena=arena)
    assert robot.collisions == 1
    assert robot.is_touching and robot.is_standing
    assert 1.5 - BASE.radius_m - 0.011 <= robot.x <= 1.5 - BASE.radius_m  # it stands before it, not in it
    assert 0 <= robot.nearest_m <= 0.011
    back = drive(robot, 1.0, -0.5, 0.0, arena=arena)
    assert not back.is_touching
    assert back.x < robot.x - 0.3
    assert back.collisions == 1
    assert drive(back, 3.0, 1.0, 0.0, arena=arena).collisions == 2


def test_it_counts_how_often_it_came_to_stand():
    robot = drive(drive(drive(drive(Robot(), 0.5, 0.5), 0.5), 0.5, 0.5), 0.5)
    assert robot.stops == 2
    assert drive(Robot(), 1.0).stops == 0


def test_a_turn_on_the_spot_goes_nowhere():
    robot = drive(Robot(angular_radps=1.0), pi / 2, 0.0, 1.0)
    assert robot.yaw == pytest.approx(pi / 2, abs=0.01)
    assert (robot.x, robot.y, robot.distance_m) == (0, 0, 0)


# --- goals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('goal', [(2.0, 0.5), (-2.0, 0.1), (0.0, -1.5)])
def test_where_nothing_is_in_the_way_it_comes_to_a_goal(goal):
    robot = Robot()
    for _ in range(1500):
        robot = move(
            robot, EMPTY, BASE, towards(robot, goal, speed_mps=0.4, turn_radps=0.8), age_s=0.0, dt=DT
        )
        if hypot(robot.x - goal[0], robot.y - goal[1]) < 0.05:
            break
    assert hypot(robot.x - goal[0], robot.y - goal[1]) < 0.05


def test_goals_have_room_and_differ():
    arena, rng = make_arena(4), np.random.default_rng(0)
    goals = [draw_goal(arena, rng, clearance=0.5) for _ in range(50)]
    assert min(clearance_m(arena, *goal) for goal in goals) > 0.5
    assert len(set(goals)) == 50
    assert draw_goal(arena, rng, clearance=9.0) == (0.0, 0.0)
