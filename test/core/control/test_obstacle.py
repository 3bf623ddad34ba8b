"""The rule without a policy: it follows, slows down, turns away and stops."""

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from isaac_infer.core.control.command import STOP, Command
from isaac_infer.core.control.obstacle import AvoidanceRule, avoid
from isaac_infer.core.control.safety import Readings, SafetyLimits, State, govern
from isaac_infer.core.control.scan import nearest_in_path, read_scan
from isaac_infer.core.errors import ParameterError

RULE = AvoidanceRule(slow_distance_m=1.0, stop_distance_m=0.5, half_width_m=0.2, turn_radps=1.0)
BEAMS = 180
STEP = math.tau / BEAMS
ANGLES = -math.pi + np.arange(BEAMS) * STEP


def scan_of(ranges):
    return read_scan(ranges, angle_min=-math.pi, angle_increment=STEP, range_min=0.05, range_max=8.0)


def obstacle(metres, *, degrees=(-15, 15)):
    """A scan that is free but for a sector."""
    is_there = (np.degrees(ANGLES) >= degrees[0]) & (np.degrees(ANGLES) <= degrees[1])
    return scan_of(np.where(is_there, metres, math.inf))


def test_nobody_commands_and_it_does_not_cruise():
    assert avoid(obstacle(5.0), None, RULE, '') == (STOP, '')


def test_where_nobody_commands_it_may_cruise():
    assert avoid(obstacle(5.0), None, replace(RULE, cruise_mps=0.3), '') == (Command(0.3), '')


@pytest.mark.parametrize('wanted', [Command(0.4, 0.1, 0.2), Command(-0.4), STOP])
def test_while_the_way_is_free_it_follows(wanted):
    assert avoid(obstacle(1.2), wanted, RULE, '') == (wanted, '')


@pytest.mark.parametrize('wanted', [Command(-0.4), Command(angular_z=0.5), STOP])
def test_before_an_obstacle_it_may_turn_and_drive_back(wanted):
    assert avoid(obstacle(0.3), wanted, RULE, '') == (wanted, '')


def test_half_way_between_slow_and_stop_it_drives_at_half_the_speed_and_turns():
    rule = replace(RULE, turn_radps=0.8)
    command, side = avoid(obstacle(0.75, degrees=(0, 0)), Command(0.4), rule, '')
    assert command == Command(pytest.approx(0.2), 0.0, pytest.approx(0.4)) and side == 'left'


def test_driving_aslant_all_of_the_command_is_slowed_down():
    wanted = Command(0.3, 0.3, 0.6)
    command, _ = avoid(obstacle(0.75, degrees=(44, 46)), wanted, RULE, '')
    assert (command.linear_x, command.linear_y) == pytest.approx((0.15, 0.15), abs=1e-3)
    assert command.angular_z == pytest.approx(0.3 + 0.5, abs=1e-3)


def test_it_begins_at_the_slow_distance():
    assert avoid(obstacle(1.0, degrees=(0, 0)), Command(0.4), RULE, '')[1] == 'left'
    assert avoid(obstacle(1.001, degrees=(0, 0)), Command(0.4), RULE, '')[1] == ''


@pytest.mark.parametrize('metres', [0.5, 0.1, -math.inf])
def test_at_the_stop_distance_it_only_turns(metres):
    command, side = avoid(obstacle(metres, degrees=(0, 0)), Command(0.4, 0.0, 0.3), RULE, '')
    assert command == Command(0.0, 0.0, 1.0) and side == 'left'


@pytest.mark.parametrize(
    ('degrees', 'side'),
    [((-60, 10), 'left'), ((-10, 60), 'right'), ((-20, 20), 'left')],  # as good: always the same
)
def test_it_turns_to_the_freer_side(degrees, side):
    assert avoid(obstacle(0.6, degrees=degrees), Command(0.4), RULE, '')[1] == side


def test_what_is_far_does_not_make_a_side_freer():
    far_left = np.where(np.degrees(ANGLES) > 0, 7.0, 2.0 * RULE.slow_distance_m)
    far_left[np.abs(np.degrees(ANGLES)) <= 10] = 0.6
    far_left[(np.degrees(ANGLES) > 80) & (np.degrees(ANGLES) < 90)] = 1.9
    assert avoid(scan_of(far_left), Command(0.4), RULE, '')[1] == 'right'


def test_driving_backwards_it_turns_to_the_freer_side_too():
    wall = np.where((np.degrees(ANGLES) > 165) | (np.degrees(ANGLES) < -100), 0.6, math.inf)
    command, side = avoid(scan_of(wall), Command(-0.4), RULE, '')
    # Seen to the back, what is at -100 degrees is on the left: turning right takes its back from there.
    assert side == 'right' and command.angular_z < 0 and command.linear_x < 0


def test_a_side_that_was_not_measured_is_not_free():
    blind = np.where(np.abs(np.degrees(ANGLES)) <= 20, 0.6, 3.0)
    blind[np.degrees(ANGLES) > 35] = math.nan
    assert avoid(scan_of(blind), Command(0.4), RULE, '')[1] == 'right'


@pytest.mark.parametrize('side', ['left', 'right'])
def test_it_keeps_its_side_whichever_is_freer_now(side):
    for degrees in ((-60, 10), (-10, 60)):
        command, kept = avoid(obstacle(0.6, degrees=degrees), Command(0.4), RULE, side)
        assert kept == side and (command.angular_z > 0) == (side == 'left')


def test_a_side_is_given_up_only_when_the_way_is_free_by_a_margin():
    assert avoid(obstacle(1.09), Command(0.4), RULE, 'right') == (Command(0.4), 'right')
    assert avoid(obstacle(1.2), Command(0.4), RULE, 'right') == (Command(0.4), '')


def test_where_it_cannot_see_its_way_it_stands_and_remembers_its_side():
    ahead_only = read_scan(
        np.full(91, 5.0), angle_min=-math.pi / 2, angle_increment=math.pi / 90, range_min=0, range_max=8
    )
    assert avoid(None, Command(0.4), RULE, 'left') == (STOP, 'left')
    assert avoid(ahead_only, Command(-0.4), RULE, '') == (STOP, '')


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'stop_distance_m': 1.0}, r'expected .* below slow_distance_m \(1.0\), got 1.0'),
        ({'stop_distance_m': math.nan}, 'got nan'),
        ({'stop_distance_m': -0.1}, 'got -0.1'),
        ({'slow_distance_m': math.inf}, r'slow_distance_m \(inf\)'),
        ({'turn_radps': -1.0}, 'turn_radps: expected a number of at least 0, got -1.0'),
        ({'cruise_mps': math.inf}, 'cruise_mps'),
    ],
)
def test_a_rule_that_cannot_be_is_refused(changed, message):
    with pytest.raises(ParameterError, match=message):
        replace(RULE, **changed)


def test_a_rule_may_have_no_stop_distance():
    assert avoid(obstacle(0.5), Command(0.4), replace(RULE, stop_distance_m=0.0), 'left')[0].linear_x > 0


# A room of 6 x 6 m with round pillars, in which a robot drives by the rule under the safety layer.

RADIUS_M, ROOM_M, PERIOD_S = 0.18, 3.0, 0.1
LIMITS = SafetyLimits(
    period_s=PERIOD_S,
    max_age_s={},
    stop_distance_m=0.4,
    max_linear_mps=0.5,
    max_angular_radps=1.5,
    max_linear_mps2=1.0,
    max_angular_radps2=6.0,
)


@dataclass(frozen=True)
class Pose:
    x: float
    y: float
    yaw: float

    def after(self, command):
        yaw = self.yaw + command.angular_z * PERIOD_S
        along = command.linear_x * PERIOD_S
        return Pose(self.x + along * math.cos(yaw), self.y + along * math.sin(yaw), yaw)


def seen_from(pose, pillars):
    """What a scanner in the middle of the robot measures."""
    rays = np.stack((np.cos(ANGLES + pose.yaw), np.sin(ANGLES + pose.yaw)), axis=1)
    with np.errstate(divide='ignore', over='ignore'):
        walls = (np.copysign(ROOM_M, rays) - (pose.x, pose.y)) / rays
    ranges = walls.min(axis=1)
    for x, y, radius in pillars:
        to = np.array((x - pose.x, y - pose.y))
        along, aside2 = rays @ to, to @ to - (rays @ to) ** 2
        is_hit = (along > 0) & (aside2 < radius**2)
        hits = along - np.sqrt(np.maximum(radius**2 - aside2, 0))
        ranges = np.where(is_hit, np.minimum(ranges, hits), ranges)
    return ranges


def drive(pose, pillars, wanted, *, steps):
    """Drive by the rule, and give the side and the place of every step; fails where it hits something."""
    state, side = State(), ''
    for _ in range(steps):
        ranges = seen_from(pose, pillars)
        assert ranges.min() > RADIUS_M
        scan = scan_of(ranges)
        command, side = avoid(scan, wanted, RULE, side)
        nearest_m = partial(nearest_in_path, scan, half_width_m=RULE.half_width_m)
        readings = Readings(True, {}, command, elapsed_s=PERIOD_S, nearest_m=nearest_m)
        verdict = govern(readings, LIMITS, state)
        state, pose = verdict.state, pose.after(verdict.command)
        yield side, (round(pose.x), round(pose.y))


pillar = some.tuples(some.floats(-2.5, 2.5), some.floats(-2.5, 2.5), some.floats(0.1, 0.4)).filter(
    lambda pillar: math.hypot(pillar[0], pillar[1]) > pillar[2] + 0.5
)


@settings(max_examples=25)
@given(some.lists(pillar, max_size=6), some.floats(-math.pi, math.pi), some.floats(-0.3, 0.3))
def test_in_a_room_of_pillars_it_hits_nothing_and_does_not_waver(pillars, yaw, curve):
    way = drive(Pose(0.0, 0.0, yaw), pillars, Command(0.5, 0.0, curve), steps=200)
    sides = [side for side, _ in way]
    changes = set(pairwise(sides))
    assert not changes & {('left', 'right'), ('right', 'left')}


def test_in_an_empty_room_it_goes_on_and_on():
    way = list(drive(Pose(0.0, 0.0, 0.0), [], Command(0.5), steps=600))
    assert len({place for _, place in way[-300:]}) > 5
